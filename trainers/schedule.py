"""Learning-rate schedule and cadence, both counted in images so that no world size changes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Constant, then linear to zero (Wang et al. 2018, section 4; Zhu et al. 2017, section 4)."""

    constant: int
    """Images seen at the full learning rate."""
    decay: int
    """Images over which the rate then falls linearly to zero."""

    @property
    def total(self) -> int:
        """Images of the whole run."""
        return self.constant + self.decay

    def factor(self, images: int) -> float:
        """Multiple of the base learning rate once `images` images have been seen."""
        if images <= self.constant:
            return 1.0
        return max(0.0, 1.0 - (images - self.constant) / self.decay)


def crossed(every: int, before: int, after: int) -> bool:
    """Whether a multiple of `every` images lies in (before, after]; 0 means never."""
    return every > 0 and before // every < after // every
