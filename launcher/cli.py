"""The commands. Each returns a plan; it runs only after every flag has been understood."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import NoReturn

import fire

from cluster import attempts
from cluster.errors import ClusterError
from launcher import logs
from launcher.arguments import Plan, integers, local_folder, one_of, prepared, text_path
from launcher.cluster_commands import ClusterCommands
from launcher.config import Config, ConfigError
from launcher.shard_commands import ShardCommands
from shards.records import DataError


FIRST_RANK_SPEAKS = 5.0
"""Seconds: launchers look after their workers several times in them."""
REMEDIES = {
    errno.ENOSPC: "make room on that disk, or choose another place",
    errno.EDQUOT: "make room in your quota there, or choose another place",
    errno.EROFS: "choose a place that may be written",
    errno.EACCES: "ask its owner for the right to it, or choose another place",
    errno.EPERM: "ask its owner for the right to it, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk or its server fails: look at its logs, or choose another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""By the number of an OSError: what its user can do."""


class Commands(ShardCommands, ClusterCommands):
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
        """Pack a folder or list of images into tar shards, or build the sample data set `earth`.

        Layouts, and the folders of SOURCE that each looks for:
          labels        SPLIT_label/, SPLIT_inst/ (optional), SPLIT_img/; or Cityscapes' tree
                        gtFine/SPLIT/ + leftImg8bit/SPLIT/; or annotations/SPLIT/ (ADE20K) or
                        stuffthingmaps/SPLIT/ (COCO) + images/SPLIT/
          pairs         SPLIT_A/ + SPLIT_B/, or A/SPLIT/ + B/SPLIT/, or A/ + B/; names match
          unpaired      SPLITA/ + SPLITB/ (CycleGAN's trainA, trainB), or as pairs; any names
          side-by-side  SPLIT/, or SOURCE itself: A is the left half of each file, B the right
          classes       SPLIT/CLASS/, or CLASS/: one domain for each class
        unpaired and classes make one set per domain: OUT/A, OUT/B or OUT/CLASS.
        SPLIT=train finds training/ and train2017/ too, val validation/ and val2017/.

        SOURCE may also be a list, .csv with a header or .jsonl, of files below its folder: columns
        label, inst (optional) and image, or a and b, or ab, or image; optionally key and split.

        Pictures are read as upright 8-bit RGB: grey, palettes, 16 bits, opaque alpha and what EXIF
        turns are converted and counted; CMYK and files other than PNG, JPEG and WebP are refused.

        Args:
            source: folder or list of images; or the word `earth` for a sample of satellite images.
            out: folder for the shards (for `earth`: for the images and the shards).
            layout: one of these; auto tells labels, pairs and SPLITA/ + SPLITB/ by their folders.
            split: train, test, val ...: which part of the source.
            num_labels: refuse label ids that are not below this number.
            ignore_label: the id of pixels without a label, stored as the last of num_labels (a
                channel of its own); 255 by default, none to refuse it like any other.
            remap: file of label ids to renumber before that, a CSV `old,new` or a JSON object;
                ids that it does not list are refused.
            background: white, black or #rrggbb, over which transparent pictures are composed;
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
        from launcher import packing
        from shards.source_files import links_followed

        counts = integers(
            "pack", num_labels=num_labels or "0", shard_mib=shard_mib, workers=workers
        )
        one_of("pack", "replace", replace, ("yes", "no"))
        one_of("pack", "bad_files", bad_files, ("refuse", "leave_out"))
        one_of("pack", "links", links, ("refuse", "follow"))
        stored = packing.storing_of(
            packing.photos_of(photos, quality), background, num_labels, ignore_label, remap
        )
        choices = {"replace": replace == "yes", "leave_out_bad": bad_files == "leave_out"}
        target = local_folder("pack", "OUT", out)
        folder = partial(packing.pack_folder, Path(source))
        work = packing.pack_earth if source == "earth" else folder

        def run() -> None:
            with links_followed(links == "follow"):
                work(target, layout, split, **counts, storing=stored, **choices)

        return Plan(run)

    def verify(self, shards: str) -> Plan:
        """Read every byte of packed shards and check it against their manifests.

        Args:
            shards: folder made by `pack`, or its URL: a set, or several domains.
        """
        from launcher import packing

        return Plan(lambda: packing.verify(shards))

    def train(self, config: str, **overrides: str) -> Plan:
        """Train a recipe; the same command again resumes the run. Worker entry of all launchers.

        Args:
            config: a YAML file, or the name of a recipe in launcher/configs.
            overrides: any option of the recipe by its dotted name: --optim.lr=1e-4.
        """
        from launcher import joining

        return Plan(lambda: joining.work(config, overrides))

    def show(self, config: str, **overrides: str) -> Plan:
        """Print the resolved configuration of a recipe, with its overrides, and stop.

        Args:
            config: a YAML file, or the name of a recipe in launcher/configs.
            overrides: any option of the recipe by its dotted name: --optim.lr=1e-4.
        """
        return Plan(lambda: print(load(config, overrides).to_yaml(), end=""))

    def translate(
        self,
        checkpoint: str,
        source: str,
        out: str,
        split: str = "test",
        layout: str = "auto",
        direction: str = "",
        weights: str = "ema",
        background: str = "",
        remap: str = "",
        **overrides: str,
    ) -> Plan:
        """Turn a folder of label (and instance) maps or of pictures into PNG pictures.

        Pictures are brought to size as in training, but whole; --data.preprocess.mode=none keeps
        the size that they have.

        Args:
            checkpoint: a run folder (its newest checkpoint), or one checkpoint.
            source: folder laid out as for `pack`, or itself the folder of maps or pictures.
            out: folder for the pictures, named as their sources.
            split: train, test, val ...: which part of the source.
            layout: auto, or side-by-side when each file of the source holds both pictures.
            direction: A2B or B2A, for a GAN that was trained on A and B; its own by default.
            weights: ema (the moving average, if the run keeps one) or raw.
            background: as for `pack`: what transparent pictures are composed over.
            remap: as for `pack`: file of label ids to renumber. Id 255 becomes the last label, as
                there.
            overrides: options of the run that shall differ, by dotted name:
                --data.preprocess.mode=none, --model.test_dropout=false, --precision=bf16.
        """
        from launcher import translating

        one_of("translate", "weights", weights, ("ema", "raw"))
        learned = text_path("translate", checkpoint)
        return Plan(
            lambda: translating.translate(
                learned,
                Path(source),
                Path(out),
                split=split,
                layout=layout,
                direction=direction,
                ema=weights == "ema",
                background=background,
                remap=remap,
                overrides=overrides,
            )
        )

    def score(self, pictures: str, photos: str, sources: str = "", beat: str = "") -> Plan:
        """Mean absolute error of translated pictures, beside that of the simplest answers.

        These are the best constant colour (constant), the same pictures beside the next photo
        (mismatch) and, with --sources, leaving the source as it is (identity). Exits with 1 when
        the pictures are no better than one of those in `beat`.

        Args:
            pictures: folder made by `translate`.
            photos: folder of the real photos, with the same file names.
            sources: folder of the pictures that were translated, with the same file names.
            beat: names with commas between; all that are there by default.
        """
        from launcher import scoring

        answers = {"constant": scoring.CONSTANT, "mismatch": scoring.MISMATCH}
        answers |= {"identity": scoring.IDENTITY} if sources else {}
        names = beat.split(",") if beat else list(answers)
        if "identity" in names and not sources:
            raise ConfigError("score: --beat=identity needs --sources, the pictures translated.")
        for name in names:
            one_of("score", "beat", name, tuple(answers))
        given = Path(sources) if sources else None
        wanted = tuple(answers[name] for name in names)
        return Plan(lambda: scoring.score(Path(pictures), Path(photos), given, wanted))


def main() -> None:
    """Parse everything, then run; mistakes of the user end with a sentence, not a traceback."""
    try:
        arguments = prepared(sys.argv[1:])
        plan = fire.Fire(Commands(), arguments, name="organza", serialize=silent)
        if isinstance(plan, Plan):
            status = plan._run() or 0
            sys.stdout.flush()
            sys.exit(status)
    except (ConfigError, DataError) as error:
        attempts.record_mistake(str(error))
        fail(error, 2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from what is finished.", 128 + signal.SIGINT)
    except (*user_errors(), OSError) as error:  # a full disk, a folder that may not be written
        if isinstance(error, BrokenPipeError) and nobody_reads():
            os._exit(128 + signal.SIGPIPE)  # as of any program before `| head`
        fail(disk_words(error) if isinstance(error, OSError) else error, 1)


def disk_words(error: OSError) -> str:
    """What was to be written or read, why it was not, and what to do."""
    place = error.filename or "Standard output"
    remedy = REMEDIES.get(error.errno or 0, "see to it")
    return (
        f"{place}: {error.strerror or error}; {remedy}. The same command goes on from what is "
        "finished."
    )


def user_errors() -> tuple[type[Exception], ...]:
    """The other exceptions whose message is all that the user needs."""
    loaded = sys.modules.get("trainers.errors")
    return (ClusterError, *([loaded.TrainingError] if loaded else ()))


def nobody_reads() -> bool:
    """Whether the pipe that this process prints into has lost its reader."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def let_others_speak() -> None:
    """The first rank of a node speaks for all that end alike, and the launcher then ends these: who
    still lives after a moment has something of its own to say."""
    if int(os.environ.get("LOCAL_RANK") or 0) > 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(FIRST_RANK_SPEAKS)


def fail(error: object, code: int) -> NoReturn:
    """One sentence and the exit status."""
    rank = os.environ.get("RANK")
    if code == 2:
        let_others_speak()
    sentence = f"organza{f' (rank {rank})' if rank else ''}: {error}"
    print(sentence, file=sys.stderr)
    logs.tell(sentence)
    sys.stdout.flush()
    sys.stderr.flush()
    if rank:
        # The other ranks may hang in a collective, and gloo aborts now and then at a regular exit.
        os._exit(code)
    sys.exit(code)


def silent(result: object) -> object:
    """Keep fire from printing a plan; help texts pass."""
    return None if isinstance(result, Plan) else result


def load(config: str, overrides: dict[str, str]) -> Config:
    """The resolved configuration of a recipe."""
    from launcher import config as configuration

    return configuration.load(config, overrides)
