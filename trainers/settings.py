"""What every typed config section is made of. Free of torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Settings(BaseModel):
    """Unknown keys are refused, values are frozen, defaults obey their own ranges.

    The line of text under a field is its help."""

    kinds: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Of a section with an option `kind`: by kind, the options that it alone understands, or in a
    way of its own."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


@dataclass(frozen=True)
class Draw:
    """Random numbers that come with every sample: float32 [N, *shape] in the batch, by name.

    They follow from the run's seed, the sample's position in the run and the name, so that one
    process, many, and a run that goes on see the same. What a process draws by itself differs."""

    name: str
    shape: tuple[int, ...]
    distribution: Literal["uniform", "normal"] = "normal"
    """uniform in [0, 1), or normal with mean 0 and deviation 1."""


@dataclass(frozen=True)
class Needs:
    """What a GAN's configuration asks of a data set; checked before training."""

    layout: str
    """What a sample must hold: "labels", "pairs", "unpaired" (a and b drawn independently) or
    "images"."""
    min_side: int = 1
    """Pixels that the shorter side of a picture must have in training."""
    min_side_translated: int = 1
    """The same in translation, where fewer networks take part."""
    multiple: int = 1
    """Both sides must be multiples of this."""
    side: int | None = None
    """Width and height that all pictures must have in training; None for any."""
    num_labels: int | None = None
    """Label ids must be smaller than this."""
    inst: bool = False
    """Whether instance maps are used."""
    channels: Mapping[str, int] = field(default_factory=dict)
    """Of pictures, by their name in the batch: 1 (grey), 3 (RGB) or 4 (RGB and alpha); 3 where
    nothing is said."""
    min_batch: int = 1
    """Least images of a micro-batch."""
    batch_groups: int = 1
    """Micro-batches must be divisible by this, or be smaller."""
    one_size: bool = False
    """Whether all pictures of all sets must be of one size in training."""
    draws: tuple[Draw, ...] = ()
    """Random numbers that the losses take with each sample."""
    photos: bool = False
    """Whether translation looks at the real picture where there is one."""
    classes: int | None = None
    """Classes that the set must have; a batch then has `class`, int64 [N]. None: none is read."""
    unlabelled: float = 0
    """Share of the samples, always the same, whose class is given as -1 in training."""
    attributes: tuple[str, ...] = ()
    """Names of attributes; a batch then has `attributes`, float32 [N, K] of 0 and 1, in this
    order."""
    features: bool = False
    """Whether pictures `feat` of features that were computed before are read."""
    directions: tuple[str, ...] = ("A2B",)
    """Ways of translation, the usual one first: A2B (from the first member of the layout) and
    B2A (from "b"); empty for a GAN that translates nothing."""
    samples: tuple[Draw, ...] = ()
    """Random numbers that a generated image takes; empty for a GAN that does not make images from
    them alone."""
    sample_classes: int = 0
    """Of how many classes (or values of a code) one may be asked for with them; 0 for none."""


class GANSettings(Settings):
    """The section `model` of a recipe: what a GAN is made from."""

    @property
    def needs(self) -> Needs:
        """What these options ask of a data set."""
        raise NotImplementedError

    @property
    def preset(self) -> str | None:
        """`memory`, if this GAN has that option: a preset of recomputation, or "auto"."""
        return getattr(self, "memory", None)

    @property
    def only_alone(self) -> str:
        """Why these options train on one process alone, without sharding, as the end of a sentence;
        "" where they do not."""
        return ""

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Images of a step at some time of the training, beside batch.total, by the option that
        says so."""
        return {}


def sections_of(settings: type[Settings]) -> dict[str, type[Settings]]:
    """The options of a section that are sections themselves."""
    kinds = {name: field.annotation for name, field in settings.model_fields.items()}
    return {n: k for n, k in kinds.items() if isinstance(k, type) and issubclass(k, Settings)}


def without_other_kinds(settings: type[Settings], section: Any, kind: Any) -> Any:
    """A section of a recipe without the options that its kind has, if `kind` is another one: they
    were chosen for that. `section`: the mapping as it was read, or whatever else was."""
    if not isinstance(section, dict) or not settings.kinds:
        return section
    before = section.get("kind", settings.model_fields["kind"].default)
    own, other = settings.kinds.get(before, ()), settings.kinds.get(kind, ())
    return section if own == other else {k: v for k, v in section.items() if k not in own}


def in_images(span: int | str) -> int:
    """A stretch of training of a configuration whose epochs have been replaced."""
    if isinstance(span, str):
        raise TypeError(f"{span}: how many images that is, is not known yet")
    return span


def _span(value: Any) -> int | str:
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)? epochs?", text):
        return f"{text.split()[0]} epochs" if float(text.split()[0]) else 0
    if not re.fullmatch(r"\d+", text):
        raise ValueError("give a number of images (12000) or of epochs ('100 epochs')")
    return int(text)


Span = Annotated[int | str, BeforeValidator(_span)]
"""A stretch of training: images (12000), or epochs of the data set ("10 epochs") until the
launcher, which knows the data set, turns them into images."""


def home_expanded(path: str) -> str:
    """A path with `~` and `~NAME` as a shell reads them; it leaves both alone in --option=~/x.

    ValueError for a user that this machine does not know."""
    expanded = os.path.expanduser(path)
    if path.startswith("~") and expanded == path:
        user = path.partition("/")[0]
        raise ValueError(f"{path}: nobody's home is {user} here; write ./{path} for such a folder")
    return expanded


def user_path(text: str) -> Path:
    """The path that people mean; ValueError where it cannot be written into a configuration."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{ascii(text)} is not UTF-8 text: choose, or rename to, a name that is"
        ) from error
    return Path(home_expanded(text))


def _user_path(value: Any) -> Any:
    return user_path(str(value)) if isinstance(value, (str, Path)) else value


UserPath = Annotated[Path, BeforeValidator(_user_path)]
"""A path as people write it: `~` is their home."""
