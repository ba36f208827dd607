"""Features of pix2pixHD, which steer an object's look: what a run's encoder sees in photos, as
clusters or as pictures, and those that `translate` chooses from clusters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from launcher.recipe.building import PRECISIONS
from launcher.recipe.config import Config, ConfigError
from launcher.recipe.errors import memory_errors
from launcher.run.conditions import Conditions
from launcher.run.generator import generator_of
from launcher.text.progress_bar import progress_bar
from nets.layers.conditioning import denormalise
from shards.pixels.label_ids import read_remap, void_label
from shards.pixels.storing import Storing
from trainers.checkpoints.durable_files import replace_tensors
from trainers.engine.translate import run_all
from trainers.gan import Batch
from trainers.gans.from_images.pix2pixhd import Pix2PixHD
from trainers.parts.looks import Clusters, Looks, looks_of
from trainers.parts.pix2pixhd_options import Pix2PixHDOptions

FILE = "features.safetensors"
"""In a run folder: the clusters of what its encoder saw."""


def cluster(
    run: Path, source: Path, out: Path, split: str, remap: str, count: int, seed: int
) -> None:
    """Write the clusters of the looks in a folder laid out as for `pack`: at most `count` of each
    label."""
    check_replaceable(out)
    encoder = TrainedEncoder(run, source, None, split, remap)
    looks: list[Looks] = []
    encoder.run(lambda key, batch, features: looks.append(encoder.look(batch, features)))
    clusters = Clusters.of(looks, count, seed)
    replace_tensors(out, clusters.tensors())
    number = sum(len(centres) for centres in clusters.centres.values())
    print(
        f"{out}: {number} clusters of {len(clusters.centres)} labels, of "
        f"{sum(len(each.labels) for each in looks)} looks in {len(encoder.conditions)} pictures."
    )


def draw_maps(run: Path, source: Path, out: Path, split: str, remap: str) -> None:
    """Write the features as pictures, which model.load_features reads."""
    encoder = TrainedEncoder(run, source, out, split, remap)
    if encoder.config.feat_channels != 3:
        raise ConfigError(
            f"features: {run} has model.feat_channels={encoder.config.feat_channels}, but pictures "
            "hold 3: leave out --maps."
        )
    conditions = encoder.conditions
    encoder.run(lambda key, batch, features: conditions.write(key, denormalise(features)[0]))
    print(f"{out}: features of {len(conditions)} pictures; pack them as SPLIT_feat.")


def home_of(run: Path) -> Path:
    """The folder of a run, also of one of its checkpoints: what lies in that is its own."""
    return run.absolute().parents[1] if run.absolute().parent.name == "checkpoints" else run


def check_replaceable(out: Path) -> None:
    """Refuse, before anything is encoded, to write over what is no file of clusters, or nowhere."""
    if not out.parent.is_dir():
        raise ConfigError(f"features: --out={out}: there is no folder {out.parent}: make it first.")
    if not os.path.lexists(out):
        return
    try:
        if out.is_symlink():
            raise ValueError("is a link")
        Clusters.read(out)
    except ValueError as error:
        raise ConfigError(f"{out} {error}, so it is not replaced: choose another --out.") from error


class TrainedEncoder:
    """The encoder of a run, over the photos of a folder."""

    def __init__(self, run: Path, source: Path, out: Path | None, split: str, remap: str):
        config, gan, _ = generator_of(run, {}, ema=True)
        if not isinstance(gan, Pix2PixHD) or not gan.config.encoder:
            raise ConfigError(f"features: {run} has no encoder (model.encoder=true in training).")
        self.gan, self.config = gan, gan.config
        self.precision = PRECISIONS[config.precision]
        table = read_remap(Path(remap)) if remap else None
        storing = Storing(None, "", table, void_label("", gan.config.num_labels))
        self.conditions = Conditions(config, source, out, split, "auto", "", storing)
        without = [r for r in self.conditions.records if "image" not in r.files]
        if without:
            raise ConfigError(
                f"features: {source} holds no photo of {without[0].key}: it must lie in "
                f"{split}_img, as for `pack`."
            )

    def run(self, use: Callable[[str, Batch, Tensor], None]) -> None:
        """Call use(key, prepared batch of one, features [1, C, H, W]) for each photo."""
        gan = self.gan.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        bar, move = progress_bar("encoding")
        with bar, memory_errors("encode smaller images, or on another GPU."):
            run_all(gan, self.conditions, gan.encode, use, self.precision, move)

    def look(self, batch: Batch, features: Tensor) -> Looks:
        """The looks of one picture."""
        return looks_of(features, groups_of(self.config, batch), batch["label"])


def groups_of(config: Pix2PixHDOptions, batch: Batch) -> Tensor:
    """Which pixels [N, 1, H, W] share a look."""
    return batch["inst"] if config.features_of == "instances" else batch["label"]


@dataclass(frozen=True)
class Choice:
    """How features are chosen in translation."""

    config: Pix2PixHDOptions
    clusters: Clusters
    seed: int | None
    """None: the commonest look of a label, the same everywhere."""

    def features(self, key: str, batch: Batch) -> Tensor:
        """Those of one raw batch of one: the same whenever it is translated with this seed."""
        seed = None if self.seed is None else crc32(f"{self.seed} {key}".encode())
        groups = groups_of(self.config, batch)
        return self.clusters.choose(groups, batch["label"], self.config.feat_channels, seed)


class Chosen:
    """Conditions with features that are chosen, in place of those of a photo."""

    def __init__(self, conditions: Conditions, choice: Choice):
        self.conditions, self.choice = conditions, choice

    def __len__(self) -> int:
        return len(self.conditions)

    def __iter__(self) -> Iterator[tuple[str, Batch]]:
        for key, raw in self.conditions:
            yield key, raw | {"features": self.choice.features(key, raw)}


def choice_of(config: Config, run: Path, looks: str, seed: int) -> Choice:
    """looks: "cluster" (the commonest of each label in RUN/features.safetensors), "sample" (drawn
    from there), or another file to draw from."""
    model = config.model
    if not isinstance(model, Pix2PixHDOptions) or not model.steered:
        raise ConfigError(
            f"translate: --features={looks} needs a run that takes features (pix2pixHD with "
            "model.encoder=true)."
        )
    file = home_of(run) / FILE if looks in ("cluster", "sample") else Path(looks)
    if not file.exists():
        raise ConfigError(
            f"translate: there is no {file}: make it by `organza features {run} SOURCE`."
        )
    try:
        clusters = Clusters.read(file)
        clusters.check(model.num_labels, model.feat_channels)
    except ValueError as error:
        raise ConfigError(f"translate: {file} {error}.") from error
    return Choice(model, clusters, None if looks == "cluster" else seed)
