"""Options of the processes, and of what goes between them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trainers.settings import Settings


class BackendOptions(Settings):
    """backend: the processes, and what goes between them."""

    world: int | None = Field(None, ge=1)
    """Processes that must take part; another number stops the run. null: what the launcher says."""
    timeout_s: float = Field(1800, gt=0)
    """Seconds after which a collective that somebody missed ends the run."""
    kind: Literal["accelerate", "deepspeed"] = "accelerate"
    """Who keeps several processes in step: accelerate with DDP, or DeepSpeed with ZeRO."""
    zero: int = Field(0, ge=0)
    """DeepSpeed's stage: 0 shards nothing, 1 the optimizers' moments, 2 the gradients as well."""
    compress: Literal["none", "bf16"] = "none"
    """What gradients travel as between processes: bf16 halves the bytes, rounds each gradient and
    each sum on the way to 8 significant bits, and holds copies of half their size meanwhile."""
    overlap: bool = False
    """Let the gradients of a phase travel while later phases compute, and step all at the end: the
    same numbers in the same memory, for a GAN whose phases do not build on each other's steps."""
    memory_gib: float | None = Field(None, gt=0, le=2**20)
    """GiB that a process may use (model.memory=auto); null: what its GPU, or this machine, has
    free."""

    @model_validator(mode="after")
    def _stage_works(self) -> BackendOptions:
        if self.zero > 2:
            raise ValueError(
                f"backend.zero={self.zero} is refused: it shards the parameters, but each player "
                "also uses the networks of the others, the average and the pictures use them "
                "whole; choose 2 (model.memory is what saves most)"
            )
        if self.zero and self.kind != "deepspeed":
            raise ValueError(f"backend.zero={self.zero} needs backend.kind=deepspeed")
        if self.overlap and self.kind == "deepspeed":
            raise ValueError(
                "backend.overlap=true is refused with backend.kind=deepspeed, whose engines wait "
                "for the gradients themselves; choose backend.kind=accelerate or overlap=false"
            )
        return self
