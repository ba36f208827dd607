"""What a folder holds for a trained network to translate, or to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from launcher.recipe.config import Config, ConfigError
from launcher.recipe.data_fit import fits, preprocess_of
from shards.pixels.census import label_histogram
from shards.pixels.images import check_header, decode_sample, has_alpha, is_turned
from shards.pixels.made_pictures import check_replaceable, save_pixels
from shards.pixels.storing import Storing
from shards.read.stream import collate
from shards.records import RGBA, DataError, Record, check_label_ids
from shards.source.layouts import find_conditions
from shards.source.source_files import dotted_key
from trainers.gan import Batch


class Conditions:
    """The conditions of a source folder: (key, raw batch of one), brought to size, uncropped; and
    where their translations go."""

    def __init__(
        self,
        config: Config,
        source: Path,
        out: Path | None,
        split: str,
        layout: str,
        direction: str,
        storing: Storing,
        steered: bool = False,
    ):
        """out: where the pictures will be; None where none are made. steered: features are given in
        another way than by pictures of them."""
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
        if self.needs.features and not steered and "feat" not in records[0].files:
            raise ConfigError(
                f"{source} holds no {split}_feat, but the checkpoint reads features from pictures: "
                "add them, or choose by --features=FILE."
            )
        self.turned = self.without_alpha = 0
        self.records = records
        self.results = {record.key: out / result_name(record) for record in records if out}
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
        save_pixels(picture.permute(1, 2, 0).cpu().numpy(), self.results[key])

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
                    "or more: enlarge the picture."
                )
            if not fits(width, height, self.needs.multiple):
                raise DataError(
                    f"{path} is {width}x{height}, but this network takes sides that are "
                    f"multiples of {self.needs.multiple}: add --model.generator.pad=true, or bring "
                    "it to size by --data.preprocess.mode=resize_and_crop with a crop_size that "
                    "fits."
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
