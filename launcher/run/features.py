"""`features`: what a run's encoder sees in a folder of photos, as clusters or as pictures; and
features chosen from clusters for `translate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import torch
from PIL import Image
from torch import Tensor

from launcher.recipe.building import PRECISIONS, build
from launcher.recipe.config import Config, ConfigError
from launcher.recipe.config import build as build_config
from launcher.recipe.errors import config_errors, memory_errors
from launcher.run.conditions import Conditions
from launcher.run.training import checkpoint_at
from launcher.run.translating import load_generator
from launcher.text.progress_bar import progress_bar
from nets.layers.conditioning import denormalise
from shards.pixels.made_pictures import check_replaceable, save
from shards.pixels.storing import Storing
from shards.records import DataError
from trainers.checkpoints.durable_files import replace_bytes
from trainers.engine.to_device import to_device
from trainers.gan import Batch
from trainers.gans.pix2pixhd import Pix2PixHD
from trainers.parts.looks import Clusters, Looks, looks_of

FILE = "features.safetensors"
"""In a run folder: the clusters of its features."""


def cluster(run: Path, source: Path, out: Path, split: str, count: int, seed: int) -> None:
    """Write the clusters of the looks in a folder laid out as for `pack`."""
    check_replaceable_clusters(out)
    looks = []
    gan, conditions, encoded = encoder_over(run, source, None, split)
    for _, batch, features in encoded:
        looks.append(look(gan, batch, features))
    clusters = Clusters.of(looks, count, seed)
    replace_bytes(out, clusters.to_bytes())
    instances = sum(len(each.labels) for each in looks)
    number = sum(len(centres) for centres in clusters.centres.values())
    print(
        f"{out}: {number} clusters of {len(clusters.centres)} labels, from {instances} looks in "
        f"{len(conditions)} pictures"
    )
