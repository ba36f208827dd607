"""The commands. Each returns a plan; it runs only after every flag has been understood."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import fire

from launcher import __version__
from launcher.commands.cluster_commands import ClusterCommands
from launcher.commands.endings import last_words
from launcher.commands.result_commands import ResultCommands
from launcher.commands.shard_commands import ShardCommands
from launcher.recipe.arguments import (
    Plan,
    asks_for_help,
    integers,
    local_folder,
    one_of,
    prepared,
    recipe_named,
)
from launcher.recipe.config import Config


class Commands(ShardCommands, ResultCommands, ClusterCommands):
    """Organza: GAN image-to-image training, from a folder of images to translated pictures.

    Start with `pack`, then `show` a recipe, `train` it, and `translate` new maps. On a cluster,
    `doctor` and `submit` take the place of `train`; `status` and `runs` tell how it goes.
    """

    def pack(
        self,
        source: str,
        out: str,
        layout: str = "auto",
        split: str = "train",
        num_labels: str = "",
        shard_mib: str = "256",
        workers: str = "0",
        photos: str = "keep",
        quality: str = "",
        background: str = "",
        ignore_label: str = "",
        remap: str = "",
        bad_files: str = "refuse",
        links: str = "refuse",
        replace: str = "no",
    ) -> Plan:
        """Pack a folder or list of images into tar shards, or build a sample: `earth`, `digits`.

        Layouts, and the folders of SOURCE that each looks for:
          labels        SPLIT_label/, SPLIT_inst/ (optional), SPLIT_img/; or Cityscapes' tree
                        gtFine/SPLIT/ + leftImg8bit/SPLIT/; or annotations/SPLIT/ (ADE20K) or
                        stuffthingmaps/SPLIT/ (COCO) + images/SPLIT/
          pairs         SPLIT_A/ + SPLIT_B/, or A/SPLIT/ + B/SPLIT/, or A/ + B/; names match
          unpaired      SPLITA/ + SPLITB/ (CycleGAN's trainA, trainB), or as pairs; any names
          side-by-side  SPLIT/, or SOURCE itself: A is the left half of each file, B the right
          images        SPLIT/, or SOURCE itself: pictures, nothing beside them
          classes       SPLIT/CLASS/, or CLASS/: one domain for each class
          labelled      the same folders: one set, whose pictures come with their class
        unpaired and classes make one set per domain: OUT/A, OUT/B or OUT/CLASS.
        SPLIT=train finds training/ and train2017/ too, val validation/ and val2017/.

        SOURCE may also be a list, .csv with a header or .jsonl, of files below its folder: columns
        label, inst (optional) and image, or a and b, or ab, or image, alone or with class (a name)
        or attributes (names parted by blanks, in .jsonl a list); optionally key and split.

        Pictures are read as upright 8-bit RGB: grey, palettes, 16 bits, opaque alpha and what EXIF
        turns are converted and counted; CMYK and files other than PNG, JPEG and WebP are refused.

        Args:
            source: folder or list of images; or the word `earth` for a sample of satellite images,
                `digits` for one of handwritten digits.
            out: folder for the shards (of a sample: for the images and the shards).
            layout: one of these; auto tells labels, pairs and SPLITA/ + SPLITB/ by their folders.
            split: train, test, val ...: which part of the source.
            num_labels: refuse label ids that are not below this number.
            ignore_label: the id of pixels without a label, stored as the last of num_labels (a
                channel of its own); 255 by default, none to refuse it like any other.
            remap: file of label ids to renumber before that, a CSV `old,new` or a JSON object;
                ids that it does not list are refused.
            background: white, black or #rrggbb, over which transparent pictures are composed;
                keep: they stay as they are, for networks of four channels (model.input_nc=4);
                without it they are refused.
            shard_mib: about how large a shard becomes, in MiB (counted before --photos).
            workers: processes; 0 for one per core.
            photos: keep the files as they are, or store pictures of other formats as jpeg (4:4:4)
                or webp; never label or instance maps.
            quality: of jpeg or webp, 1 to 100; 95 by default.
            bad_files: refuse, with a list of all that is wrong, or leave_out to pack the sound
                samples alone; the others are counted, and listed in OUT/left-out.txt.
            links: refuse those that lead out of SOURCE, or follow them, as to another disk.
            replace: yes to pack other images into a finished OUT, or those of a damaged one again,
                as a new generation that is read from then on; runs that began with the old one
                go on with it.
        """
        from launcher.data import packing, samples
        from shards.source.source_files import links_followed

        counts = integers(
            "pack", num_labels=num_labels or "0", shard_mib=shard_mib, workers=workers
        )
        one_of("pack", "replace", replace, ("yes", "no"))
        one_of("pack", "bad_files", bad_files, ("refuse", "leave_out"))
        one_of("pack", "links", links, ("refuse", "follow"))
        stored = packing.storing_of(
            packing.photos_of(photos, quality), background, num_labels, ignore_label, remap
        )
        target = local_folder("pack", "OUT", out)
        folder = partial(packing.pack_folder, Path(source))
        work = partial(samples.pack_sample, source) if source in samples.SAMPLES else folder

        def run() -> None:
            with links_followed(links == "follow"):
                work(
                    target,
                    layout,
                    split,
                    counts["num_labels"],
                    counts["shard_mib"],
                    counts["workers"],
                    stored,
                    replace == "yes",
                    bad_files == "leave_out",
                )

        return Plan(run)

    def verify(self, shards: str) -> Plan:
        """Read every byte of packed shards and check it against their manifests.

        Args:
            shards: folder made by `pack`, or its URL: a set, or several domains.
        """
        from launcher.data import packing

        return Plan(lambda: packing.verify(shards))

    def train(self, config: str, **overrides: str) -> Plan:
        """Train a recipe; the same command again resumes the run. Worker entry of all launchers.

        Args:
            config: a YAML file, or the name of a recipe in launcher/configs.
            overrides: any option of the recipe by its dotted name: --optim.lr=1e-4.
        """
        from launcher.slurm import joining

        return Plan(lambda: joining.work(config, overrides))

    def show(self, config: str, **overrides: str) -> Plan:
        """Print the resolved configuration of a recipe, with its overrides, and stop.

        Args:
            config: a YAML file, or the name of a recipe in launcher/configs.
            overrides: any option of the recipe by its dotted name: --optim.lr=1e-4.
        """
        return Plan(lambda: print(load(config, overrides).to_yaml(), end=""))

    def options(self, config: str, json_schema: str = "no", **overrides: str) -> Plan:
        """Print every option of a recipe, with its type, range, value and meaning.

        Args:
            config: a YAML file, or the name of a recipe in launcher/configs.
            json_schema: print a JSON schema instead, by which editors complete and check recipes.
            overrides: any option of the recipe by its dotted name: --model.generator.kind=unet.
        """
        from launcher.commands import option_docs

        one_of("options", "json_schema", json_schema, ("yes", "no"))
        show = option_docs.as_json_schema if json_schema == "yes" else option_docs.as_table
        return Plan(lambda: print(show(load(config, overrides))))


def main() -> None:
    """Parse everything, then run."""
    with last_words():
        if sys.argv[1:] == ["--version"]:
            print(f"organza {__version__}")
            return
        if asks_for_help(sys.argv[1:]):
            give_help(sys.argv[1:])
            return
        plan = fire.Fire(Commands(), prepared(sys.argv[1:]), name="organza", serialize=silent)
        if isinstance(plan, Plan):
            status = plan._run() or 0
            sys.stdout.flush()
            sys.exit(status)


def give_help(arguments: list[str]) -> None:
    """What the command takes, and what its recipe does, if one is named."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    try:
        fire.Fire(Commands(), [*words[:1], "--", "--help"], name="organza")
    except fire.core.FireExit as told:
        if told.code:  # no such command
            raise
    found = recipe_named(words)
    if found is not None:
        from launcher.commands import option_docs

        flags = [argument[2:].partition("=") for argument in arguments if "=" in argument]
        config = load(found, {name: value for name, _, value in flags if "." in name})
        print(f"\n{option_docs.as_help(config, words[1])}")


def silent(result: object) -> object:
    """Keep fire from printing a plan; help texts pass."""
    return None if isinstance(result, Plan) else result


def load(config: str, overrides: dict[str, str]) -> Config:
    """The resolved configuration of a recipe."""
    from launcher.recipe import config as configuration

    return configuration.load(config, overrides)
