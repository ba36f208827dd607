"""One step of the full stage at the paper's size: live memory and work, without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nets.perceptual import Vgg
from nets.remat import Memory
from tests.nets.live_memory import GIB, Flops, fake_gpu
from trainers.gan import GAN
from trainers.gans.pix2pixhd import Config, Pix2PixHD
from trainers.player import Player, only

HEIGHT, WIDTH = 1024, 2048


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes of a VGG19 in a few kilobytes: each weight is one number, repeated."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Vgg("vgg19").state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "shapes.pth"
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, path)
    return path


def measure(
    memory: Memory, precision: torch.dtype | None, vgg_file: Path, images: int = 10
) -> tuple[float, float]:
    """(peak in GiB, work in 1e12 FLOPs) of the second step; Adam's moments exist by then."""
    config = Config(
        stage="full", ngf=32, num_scales=3, vgg_weights=vgg_file, memory=memory, fix_global=1
    )
    with fake_gpu() as live:
        gan = Pix2PixHD(config)
        phases = gan.phases(images)
        players = [Player(gan, phase, precision) for phase in phases]
        optimizers = [torch.optim.Adam(player.parameters()) for player in players]
        raw = {
            "label": torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.uint8),
            "inst": torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.int32),
            "image": torch.zeros(1, 3, HEIGHT, WIDTH, dtype=torch.uint8),
        }
        for _ in range(2):
            live.peak = live.live
            with Flops() as work:
                step(gan, players, optimizers, raw)
        return live.peak / GIB, work.total / 1e12


def step(gan: GAN, players: list, optimizers: list, raw: dict) -> None:
    carry: dict = {}
    for player, optimizer in zip(players, optimizers):
        with only(gan, player.phase):
            total, _, out = player(raw, carry)
            total.backward()
            carry |= out
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize(
    ("precision", "memory", "bound"),
    [
        (torch.bfloat16, "none", 7.7),
        (torch.bfloat16, "blocks", 6.6),
        (torch.bfloat16, "halves", 5.0),
        (torch.bfloat16, "halves+slices", 4.8),
        (torch.bfloat16, "whole+strips", 4.1),
        (None, "none", 11.7),
        (None, "halves", 7.3),
        (None, "whole+strips", 4.9),
    ],
)
def test_live_peak(
    precision: torch.dtype | None, memory: Memory, bound: float, vgg_file: Path
) -> None:
    peak, _ = measure(memory, precision, vgg_file)
    # The parameters of G and D, two moments of each, and the gradients of G at the very least.
    assert 16 * 182857059 / GIB < peak <= bound


def test_work_of_a_step(vgg_file: Path) -> None:
    """The original takes 11.57e12 FLOPs. D's own losses come from the passes that judge for G, and
    its first convolution sees the condition once; the frozen global part is spared its backward."""
    _, plain = measure("none", None, vgg_file)
    _, fixed = measure("none", None, vgg_file, images=0)
    _, halves = measure("halves", None, vgg_file)
    assert plain == pytest.approx(10.746, rel=1e-3)
    assert fixed < 0.85 * plain
    assert halves == pytest.approx(plain + 2 * 0.747928289280, rel=1e-3)


def test_memory_is_counted_while_it_lives() -> None:
    with fake_gpu() as live:
        kept = torch.empty(1000)
        view = kept[10:]
        torch.empty(2000)
        assert (live.live, live.peak) == (4000, 12000)
        del kept
        assert live.live == 4000 and view.numel() == 990
        del view
        assert live.live == 0


def test_autocast_follows_cudas_policy() -> None:
    """Padding must not turn activations into float32, which would double what is counted."""
    with fake_gpu(), torch.autocast("cpu", torch.bfloat16):
        conv, image = torch.nn.Conv2d(3, 3, 3), torch.empty(1, 3, 8, 8)
        padded = torch.nn.functional.pad(conv(image), (1, 1, 1, 1), mode="reflect")
        assert padded.dtype == torch.bfloat16 and padded.shape[-1] == 8
