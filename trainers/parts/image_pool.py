"""History of generated images for the discriminator.

Shrivastava et al., Learning from Simulated and Unsupervised Images through Adversarial Training,
CVPR 2017 (arXiv:1612.07828), section 2.3, as CycleGAN uses it.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor


class ImagePool:
    """Hands out half of the images that it is given and, for the others, earlier ones.

    Each process has a pool of its own, whose state belongs into that process's part of a
    checkpoint. Its random numbers come from a generator of its own, so that the choices depend on
    nothing else that draws.
    """

    def __init__(self, size: int, name: str):
        """size: images kept, 0 for none; name: tells the draws of several pools apart."""
        self.size = size
        self.name = name
        self.images: list[Tensor] = []
        self._random: random.Random | None = None

    def query(self, images: Tensor) -> Tensor:
        """images [N, C, H, W] -> as many, some of them from the history if one is full.

        While the pool fills, images are stored and returned. Afterwards each is returned with
        probability 1/2, or else takes the place of a stored one, which is returned."""
        if self.size == 0:
            return images
        return torch.cat([self._exchange(image) for image in images.detach().split(1)])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(_copy(image))  # a view would keep the whole batch
            return image
        if self._generator().uniform(0, 1) <= 0.5:
            return image
        place = self._generator().randint(0, self.size - 1)
        stored, self.images[place] = self.images[place], _copy(image)
        return stored.to(image.dtype)  # a resumed run may compute in another precision

    def _generator(self) -> random.Random:
        # Seeded when first used: by then every process has a seed of its own.
        if self._random is None:
            self._random = random.Random(f"{torch.initial_seed()} {self.name}")
        return self._random

    def state(self) -> dict[str, Tensor]:
        """Images and random state as tensors, by name."""
        state = {f"image{place:05d}": image for place, image in enumerate(self.images)}
        _, words, _ = self._generator().getstate()
        return state | {"random": torch.tensor(words)}

    def load(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        images = [state[name] for name in sorted(state) if name.startswith("image")]
        # As they were: in another layout convolutions sum in another order.
        self.images = [_copy(image) for image in images]
        self._generator().setstate((random.Random.VERSION, tuple(state["random"].tolist()), None))


def _copy(image: Tensor) -> Tensor:
    """In channels_last; `contiguous` would take one channel for that, whatever its strides are."""
    return image.clone(memory_format=torch.channels_last)
