"""`translate`: a checkpoint and a folder of conditions -> a folder of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from launcher.recipe.building import PRECISIONS, build
from launcher.recipe.config import Config, ConfigError, insert, load, parse
from launcher.recipe.config import build as build_config
from launcher.recipe.data_fit import fits, preprocess_of
from launcher.recipe.errors import config_errors, memory_errors
from launcher.run.run_folder import covers
from launcher.run.training import checkpoint_at
from launcher.text.progress_bar import progress_bar
from shards.pixels.census import label_histogram
from shards.pixels.images import check_header, decode_sample, has_alpha, is_turned
from shards.pixels.label_ids import read_remap, void_label
from shards.pixels.made_pictures import check_replaceable, save
from shards.pixels.storing import Storing
from shards.read.stream import collate
from shards.records import RGBA, DataError, Record, check_label_ids
from shards.source.layouts import find_conditions
from shards.source.source_files import dotted_key
from trainers.checkpoints.checkpoint import Checkpoint, load_weights
from trainers.checkpoints.originals import adopt_originals, holds_originals
from trainers.engine.translate import translate_all
from trainers.gan import GAN, Batch


def translate(
    checkpoint: Path,
    source: Path,
    out: Path,
    *,
    recipe: str = "",
    split: str,
    layout: str,
    direction: str,
    ema: bool,
    background: str = "",
    remap: str = "",
    overrides: dict[str, str],
) -> None:
    """A folder of conditions -> a folder of PNGs, by the architecture in the checkpoint.

    recipe: builds the network of the authors' weights, which tell nothing of it. overrides: options
    that differ from those in training, by dotted name."""
    if holds_originals(checkpoint):
        config, gan, direction = originals_generator(checkpoint, recipe, direction, overrides)
        place = checkpoint
    elif recipe:
        raise ConfigError("translate: --recipe belongs to the authors' weights; a run has its own.")
    else:
        stored = checkpoint_at(checkpoint, "checkpoint")
        place = stored.path
        config = overridden(stored.config, overrides, str(stored.path))
        with config_errors():
            gan = build(config, training=False)
        load_generator(gan, stored, ema)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    void = void_label("", config.model.needs.num_labels)
    storing = Storing(None, background, read_remap(Path(remap)) if remap else None, void)
    conditions = Conditions(config, source, out, split, layout, direction, storing)
    bar, move = progress_bar("translating")
    with bar, memory_errors("translate smaller images, or on another GPU."):
        precision = PRECISIONS[config.precision]
        translate_all(gan.to(device), conditions, conditions.write, precision, move)
    for (member, words), count in conditions.notes.items():
        print(f"{member}: {count} {words}.")
    print(f"{out}: {len(conditions)} pictures by {place}")


def originals_generator(
    path: Path, recipe: str, direction: str, overrides: dict[str, str]
) -> tuple[Config, GAN, str]:
    """The authors' weights in the network of a recipe, and which way they translate."""
    if not recipe:
        raise ConfigError(
            f"translate: {path} does not tell its network: give --recipe=pix2pix, cyclegan or "
            "pix2pixhd-full, and the options of the model that build it (--model.generator...)."
        )
    config = load(recipe, overrides)
    with config_errors():
        gan = build(config, training=False)
        backwards = direction == "B2A" and "G_B" in gan.nets
        filled = adopt_originals(gan, path, "G_B" if backwards else None)
    if filled == ["G_B"]:
        if direction == "A2B":
            raise ConfigError(f"translate: {path} translates B2A: leave out --direction=A2B.")
        direction = "B2A"
    if filled == ["G_A"] and direction == "B2A":
        raise ConfigError(f"translate: {path} translates A2B: leave out --direction=B2A.")
    return config, gan, direction


def load_generator(gan: GAN, stored: Checkpoint, ema: bool) -> None:
    """Only what translation uses; the average where the run kept one."""
    ema = ema and stored.has("ema")
    weights = stored.weights(ema)
    own = tuple(name + "." for name in gan.nets)
    load_weights(gan, {n: w for n, w in weights.items() if n.startswith(own)}, stored.path)


