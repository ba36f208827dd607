"""What a training step of ours does to save time or memory, and how to switch each of it off.

A saving is switched off by replacements of single attributes of the program, in one process and for
a while; the program itself knows nothing of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from launcher.recipe.config import Config
from nets.discriminators.patch import PatchDiscriminator
from nets.layers import conditioning
from nets.layers.norms import InstanceNorm, Norm
from nets.losses import losses, perceptual
from nets.losses.perceptual import SLICE_WEIGHTS, Vgg
from nets.memory.waist import Critic, Terms
from tests.benchmarks import step
from tests.benchmarks.race import has_vgg
from trainers.engine import trainer
from trainers.gan import GAN, Phase
from trainers.gans.from_images import cyclegan, pix2pix, pix2pixhd
from trainers.gans.from_images.pix2pixhd import Pix2PixHD
from trainers.parts import pix2pixhd_judges
from trainers.parts.networks import Network
from trainers.parts.pix2pixhd_judges import Judges
from trainers.recipe import OptimizerRecipe

MODULES = {"cyclegan": cyclegan, "pix2pix": pix2pix, "pix2pixhd": pix2pixhd}


class Swaps(ExitStack):
    """Replaces attributes until it is left, and counts how often each replacement is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def put(self, owner: Any, name: str, replacement: Callable[..., Any]) -> None:
        key = f"{owner.__name__}.{name}"
        self.calls[key] = 0
        self.callback(setattr, owner, name, getattr(owner, name))

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[key] += 1
            return replacement(*args, **kwargs)

        setattr(owner, name, counted)

    def check(self) -> None:
        """A replacement that nobody called would compare our step with itself."""
        unused = [name for name, calls in self.calls.items() if not calls]
        assert not unused, f"nothing calls {', '.join(unused)}"


@dataclass(frozen=True)
class Saving:
    """One row of the table."""

    name: str
    """What is done in its place."""
    switch_off: Callable[[Swaps, Config], None]
    applies: Callable[[Config], bool] = lambda config: True
    fixed: bool = False
    """It saves while the global part of the generator is frozen."""
    precise: bool = True
    """It also does in float64, in which its numbers are compared; else in the run's precision."""


def contiguous(swaps: Swaps, config: Config) -> None:
    names = ["one_hot"] * (config.model.needs.layout == "labels") + ["normalise"]
    for name in names:
        ours = getattr(conditioning, name)
        swaps.put(conditioning, name, lambda *args, ours=ours: ours(*args).contiguous())


def norm_with_views(swaps: Swaps, config: Config) -> None:
    def forward(self: InstanceNorm, x: Tensor, activation: nn.Module | None = None) -> Tensor:
        x = F.instance_norm(x)
        return x if activation is None else activation(x)

    swaps.put(InstanceNorm, "forward", forward)


def l1_on_copies(swaps: Swaps, config: Config) -> None:
    def l1(a: Tensor, b: Tensor, count: int | None = None) -> Tensor:
        precise = torch.promote_types(a.dtype, torch.float32)
        distance = F.l1_loss(a.to(precise), b.detach().to(precise), reduction="sum")
        return distance / (count or a.numel())

    swaps.put(losses, "l1", l1)
    if has_vgg(config):
        swaps.put(perceptual, "l1", l1)


def real_with_graph(swaps: Swaps, config: Config) -> None:
    def perceptual_loss(vgg: Vgg, fake: Tensor, real: Tensor, *whole: object) -> Tensor:
        wanted, found = vgg(real.detach().requires_grad_()), vgg(fake)
        distances = map(perceptual.l1, found, wanted)
        return torch.stack([w * d for w, d in zip(SLICE_WEIGHTS, distances, strict=True)]).sum()

    swaps.put(perceptual, "perceptual_loss", perceptual_loss)


def cast_at_each_call(swaps: Swaps, config: Config) -> None:
    def weights(self: Vgg, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (conv.weight, conv.bias) for name, conv in self.features.items()}

    swaps.put(Vgg, "_weights", weights)


def passes_not_shared(swaps: Swaps, config: Config) -> None:
    swaps.put(Pix2PixHD, "_judged_once", lambda self, fake: False)


