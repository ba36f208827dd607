"""pix2pixHD against five training steps of the original implementation, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nets.remat import Memory
from tests.nets.rule import arrays, fill, recorded
from trainers.gan import Batch
from trainers.gans.pix2pixhd import Config, Pix2PixHD
from trainers.player import Player, only


class Recorded(Pix2PixHD):
    """The trajectories' images are floats, not uint8."""

    def prepare(self, batch: Batch) -> Batch:
        prepared = super().prepare({k: v for k, v in batch.items() if k != "image"})
        return prepared | {"image": batch["image"]}


@pytest.mark.parametrize(
    ("num_scales", "memory"), [(2, "none"), (3, "none"), (3, "whole+strips")]
)
def test_five_steps_of_the_original(num_scales: int, memory: Memory, vgg_file: Path) -> None:
    expected, stored = recorded(f"pix2pixhd_numD{num_scales}"), arrays("pix2pixhd")
    sizes = dict(ngf=8, num_downsamples=3, num_blocks=3, ndf=8, num_scales=num_scales)
    gan = Recorded(Config(**sizes, vgg_weights=vgg_file, memory=memory))
    keys = {name: fill(gan.nets[name], f"hd.{name}") for name in "GD"}
    gan.double()
    phases = gan.phases(0)
    players = [Player(gan, phase) for phase in phases]
    optimizers = [torch.optim.Adam(p.parameters(), 2e-4, (0.5, 0.999)) for p in players]
    first = {2: 160, 3: 0}[num_scales]
    for step, wanted in enumerate(expected["steps"]):
        raw, carry, found = sample(stored, first + step), {}, {}
        for phase, player, optimizer in zip(phases, players, optimizers):
            with only(gan, phase):
                optimizer.zero_grad()
                total, terms, out = player(raw, carry)
                total.backward()
                gradients = [parameter.grad for parameter in player.parameters()]
                found[f"gradnorm_{phase.name}"] = torch.nn.utils.get_total_norm(gradients)
                if step == 0:
                    check_gradients(gan, phase.name, keys, expected)
                optimizer.step()
                found |= terms | {f"loss_{phase.name}": total}
                carry |= out
        for ours, theirs, factor in NAMES:
            assert factor * found[ours].item() == pytest.approx(wanted[theirs], rel=1e-6), theirs
    check_weights(gan, keys, expected)
    probe = gan.translate(gan.prepare(sample(stored, 0))).numpy()
    assert np.abs(probe - stored[f"probe_numD{num_scales}"]).max() < 1e-6


NAMES = [
    ("G/gan", "G_GAN", 1),
    ("G/feat", "G_GAN_Feat", 10),
    ("G/vgg", "G_VGG", 10),
    ("D/real", "D_real", 1),
    ("D/fake", "D_fake", 1),
    *((name, name, 1) for name in ("loss_G", "loss_D", "gradnorm_G", "gradnorm_D")),
]


def sample(stored: dict[str, np.ndarray], number: int) -> Batch:
    row = list(stored["ids"]).index(number)
    batch = {key: torch.from_numpy(stored[key][row : row + 1]) for key in ("label", "inst")}
    return batch | {"image": torch.from_numpy(stored["image"][row : row + 1]).double()}


def check_gradients(gan: Pix2PixHD, net: str, keys: dict, expected: dict) -> None:
    wanted = expected[f"grads_{net}_step1"]
    largest = max(gradient["l2"] for gradient in wanted.values())
    for name, parameter in gan.nets[net].named_parameters():
        norm = parameter.grad.norm().item()
        assert abs(norm - wanted[keys[net][name]]["l2"]) < 1e-9 * largest


def check_weights(gan: Pix2PixHD, keys: dict, expected: dict) -> None:
    """Biases in front of instance norm have no gradient but noise, which Adam blows up."""
    for net in "GD":
        for name, value in gan.nets[net].state_dict().items():
            key = keys[net][name]
            if f"{net}.{key}" not in expected["noise_driven_tensors"]:
                wanted = expected["final"][net][key]
                for ours, theirs in ((value.mean(), "mean"), (value.norm(), "l2")):
                    assert abs(ours.item() - wanted[theirs]) < 1e-9 * wanted["l2"]