class Conditions:
    """The conditions of a source folder: (key, raw batch of one), brought to size, uncropped; and
    where their translations go."""

    def __init__(
        self,
        config: Config,
        source: Path,
        out: Path,
        split: str,
        layout: str,
        direction: str,
        storing: Storing,
    ):
        self.storing = storing
        self.notes: Counter[tuple[str, str]] = Counter()
        self.needs = config.model.needs
        self.preprocess = preprocess_of(config).uncropped()
        self.member = member_of(config, direction)
        self.channels = self.needs.channels.get(self.member, 3)
        known = [self.needs.layout, *(["side-by-side"] if self.needs.layout == "pairs" else [])]
        if layout not in ("auto", *known):
            raise ConfigError(
                f"translate: --layout={layout}, but {config.gan} takes {' or '.join(known)} here."
            )
        layout = known[0] if layout == "auto" else layout
        records = find_conditions(
            source, layout, split, member=self.member, photos=self.needs.photos
        )
        if self.needs.inst and "inst" not in records[0].files:
            raise ConfigError(
                f"{source} holds no {split}_inst, but the checkpoint uses instance maps: add them."
            )
        self.turned = self.without_alpha = 0
        self.records = records
        self.results = {record.key: out / result_name(record) for record in records}
        files = [path for record in records for path in record.files.values()]
        check_replaceable(self.results.values(), files)
        for record in records:  # all of them before the first is translated
            self._check(record)
        if self.turned:
            print(f"{self.turned} files are turned by EXIF: they are translated upright.")
        if self.without_alpha:
            print(f"{self.without_alpha} files have no alpha channel: they are taken as opaque.")

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[tuple[str, Batch]]:
        for record in self.records:
            yield record.key, self._read(record)

    def write(self, key: str, picture: Tensor) -> None:
        """picture: uint8 [1, 3 or 4, H, W], the translation of the condition `key`."""
        pixels = picture.permute(1, 2, 0).cpu().numpy()
        pixels = pixels[..., 0] if len(picture) == 1 else pixels
        save(Image.fromarray(pixels), self.results[key])

    def _check(self, record: Record) -> None:
        for member, path in record.files.items():
            data = path.read_bytes()
            size = check_header(data, member, str(path))
            self.turned += is_turned(data, str(path))
            self.without_alpha += self.channels == 4 and not has_alpha(data, str(path))
            width, height = self.preprocess.output_size(*size)
            least = self.needs.min_side_translated
            if min(width, height) < least:
                raise DataError(
                    f"{path} is {width}x{height}, but this network needs sides of {least} pixels "
                    "or more: enlarge the picture"
                )
            if not fits(width, height, self.needs.multiple):
                raise DataError(
                    f"{path} is {width}x{height}, but this network takes sides that are "
                    f"multiples of {self.needs.multiple}: add --model.generator.pad=true, or bring "
                    "it to size by --data.preprocess.mode=resize_and_crop with a crop_size that "
                    "fits"
                )

    def _read(self, record: Record) -> Batch:
        names = {member: str(path) for member, path in record.files.items()}
        files = {}
        for member, path in record.files.items():  # as it would be packed
            files[member], notes = self.storing.stored(path.read_bytes(), member, str(path))
            self.notes.update(notes)
        if self.storing.void:
            self.storing.void.check([note for _, note in self.notes], names["label"])
        pixels = decode_sample(files, names, dict.fromkeys(RGBA, self.channels))
        if "ab" in files:  # the other half is what is to be painted
            pixels = {self.member: pixels[self.member]}
        if self.needs.num_labels is not None:
            used = label_histogram(pixels["label"])
            check_label_ids(used, self.needs.num_labels, names["label"])
        return collate([self.preprocess.apply(pixels, 0, record.key)], [record.key])


def result_name(record: Record) -> str:
    """As the file that is translated is called, with its dots, which a key cannot have."""
    first = next(iter(record.files.values()))
    return f"{dotted_key(record.key, first)}.png"


def member_of(config: Config, direction: str) -> str:
    """The member of a sample that is translated in `direction` ("": the usual one)."""
    known = config.model.needs.directions
    if not known:
        raise ConfigError(f"translate: {config.gan} makes pictures from noise, not from pictures.")
    if direction and direction not in known:
        raise ConfigError(
            f"translate: --direction={direction}, but this checkpoint translates "
            f"{' or '.join(known)}."
        )
    backwards = (direction or known[0]) == "B2A"
    return "b" if backwards else CONDITION[config.model.needs.layout]


CONDITION = {"labels": "label", "pairs": "a", "unpaired": "a"}
"""The member of a sample that is translated A2B, by what a GAN reads."""


def overridden(tree: dict[str, Any], overrides: dict[str, str], source: str) -> Config:
    """The configuration of a checkpoint with dotted overrides of what training does not fix."""
    for option, text in overrides.items():
        if not covers(CHANGEABLE, option):
            raise ConfigError(
                f"translate: --{option} is fixed by the training; what may be changed is "
                f"{', '.join(CHANGEABLE)}."
            )
        insert(tree, option, parse(text))
    return build_config(tree, source)


CHANGEABLE = (
    "data.preprocess",
    "precision",
    "model.test_dropout",
    "model.test_statistics",
    "model.generator.pad",
)
