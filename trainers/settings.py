"""What every typed config section is made of. Free of torch."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Settings(BaseModel):
    """Unknown keys are refused, values are frozen, defaults obey their own ranges.

    The line of text under a field is its help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


def _span(value: Any) -> int | str:
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)? epochs?", text):
        return f"{text.split()[0]} epochs"
    if not re.fullmatch(r"\d+", text):
        raise ValueError("give a number of images (12000) or of epochs ('100 epochs')")
    return int(text)


Span = Annotated[int | str, BeforeValidator(_span)]
"""A stretch of training: images (12000), or epochs of the data set ("10 epochs") until the
launcher, which knows the data set, turns them into images."""