def condition_with_each_image(swaps: Swaps, config: Config) -> None:
    def look_at(
        self: Judges, judge: PatchDiscriminator, condition: Tensor, real: Tensor, fake: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        return judge(torch.cat([condition, real], 1)), judge(torch.cat([condition, fake], 1))

    swaps.put(Judges, "_look_at", look_at)


def one_graph(swaps: Swaps, config: Config) -> None:
    """Not shared either: what D learns from a shared pass is taken at the waist."""

    def narrow_waist(image: Tensor, critics: Sequence[Critic]) -> tuple[Tensor, Terms]:
        found = [critic(image) for critic in critics]
        terms: Terms = {}
        for name, term in (item for _, own in found for item in own.items()):
            terms[name] = terms.get(name, 0) + term.detach()
        return sum(total for total, _ in found), terms

    swaps.put(MODULES[config.gan], "narrow_waist", narrow_waist)
    if is_hd(config):
        swaps.put(pix2pixhd_judges, "narrow_waist", narrow_waist)
        passes_not_shared(swaps, config)


def nothing_frozen(swaps: Swaps, config: Config) -> None:
    """One graph too: at the waist no other gradients are computed than its own."""
    one_graph(swaps, config)
    swaps.put(trainer, "only", trained(lambda gan, phase: gan.nets))


def global_part_trained(swaps: Swaps, config: Config) -> None:
    swaps.put(trainer, "only", trained(lambda gan, phase: gan.nets[phase.name]))


def trained(nets: Callable[[GAN, Phase], nn.Module]) -> Callable[..., Any]:
    """In place of `player.only`: all of these nets get gradients; those of the phase are used."""

    @contextmanager
    def only(gan: GAN, phase: Phase) -> Iterator[None]:
        gan.zero_grad()
        gan.requires_grad_(False)
        nets(gan, phase).requires_grad_(True)
        yield

    return only


def adam_in_a_loop(swaps: Swaps, config: Config) -> None:
    def optimizer(
        recipe: OptimizerRecipe, groups: list[dict[str, Any]], device: torch.device
    ) -> torch.optim.Optimizer:
        numbers = {"lr": recipe.lr, "betas": recipe.betas, "eps": recipe.eps}
        return torch.optim.Adam(groups, **numbers, foreach=False, fused=False)

    swaps.put(trainer, "build_optimizer", optimizer)


def a_call_for_each_pass(swaps: Swaps, config: Config) -> None:
    def run(network: Network, images: list[Tensor], norm: Norm) -> list[Tensor]:
        return [network(image) for image in images]

    swaps.put(MODULES[config.gan], "run", run)


def freed_memory_returned(swaps: Swaps, config: Config) -> None:
    swaps.put(step, "keep_freed_memory", lambda: None)


def vgg_in_one_piece(config: Config) -> bool:
    return has_vgg(config) and config.model.memory in ("none", "blocks", "halves")


def instance_norm(config: Config) -> bool:
    return is_hd(config) or config.model.generator.norm == "instance"


def is_hd(config: Config) -> bool:
    return config.gan == "pix2pixhd"


def on_gpu(config: Config) -> bool:
    return torch.cuda.is_available()


SAVINGS = (
    Saving("contiguous images, not channels_last", contiguous),
    Saving("F.instance_norm, which ends in a view", norm_with_views, instance_norm),
    Saving("F.l1_loss on float32 copies", l1_on_copies),
    Saving("VGG: features of the real image with graph", real_with_graph, vgg_in_one_piece),
    Saving(
        "VGG: weights cast at each call",
        cast_at_each_call,
        lambda config: has_vgg(config) and config.precision != "fp32",
        precise=False,
    ),
    Saving("D: passes of its own in phase D", passes_not_shared, is_hd),
    Saving("D: the condition beside each image", condition_with_each_image, is_hd),
    Saving("one graph of all critics, no waist", one_graph),
    Saving("one graph, and nothing frozen", nothing_frozen),
    Saving(
        "backward of the frozen global part (fix_global)",
        global_part_trained,
        lambda config: bool(getattr(config.model, "fix_global", 0)),
        fixed=True,
    ),
    Saving("Adam in a loop over the parameters", adam_in_a_loop, on_gpu),
    Saving("a call for each pass of a network", a_call_for_each_pass, lambda c: not is_hd(c)),
    Saving("freed memory given back", freed_memory_returned, lambda c: not on_gpu(c)),
)
BY_NAME = {saving.name: saving for saving in SAVINGS}
