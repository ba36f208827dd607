"""Epochs in a configuration -> images, once the data set's size is known."""

from __future__ import annotations

from typing import Any

from launcher.recipe.config import Config, ConfigError
from trainers.settings import Settings


def resolve(config: Config, num_samples: int) -> Config:
    """The configuration with every "N epochs" replaced by its number of images."""
    sections = {
        name: value for name, value in config if isinstance(value, Settings) and name != "data"
    }
    changed = {
        name: section.model_copy(
            update={field: images(value, num_samples) for field, value in section}
        )
        for name, section in sections.items()
    }
    config = config.model_copy(update=changed)
    if config.schedule.constant + config.schedule.decay < 1:
        raise ConfigError("schedule.constant and schedule.decay are both 0: nothing to train.")
    return config


def images(value: Any, num_samples: int) -> Any:
    """One value: "2.5 epochs" -> images, at least one unless zero; anything else as it is."""
    if not (isinstance(value, str) and value.endswith(" epochs")):
        return value
    epochs = float(value.removesuffix(" epochs"))
    return max(1, round(epochs * num_samples)) if epochs else 0
