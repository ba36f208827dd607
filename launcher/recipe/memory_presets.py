"""`model.memory`: the presets that a GAN offers, from the fastest to the smallest, and `auto`.

`auto` is the launcher's word and no network knows it: it stays in the saved configuration, so that
a run that goes on elsewhere chooses anew, and is replaced where networks are built.
"""

from __future__ import annotations

from typing import TypeVar, get_args

from pydantic import ValidationError

from launcher.recipe.config import Config
from trainers.settings import GANSettings

AUTO = "auto"
SomeConfig = TypeVar("SomeConfig", bound=Config)
"""Resolved or not: it stays what it is."""


def settled(model: GANSettings) -> GANSettings:
    """What a network is built from. `auto` is the fastest where memory is no matter: to translate,
    every preset does the same."""
    return with_memory(model, presets(model)[0]) if is_auto(model) else model


def presets(model: GANSettings) -> tuple[str, ...]:
    """The presets that these options allow, from the fastest to the smallest; () without any."""
    if model.preset is None:
        return ()
    named = get_args(type(model).model_fields["memory"].annotation)
    return tuple(name for name in named if name != AUTO and allowed(model, name))


def allowed(model: GANSettings, preset: str) -> bool:
    """Whether the model's other options take this preset."""
    try:
        type(model).model_validate(model.model_dump() | {"memory": preset})
    except ValidationError:
        return False
    return True


def is_auto(model: GANSettings) -> bool:
    return model.preset == AUTO


def with_memory(model: GANSettings, preset: str) -> GANSettings:
    return model.model_copy(update={"memory": preset})


def with_preset(config: SomeConfig, preset: str) -> SomeConfig:
    return config.model_copy(update={"model": with_memory(config.model, preset)})


def advice(config: Config, num_images: int) -> str:
    """What helps where memory does not suffice for micro-batches of `num_images`, as the end of a
    sentence."""
    names = presets(config.model)
    now = config.model.preset
    smaller = names[names.index(now) + 1 :] if now in names else ()
    ways = [f"model.memory={' or '.join(smaller)}"] if smaller else []
    if num_images > 1:
        ways.append("a smaller batch.micro")
    if config.precision == "fp32":
        ways.append("precision=bf16")
    ways.append("smaller images (data.preprocess.crop_size, load_size)")
    return f"choose {', '.join(ways)} or a larger card."
