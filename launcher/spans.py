"""Epochs in a configuration -> images, once the data set's size is known."""

from __future__ import annotations

from typing import Any

from launcher.config import Config, ConfigError

SECTIONS = ("schedule", "ema", "cadence")


def resolve(config: Config, num_samples: int) -> Config:
    """The configuration with every "N epochs" replaced by its number of images."""
    changed = {
        name: getattr(config, name).model_copy(
            update={
                field: images(value, num_samples)
                for field, value in getattr(config, name).model_dump().items()
            }
        )
        for name in SECTIONS
    }
    config = config.model_copy(update=changed)
    if config.schedule.constant + config.schedule.decay < 1:
        raise ConfigError("schedule.constant and schedule.decay are both 0: nothing to train.")
    return config


def images(value: Any, num_samples: int) -> Any:
    """One value: "2.5 epochs" -> images; anything else as it is."""
    if isinstance(value, str):
        return round(float(value.split()[0]) * num_samples)
    return value
