"""pix2pixHD as a GAN: both stages, every option, every size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from nets.memory.remat import Memory
from tests.processes import gang
from tests.trainers.hd import FULL, SMALL, generator_step, raw_batch
from trainers.backends.opening import open_backend
from trainers.ema import averaged
from trainers.gan import Batch
from trainers.gans.from_images.pix2pixhd import Config, Model, Pix2PixHD
from trainers.player import Player, only


@pytest.mark.parametrize("memory", ["none", "halves"])
def test_the_global_part_is_truly_frozen_and_then_truly_trained(memory: Memory) -> None:
    gan = Pix2PixHD(Config(**FULL, fix_global=100, memory=memory))
    assert [phase.nets for phase in gan.phases(99)] == [("G.enhancers",), ("D",)]
    assert [phase.nets for phase in gan.phases(100)] == [("G",), ("D",)]
    outputs: list[Tensor] = []
    gan.nets["G"].trunk.register_forward_hook(lambda *call: outputs.append(call[-1]))
    for images, trains in ((99, False), (100, True)):
        gan.zero_grad()
        phase = gan.phases(images)[0]
        with only(gan, phase):
            player = Player(gan, phase)
            player(raw_batch(), {})[0].backward()
        assert outputs[-1].requires_grad == trains
        trunk, enhancers = gan.nets["G"].trunk, gan.nets["G"].enhancers
        assert all((p.grad is not None) == trains for p in trunk.parameters())
        assert all(p.grad is not None for p in enhancers.parameters())
        owned = {id(p) for p in player.parameters()}
        assert all((id(p) in owned) == trains for p in trunk.parameters())
        assert {id(p) for p in enhancers.parameters()} <= owned
    assert not any(p.grad is not None for p in gan.nets["D"].parameters())


def test_a_frozen_global_part_saves_nothing_for_backward() -> None:
    gan = Pix2PixHD(Config(**FULL, fix_global=100))
    saved: dict[int, int] = {}
    for images in (0, 100):
        phase, sizes = gan.phases(images)[0], []
        with only(gan, phase):
            batch = gan.prepare(raw_batch())
            with torch.autograd.graph.saved_tensors_hooks(
                lambda x: sizes.append(x.shape[1] if x.ndim == 4 else 0), lambda x: x
            ):
                gan._generate(batch)
        saved[images] = max(sizes)
    # Channels: up to 16 in the trunk, up to 6 in the enhancer, whose condition is the widest.
    assert saved == {0: 6, 100: 16}


def train_a_little(memory: Memory) -> list[float]:
    """Four steps over four images each, the switch of fix_global in the middle; final weights."""
    torch.manual_seed(0)
    gan = Pix2PixHD(Config(**FULL, fix_global=8, memory=memory)).double()
    backend = open_backend(int(os.environ.get("WORLD_SIZE", 1)), timeout=60)
    share = 4 // backend.world
    mine = slice(backend.rank * share, (backend.rank + 1) * share)
    for step in range(4):
        raw = {k: v[mine] for k, v in raw_batch(count=4, seed=step).items() if k != "keys"}
        if step in (0, 2):
            seats = [
                backend.adopt(gan, phase, lambda own: torch.optim.Adam(own, 2e-4), None)
                for phase in gan.phases(4 * step)
            ]
        carry: Batch = {}
        for seat in seats:
            with only(gan, seat.phase), backend.accumulate(seat, last=True):
                total, _, out = seat.player(raw, carry)
                backend.backward(seat, total)
            carry |= out
            backend.step(seat, clip=1.0)
    weights = gan.nets.state_dict().items()
    return [x for name, w in weights if "weight" in name for x in w.flatten().tolist()]


def test_two_processes_equal_one() -> None:
    alone = train_a_little("none")
    for together in gang.run(2, train_a_little, "halves"):
        assert together == pytest.approx(alone, rel=0, abs=1e-12)


@pytest.mark.parametrize("encoder", [False, True])
def test_full_starts_from_coarse(encoder: bool) -> None:
    shared = dict(encoder=encoder, encoder_ngf=4, num_encoder_downsamples=1)
    coarse = Pix2PixHD(Config(**SMALL, **shared, num_scales=2))
    full = Pix2PixHD(Config(**FULL, **shared))
    before = {name: value.clone() for name, value in full.nets.state_dict().items()}
    fresh = full.adopt(coarse.nets.state_dict())
    after, given = full.nets.state_dict(), coarse.nets.state_dict()
    assert set(fresh) == {
        name for name in after if name.startswith(("G.enhancers.", "D.scales.2."))
    }
    assert all(torch.equal(after[name], before[name]) for name in fresh)
    assert all(torch.equal(after[name], given[name]) for name in set(after) - set(fresh))
    assert any(name.startswith("E.") for name in after) == encoder


def test_the_same_architecture_starts_with_nothing_fresh() -> None:
    one, other = Pix2PixHD(Config(**FULL)), Pix2PixHD(Config(**FULL))
    assert other.adopt(one.nets.state_dict()) == []
    pairs = zip(one.nets.state_dict().values(), other.nets.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(ngf=8),
            r"G.trunk.down.0.conv.weight has shape \(8, 6, 7, 7\) in the checkpoint and "
            r"\(4, 6, 7, 7\) in this network",
        ),
        (dict(num_labels=6), r"shape \(4, 7, 7, 7\) in the checkpoint and \(4, 6, 7, 7\)"),
        (dict(num_blocks=3), "checkpoint has G.trunk.blocks.2.first.conv.weight, which this"),
        (dict(num_blocks=1), "checkpoint lacks G.trunk.blocks.1.first.conv.weight, which this"),
    ],
)
def test_another_architecture_is_refused(change: dict, message: str) -> None:
    coarse, full = Pix2PixHD(Config(**SMALL | change)), Pix2PixHD(Config(**FULL))
    before = {name: value.clone() for name, value in full.nets.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        full.adopt(coarse.nets.state_dict())
    after = full.nets.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after)


def test_part_of_a_group_is_no_start() -> None:
    full = Pix2PixHD(Config(**FULL))
    weights = dict(full.nets.state_dict())
    del weights["G.enhancers.head.conv.bias"]
    with pytest.raises(ValueError, match="lacks G.enhancers.head.conv.bias"):
        full.adopt(weights)


@pytest.mark.parametrize("options", [SMALL, FULL, FULL | dict(encoder=True)])
@pytest.mark.parametrize("size", [(32, 48), (50, 101), (33, 63)])
def test_any_size(options: dict, size: tuple[int, int]) -> None:
    gan, raw = Pix2PixHD(Config(**options)), raw_batch(*size, count=2)
    for phase in gan.phases(0):
        with only(gan, phase):
            carry = {"fake": gan.translate(gan.prepare(raw))}
            assert carry["fake"].shape == (2, 3, *size)
            total, terms, out = Player(gan, phase)(raw, carry)
            total.backward()
        assert total.isfinite() and set(terms) <= set(gan.weights)
        assert "fake" not in out or out["fake"].shape == (2, 3, *size)


def test_terms_in_use_and_their_weights(vgg_file: Path) -> None:
    gan = Pix2PixHD(Config(**SMALL | dict(lambda_vgg=3, vgg_weights=vgg_file)))
    assert gan.weights == {"G/gan": 1, "G/feat": 10, "G/vgg": 3, "D/real": 0.5, "D/fake": 0.5}
    total, terms, _ = generator_step(gan, raw_batch())
    assert total.item() == pytest.approx(gan.total(terms).item(), rel=1e-6)
    bare = Pix2PixHD(Config(**SMALL | dict(lambda_feat=0)))
    assert set(bare.weights) == {"G/gan", "D/real", "D/fake"}
    assert set(generator_step(bare, raw_batch())[1]) == {"G/gan"}


def test_the_encoder_is_averaged_with_the_generator() -> None:
    for encoder in (False, True):
        gan = Pix2PixHD(Config(**SMALL, encoder=encoder, encoder_ngf=4, num_encoder_downsamples=1))
        own = {name for name in gan.nets.state_dict() if name.startswith(("G.", "E."))}
        assert set(averaged(gan)) == own
        assert any(name.startswith("E.") for name in own) == encoder


@pytest.mark.parametrize("options", [SMALL, FULL, FULL | dict(fix_global=100)])
def test_the_encoder_learns_with_the_generator(options: dict) -> None:
    gan = Pix2PixHD(Config(**options, encoder=True, encoder_ngf=4, num_encoder_downsamples=1))
    for images in (0, 100):
        phase, judging = gan.phases(images)
        assert "E" in phase.nets and judging.nets == ("D",)
        gan.zero_grad()
        with only(gan, phase):
            player = Player(gan, phase)
            player(raw_batch(), {})[0].backward()
        encoder = list(gan.nets["E"].parameters())
        assert {id(p) for p in encoder} <= {id(p) for p in player.parameters()}
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder[-1:])


@pytest.mark.parametrize("gan_loss", ["lsgan", "bce", "hinge"])
def test_every_gan_loss_trains(gan_loss: str) -> None:
    torch.manual_seed(0)
    gan, raw = Pix2PixHD(Config(**SMALL, gan_loss=gan_loss)), raw_batch()
    phase = gan.phases(0)[1]
    player = Player(gan, phase)
    optimizer = torch.optim.Adam(player.parameters(), 1e-3)
    carry = {"fake": gan.translate(gan.prepare(raw))}
    totals = []
    for _ in range(30):
        optimizer.zero_grad()
        total, _, _ = player(raw, carry)
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.7 * totals[0]


def test_without_edges_and_from_rgb() -> None:
    bare = Pix2PixHD(Config(**SMALL | dict(edges=False)))
    raw = raw_batch()
    del raw["inst"]
    assert bare.prepare(raw)["condition"].shape == (1, 5, 32, 48)
    rgb = Pix2PixHD(Config(**SMALL | dict(condition="rgb", edges=False)))
    pair = {"a": raw["image"].flip(1), "b": raw["image"]}
    generator_step(rgb, pair)
    pictures = rgb.pictures(rgb.prepare(pair))
    assert torch.equal(pictures["condition"], pair["a"])
    assert torch.equal(pictures["real"], pair["b"])


def test_pictures() -> None:
    gan, raw = Pix2PixHD(Config(**SMALL)), raw_batch(50, 101, count=2)
    pictures = gan.pictures(gan.prepare(raw))
    assert list(pictures) == ["condition", "fake", "real"]
    for picture in pictures.values():
        assert picture.shape == (2, 3, 50, 101) and picture.dtype == torch.uint8
    assert torch.equal(pictures["real"], raw["image"])
    colours = pictures["condition"].permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    assert len({tuple(colour) for colour in colours}) <= 6  # five labels and white edges


def test_translation_alone() -> None:
    gan = Pix2PixHD(Config(**SMALL, encoder=True), training=False)
    assert set(gan.nets) == {"G", "E"}
    raw = raw_batch()
    with_image = gan.translate(gan.prepare(raw))
    del raw["image"]
    without = gan.translate(gan.prepare(raw))
    assert with_image.shape == without.shape == (1, 3, 32, 48)
    assert not torch.equal(with_image, without) and not without.requires_grad


def test_missing_vgg_weights_are_named() -> None:
    with pytest.raises(ValueError, match="model.vgg_weights .* or model.lambda_vgg to 0"):
        Pix2PixHD(Config())
    with pytest.raises(ValueError, match="model.vgg_weights=nowhere.pth does not exist"):
        Pix2PixHD(Config(**SMALL | dict(lambda_vgg=1, vgg_weights="nowhere.pth")))


@pytest.mark.parametrize(
    "options",
    [
        dict(num_labels=0),
        dict(lambda_feat=-1),
        dict(memory="some"),
        dict(ngff=3),
        dict(condition="rgb"),
        dict(fix_global=5),
    ],
)
def test_settings_that_cannot_be_meant(options: dict) -> None:
    with pytest.raises(ValidationError):
        Config(**options)


def test_defaults_are_the_papers() -> None:
    assert Model is Pix2PixHD
    with torch.device("meta"):
        gan = Pix2PixHD(Config(lambda_vgg=0))
        full = Pix2PixHD(Config(lambda_vgg=0, stage="full", ngf=32, num_scales=3))
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in gan.nets.items()}
    assert count == {"G": 182546755, "D": 5603202}
    assert sum(p.numel() for p in full.nets["G"].parameters()) == 182857059
