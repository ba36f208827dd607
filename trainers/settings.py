"""Base of every typed config section. Free of torch, so that commands start fast."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Unknown keys are refused, values are frozen, defaults obey their own ranges.

    The line of text under a field is its help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )
