"""Epochs in a configuration -> images, once the data set's size is known."""

from __future__ import annotations

from typing import Any, TypeVar

from launcher.recipe.config import CadenceOptions, Config, ConfigError, EmaOptions
from launcher.recipe.optim_options import ScheduleOptions
from trainers.settings import Settings

Section = TypeVar("Section", bound=Settings)


class ImageSchedule(ScheduleOptions):
    """All stretches in images."""

    constant: int
    decay: int
    step: int

    @property
    def total(self) -> int:
        """Images of the whole run."""
        return self.constant + self.decay


class ImageCadence(CadenceOptions):
    """All stretches in images."""

    log: int
    pictures: int
    save: int
    keep_every: int


class ImageEma(EmaOptions):
    """All stretches in images."""

    halflife: int
    start: int


class ResolvedConfig(Config):
    """A configuration in which every stretch of training is a number of images."""

    schedule: ImageSchedule
    ema: ImageEma
    cadence: ImageCadence


def resolve(config: Config, num_samples: int) -> ResolvedConfig:
    """The configuration with every "N epochs" replaced by its number of images."""
    sections: dict[str, Any] = dict(config) | {
        "model": resolved_section(type(config.model), config.model, num_samples),
        "schedule": resolved_section(ImageSchedule, config.schedule, num_samples),
        "ema": resolved_section(ImageEma, config.ema, num_samples),
        "cadence": resolved_section(ImageCadence, config.cadence, num_samples),
    }
    resolved = ResolvedConfig.model_construct(**sections)
    if resolved.schedule.total < 1:
        raise ConfigError("schedule.constant and schedule.decay are both 0: nothing to train.")
    return resolved


def resolved_section(kind: type[Section], section: Settings, num_samples: int) -> Section:
    """The values of a section, as one of a `kind` whose stretches are images. All its values were
    valid before."""
    values: dict[str, Any] = {name: images(value, num_samples) for name, value in section}
    return kind.model_construct(**values)  # type: ignore[return-value]  # pydantic's plugin errs


def images(value: Any, num_samples: int) -> Any:
    """One value: "2.5 epochs" -> images, at least one unless zero; anything else as it is."""
    if not (isinstance(value, str) and value.endswith(" epochs")):
        return value
    epochs = float(value.removesuffix(" epochs"))
    return max(1, round(epochs * num_samples)) if epochs else 0
