"""What translates: the generator of a run, or the authors' weights in the network of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.recipe.building import build
from launcher.recipe.config import Config, ConfigError, insert, load, parse
from launcher.recipe.config import build as build_config
from launcher.recipe.errors import config_errors
from launcher.run.first_weights import checkpoint_at
from launcher.run.run_folder import covers
from trainers.checkpoints.checkpoint import Checkpoint, load_weights
from trainers.checkpoints.originals import adopt_originals
from trainers.gan import GAN

CHANGEABLE = (
    "data.preprocess",
    "precision",
    "model.test_dropout",
    "model.test_statistics",
    "model.generator.pad",
)
"""What translation may do in another way than training."""


def generator_of(
    checkpoint: Path, overrides: dict[str, str], ema: bool
) -> tuple[Config, GAN, Checkpoint]:
    """The networks of a run or checkpoint that translation uses, and where they come from. ema: the
    moving average, where the run kept one."""
    stored = checkpoint_at(checkpoint, "checkpoint")
    config = overridden(stored.config, overrides, str(stored.path))
    with config_errors():
        gan = build(config, training=False)
    load_generator(gan, stored, ema)
    return config, gan, stored


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
    """Only what translation uses, as far as training had come; the average where the run kept
    one."""
    ema = ema and stored.has("ema")
    weights = stored.weights(ema)
    own = tuple(name + "." for name in gan.nets)
    load_weights(gan, {n: w for n, w in weights.items() if n.startswith(own)}, stored.path)
    gan.advance(stored.progress.step, stored.progress.images)


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
