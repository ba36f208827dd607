"""`translate`: a checkpoint and a folder of conditions -> a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from launcher.config import Config, ConfigError
from launcher.config import build as build_config
from launcher.terminal import progress_bar
from launcher.wiring import PRECISIONS, build, checkpoint_at, memory_errors, preprocess_of
from shards.census import label_histogram
from shards.images import decode_sample
from shards.layouts import find_conditions
from shards.records import DataError, Record, check_label_ids
from shards.stream import collate
from trainers.checkpoint import Checkpoint, load_weights
from trainers.gan import GAN, Batch
from trainers.translate import translate_all


def translate(checkpoint: Path, source: Path, out: Path, split: str, ema: bool) -> None:
    """A folder of conditions -> a folder of PNGs, by the architecture in the checkpoint."""
    stored = checkpoint_at(checkpoint, "checkpoint")
    config = build_config(stored.config, str(stored.path))
    gan = build(config, training=False)
    load_generator(gan, stored, ema)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    conditions = Conditions(config, source, split)
    bar, move = progress_bar("translating")
    with bar, memory_errors("translate smaller maps, or on another GPU."):
        translate_all(gan.to(device), conditions, out, PRECISIONS[config.precision], move)
    print(f"{out}: {len(conditions)} pictures by {stored.path}")


def load_generator(gan: GAN, stored: Checkpoint, ema: bool) -> None:
    """Only what translation uses; the average where the run kept one."""
    ema = ema and stored.has("ema")
    weights = stored.weights(ema)
    own = tuple(name + "." for name in gan.nets)
    load_weights(gan, {n: w for n, w in weights.items() if n.startswith(own)}, stored.path)


class Conditions:
    """The conditions of a source folder: (key, raw batch of one), brought to size, uncropped."""

    def __init__(self, config: Config, source: Path, split: str):
        self.needs = config.model.needs
        self.preprocess = preprocess_of(config).uncropped()
        records = find_conditions(source, self.needs.layout, split, self.needs.photos)
        if self.needs.inst and "inst" not in records[0].files:
            raise ConfigError(
                f"{source} holds no {split}_inst, but the checkpoint uses instance maps: add them."
            )
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[tuple[str, Batch]]:
        for record in self.records:
            yield record.key, self._read(record)

    def _read(self, record: Record) -> Batch:
        names = {member: str(path) for member, path in record.files.items()}
        files = {member: path.read_bytes() for member, path in record.files.items()}
        pixels = decode_sample(files, names)
        if self.needs.num_labels is not None:
            used = label_histogram(pixels["label"])
            check_label_ids(used, self.needs.num_labels, names["label"])
        sized = self.preprocess.apply(pixels, 0, record.key)
        height, width = next(iter(sized.values())).shape[:2]
        if min(height, width) < self.needs.min_side:
            raise DataError(
                f"{next(iter(names.values()))} is {width}x{height}, but this network needs sides "
                f"of {self.needs.min_side} pixels or more: enlarge the map"
            )
        return collate([sized], [record.key])
