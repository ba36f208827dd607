"""pix2pixHD as a GAN: the original's trajectories, both stages, every option."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from nets.losses import feature_matching, generator_loss
from nets.perceptual import Vgg, perceptual_loss
from nets.remat import Memory
from nets.waist import loss_scale
from tests import gang
from tests.nets.rule import arrays, fill, recorded, vgg_weights
from trainers.backends import open_backend
from trainers.gan import Batch
from trainers.gans.pix2pixhd import Config, Model, Pix2PixHD
from trainers.player import Player, only, phase_parameters

SMALL = dict(num_labels=5, ngf=4, num_downsamples=2, num_blocks=2, ndf=4, lambda_vgg=0)
FULL = SMALL | dict(stage="full", ngf=2, num_local_blocks=1, num_scales=3)


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Vgg("vgg19").state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(vgg_weights(shapes), path)
    return path


def raw_batch(height: int = 32, width: int = 48, count: int = 1, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, channels: int) -> Tensor:
        return torch.randint(0, high, (count, channels, height, width), generator=generator)

    label, inst = draw(5, 1).to(torch.uint8), draw(4, 1).int() * 1000
    return {"label": label, "inst": inst, "image": draw(256, 3).to(torch.uint8), "keys": ["a"]}


def generator_step(
    gan: Pix2PixHD, raw: Batch, scale: float = 1.0, autocast: torch.dtype | None = None
) -> tuple[Tensor, dict, Batch]:
    """Phase G up to its gradients, which are left on the parameters."""
    gan.zero_grad()
    phase = gan.phases(10**9)[0]
    with only(gan, phase):
        total, terms, out = Player(gan, phase, autocast)(raw, {})
        (total * scale).backward()
    return total.detach(), terms, out


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


def plain_order(gan: Pix2PixHD, raw: Batch, scale: float = 1.0) -> Tensor:
    """Phase G as the original has it: one graph of everything, one backward."""
    gan.zero_grad()
    discriminator, batch = gan.nets["D"], gan.prepare(raw)
    condition, real = batch["condition"], batch["image"]
    fake = gan._generate(batch)
    with torch.no_grad():
        wanted = discriminator(torch.cat([condition, real], 1))
    found = discriminator(torch.cat([condition, fake], 1))
    scales = len(found)
    adversarial = sum(generator_loss(features[-1], "lsgan") for features in found)
    matching = sum(feature_matching(f, r) / scales for f, r in zip(found, wanted))
    total = adversarial + 10 * matching + 10 * perceptual_loss(gan.vgg, fake, real)
    (total * scale).backward()
    return total.detach()


def gan_for(memory: Memory, vgg_file: Path, dtype: torch.dtype, **options: Any) -> Pix2PixHD:
    torch.manual_seed(0)
    config = FULL | dict(lambda_vgg=10, vgg_weights=vgg_file, memory=memory) | options
    return Pix2PixHD(Config(**config)).to(dtype)


def generator_gradients(gan: Pix2PixHD) -> dict[str, Tensor]:
    parameters = phase_parameters(gan, gan.phases(10**9)[0])
    return {name: parameter.grad.clone() for name, parameter in parameters.items()}


@pytest.mark.parametrize(("dtype", "encoder"), [(torch.float32, True), (torch.float64, False)])
def test_presets_have_the_gradients_of_the_plain_order(
    dtype: torch.dtype, encoder: bool, vgg_file: Path
) -> None:
    raw = raw_batch()
    plain = gan_for("none", vgg_file, dtype, encoder=encoder, num_encoder_downsamples=2)
    with only(plain, plain.phases(10**9)[0]):
        total = plain_order(plain, raw)
    wanted = generator_gradients(plain)
    for memory in get_args(Memory)[:-1]:
        gan = gan_for(memory, vgg_file, dtype, encoder=encoder, num_encoder_downsamples=2)
        value, _, _ = generator_step(gan, raw)
        assert value.item() == pytest.approx(total.item(), rel=1e-6)
        found = generator_gradients(gan)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), memory


def test_strips_have_the_gradients_of_the_plain_order(vgg_file: Path) -> None:
    """Sums over strips are taken in another order, so equal up to float64's rounding."""
    raw = raw_batch(288, 16)
    plain, gan = (gan_for(m, vgg_file, torch.float64) for m in ("none", "whole+strips"))
    with only(plain, plain.phases(10**9)[0]):
        total = plain_order(plain, raw)
    value, _, _ = generator_step(gan, raw)
    assert value.item() == pytest.approx(total.item(), rel=1e-12)
    wanted, found = generator_gradients(plain), generator_gradients(gan)
    norm = torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
    for name in wanted:
        assert (found[name] - wanted[name]).norm() < 1e-12 * norm, name


@pytest.mark.parametrize(("autocast", "scale"), [(torch.bfloat16, 1.0), (torch.float16, 512.0)])
def test_low_precision_gradients_of_the_plain_order(
    autocast: torch.dtype, scale: float, vgg_file: Path
) -> None:
    raw = raw_batch()
    plain, gan = (gan_for("none", vgg_file, torch.float32) for _ in range(2))
    with only(plain, plain.phases(10**9)[0]), torch.autocast("cpu", autocast):
        plain_order(plain, raw, scale)
    with loss_scale(scale):
        generator_step(gan, raw, scale, autocast)
    wanted, found = generator_gradients(plain), generator_gradients(gan)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("autocast", "memory"),
    [
        *((torch.bfloat16, memory) for memory in get_args(Memory)),
        (torch.float16, "none"),
        (torch.float16, "halves+slices"),
    ],
)
def test_low_precision(autocast: torch.dtype, memory: Memory, vgg_file: Path) -> None:
    gan, raw = gan_for(memory, vgg_file, torch.float32), raw_batch()
    precise = generator_step(gan, raw)[1]
    with loss_scale(256.0):
        total, terms, out = generator_step(gan, raw, scale=256.0, autocast=autocast)
    assert out["fake"].dtype == autocast and total.dtype == torch.float32
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(precise[name].item(), rel=0.05)
    gradients = generator_gradients(gan)
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients.values())


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
        assert outputs[-1].requires_grad == trains or memory == "halves"
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
    pairs = zip(one.nets.state_dict().values(), other.nets.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(ngf=8), r"G.trunk.down.0.conv.weight has shape \(8, 6, 7, 7\) in the checkpoint and "
                      r"\(4, 6, 7, 7\) in this network"),
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
    with pytest.raises(ValueError, match="model.vgg_weights: nowhere.pth: no such file"):
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
