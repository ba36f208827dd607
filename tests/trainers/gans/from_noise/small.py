"""Each GAN from noise in small, and batches for it as the stream would give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from launcher.recipe.config import gan_module
from shards.read.noise import Noise
from tests.trainers import toy
from trainers.backends.base import Backend
from trainers.gan import GAN, Batch
from trainers.recipe import Cadence
from trainers.settings import GANSettings, Needs

CONVOLUTIONS: dict[str, Any] = {
    "side": 8,
    "channels": 1,
    "num_noise": 3,
    "generator": {"ngf": 2},
    "discriminator": {"ndf": 2},
}
BIGGAN: dict[str, Any] = {
    "side": 32,
    "channels": 1,
    "num_noise": 10,
    "num_classes": 3,
    "ngf": 1,
    "ndf": 2,
    "num_shared": 2,
    "generator_attention": (),
    "discriminator_attention": (),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gan": {"side": 6, "num_noise": 3, "generator": {"widths": (4,)}},
    "dcgan": CONVOLUTIONS,
    "wgan": CONVOLUTIONS | {"num_critic_steps": 2},
    "wgan_gp": CONVOLUTIONS | {"num_critic_steps": 2, "critic_batches": "fresh"},
    "cgan": {
        "side": 6,
        "num_noise": 3,
        "num_classes": 3,
        "generator": {"widths": (4, 5)},
        "discriminator": {"widths": (4, 5), "dropout": 0},
    },
    "infogan": {
        "num_noise": 3,
        "num_classes": 3,
        "recogniser_width": 3,
        "generator_widths": (4, 3, 2),
        "trunk_widths": (2, 3, 4),
    },
    "cogan": {
        "num_noise": 3,
        "generator_widths": (4, 3, 3, 2),
        "discriminator_widths": (2, 3, 4),
    },
    "infogan three": {
        "form": "three-heads",
        "side": 16,
        "num_noise": 3,
        "num_classes": 3,
        "dropout": 0,
        "generator_widths": (4, 3),
        "trunk_widths": (2, 3, 3, 4),
    },
    "cogan enlarging": {
        "form": "enlarging",
        "side": 16,
        "num_noise": 3,
        "dropout": 0,
        "generator_widths": (4, 3),
        "discriminator_widths": (2, 3, 3, 4),
    },
    "sagan": {"side": 16, "channels": 1, "num_noise": 3, "ngf": 8, "ndf": 8},
    "sagan wgangp": {
        "side": 16,
        "channels": 1,
        "num_noise": 3,
        "ngf": 8,
        "ndf": 8,
        "gan_loss": "wgangp",
    },
    "biggan": BIGGAN | {"generator_ortho": 1e-4},
    "s2gan": BIGGAN | {"labelled": 0.5, "turned": 1.0, "num_critic_steps": 1},
    "progan": {
        "side": 16,
        "channels": 1,
        "num_noise": 3,
        "fmap_base": 16,
        "fmap_max": 4,
        "stable": 4,
        "fading": 8,
        "group_size": 2,
    },
}
AT_THE_END = Cadence(log=4, pictures=0, save=0)


def config_of(name: str, **changes: Any) -> GANSettings:
    return gan_module(name.split()[0], "test").Config(**CONFIGS[name] | changes)


def make(name: str, **changes: Any) -> GAN:
    return gan_module(name.split()[0], "test").Model(config_of(name, **changes))


def samples(needs: Needs, positions: list[int]) -> Batch:
    """What the stream gives for these positions of a run."""
    batch: Batch = {}
    for member in needs.channels:
        images = []
        for position in positions:
            generator = torch.Generator().manual_seed(position)
            shape = (needs.channels[member], needs.side, needs.side)
            images.append(torch.randint(0, 256, shape, generator=generator))
        batch[member] = torch.stack(images).to(torch.uint8)
    for draw in needs.draws:
        noise = Noise(**vars(draw))
        batch[draw.name] = torch.stack([torch.from_numpy(noise.at(0, n)) for n in positions])
    if needs.classes:
        batch["class"] = torch.tensor([position % needs.classes for position in positions])
        if needs.unlabelled:
            batch["class"][[n % 2 == 0 for n in positions]] = -1
    return batch | {"keys": [str(n) for n in positions]}


def stream_of(
    needs: Needs, backend: Backend, global_batch: int, num_micro: int
) -> Callable[..., Iterator[Batch]]:
    micro = global_batch // backend.world // num_micro

    def stream(position: int, size: int | None = None) -> Iterator[Batch]:
        share = (size or global_batch) // backend.world
        each = micro if size is None else share
        first = position + backend.rank * share
        while True:
            for start in range(first, first + share, each):
                yield samples(needs, [*range(start, start + each)])
            first += share * backend.world

    return stream


def train(folder: Path, name: str, model: dict[str, Any] | None = None, **options: Any) -> None:
    """Six steps of four images, or of as many as it needs, or what of them is missing."""
    changes = model or {}
    needs = config_of(name, **changes).needs
    size = max(4, 2 * needs.min_batch)
    plan = toy.recipe(
        total=6 * size,
        global_batch=size,
        num_micro=options.pop("num_micro", 1),
        optimizer=toy.SLOW,
        cadence=AT_THE_END,
    )
    toy.train(
        folder,
        plan,
        make_gan=partial(make, name, **changes),
        make_stream=partial(stream_of, needs),
        **options,
    )
