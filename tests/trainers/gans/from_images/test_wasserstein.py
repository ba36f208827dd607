"""The gradient penalty of CycleGAN and pix2pix on the engine, and pictures of other channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from shards.read.noise import Noise
from tests.processes import gang
from tests.trainers import toy
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from tests.trainers.gans.from_images.test_translators import (
    PATCH,
    RESNET,
    UNET,
    assert_equal_weights,
    cycle,
    pairwise,
)
from trainers.backends.base import Backend
from trainers.engine.compilation import compile_parts
from trainers.gan import GAN, Batch
from trainers.gans.from_images import cyclegan, pix2pix
from trainers.player import Player, only
from trainers.recipe import Cadence

CALM = {"norm": "instance", "dropout": 0}
CRITIC = {"gan_loss": "wgangp", "discriminator": PATCH | {"norm": "instance"}}
GANS: dict[str, Callable[[], GAN]] = {
    "cyclegan": lambda: cycle(pool_size=0, **CRITIC),
    "cyclegan-blocks": lambda: cycle(pool_size=0, memory="directions+blocks", **CRITIC),
    "pix2pix": lambda: pairwise(generator=UNET | CALM, input_nc=1, output_nc=4, **CRITIC),
}
SEED = 5


def sample(gan: GAN, position: int, side: int = 64) -> dict[str, Tensor]:
    """As the stream gives one, but for the pictures."""
    draw, needs = np.random.RandomState(position), gan.config.needs
    pictures = {n: draw.randint(0, 256, (needs.channels[n], side, side), np.uint8) for n in "ab"}
    drawn = {each.name: Noise(**vars(each)).at(SEED, position) for each in needs.draws}
    return {name: torch.from_numpy(array) for name, array in (pictures | drawn).items()}


def batch(gan: GAN, first: int = 0, count: int = 2) -> Batch:
    samples = [sample(gan, first + n) for n in range(count)]
    return {name: torch.stack([each[name] for each in samples]) for name in samples[0]}


def train(
    folder: Path,
    make_gan: Callable[[], GAN],
    zero: int | None = None,
    dtype: torch.dtype = torch.float64,
    stop: Callable[[], bool] = lambda: False,
    **changes: object,
) -> None:
    gan = make_gan()

    def make_stream(
        backend: Backend, global_batch: int, num_micro: int
    ) -> Callable[[int], Iterator[Batch]]:
        micro = global_batch // backend.world // num_micro

        def stream(start: int) -> Iterator[Batch]:
            first = start + backend.rank * micro * num_micro
            while True:
                yield from (batch(gan, first + n * micro, micro) for n in range(num_micro))
                first += global_batch

        return stream

    numbers = {"total": 8, "optimizer": toy.SLOW, "cadence": Cadence(log=4, pictures=0, save=0)}
    makers = {"make_gan": make_gan, "make_stream": make_stream}
    toy.train(folder, toy.recipe(**numbers | changes), dtype=dtype, zero=zero, stop=stop, **makers)


def gang_work(root: str) -> None:
    """All two-process runs of this file, in one gang."""
    for name, make_gan in GANS.items():
        train(Path(root, name), make_gan)
    train(Path(root, "micro"), GANS["cyclegan"], num_micro=2)
    for name in ("cyclegan", "pix2pix"):
        train(Path(root, f"{name}-cut"), GANS[name], stop=StopAfter(1))
        train(Path(root, f"{name}-cut"), GANS[name])
    for zero in (None, 1, 2):
        train(Path(root, f"zero-{zero}"), GANS["cyclegan"], zero, torch.float32)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gang")
    gang.run(2, gang_work, str(folder))
    return folder


@pytest.mark.parametrize("name", GANS)
def test_one_process_equals_two(together: Path, tmp_path: Path, name: str) -> None:
    train(tmp_path, GANS[name])
    assert_equal_weights(tmp_path, together / name)
    if name.startswith("cyclegan"):  # nor does recomputation or accumulation make a difference
        assert_equal_weights(tmp_path, together / "cyclegan-blocks")
        assert_equal_weights(tmp_path, together / "micro")


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix"])
def test_interrupted_equals_uninterrupted_on_two_processes(together: Path, name: str) -> None:
    assert_same(together / name, together / f"{name}-cut")


@pytest.mark.parametrize("zero", [1, 2])
def test_zero_equals_ddp(together: Path, zero: int) -> None:
    ours, theirs = (toy.result(together / f"zero-{kind}") for kind in (zero, None))
    names = [name for name in ours if name.startswith(("weights", "optimizer"))]
    assert len(names) > 20
    for name in names:
        assert torch.equal(ours[name], theirs[name]), name


def test_pools_of_one_channel_go_on_bit_for_bit(tmp_path: Path) -> None:
    """One channel is channels_last and contiguous at once; convolutions look at the strides."""

    def make_gan() -> GAN:
        critics = PATCH | {"norm": "batch"}  # which are called once for each kind of images
        return cycle(input_nc=1, output_nc=1, discriminator=critics)

    train(tmp_path / "whole", make_gan, total=12, dtype=torch.float32)
    train(tmp_path / "cut", make_gan, stop=StopAfter(2), total=12, dtype=torch.float32)
    train(tmp_path / "cut", make_gan, total=12, dtype=torch.float32)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def totals(gan: GAN, raw: Batch, autocast: torch.dtype | None = None) -> dict[str, Tensor]:
    """Terms of both phases; gradients are left on the parameters."""
    carry: Batch = {}
    found = {}
    for phase in gan.phases(0):
        with only(gan, phase):
            total, terms, out = Player(gan, phase, autocast)(raw, carry)
            total.backward()
            carry |= out
            found |= terms | {f"total/{phase.name}": total.detach()}
    return found


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix"])
def test_the_critics_loss_is_that_of_the_formulae(name: str) -> None:
    gan = GANS[name]().double()
    raw = batch(gan)
    prepared = gan.prepare(raw)
    with torch.no_grad():
        if name == "cyclegan":
            fakes = {"A": gan.nets["G_A"](prepared["a"]), "B": gan.nets["G_B"](prepared["b"])}
            judged = {"A": (prepared["b"], fakes["A"]), "B": (prepared["a"], fakes["B"])}
            critics = {f"_{side}": (gan.nets[f"D_{side}"], *judged[side]) for side in "AB"}
        else:
            fake = gan.nets["G"](prepared["condition"])
            pairs = [torch.cat([prepared["condition"], y], 1) for y in (prepared["image"], fake)]
            critics = {"": (gan.nets["D"], *pairs)}
    found = totals(gan, raw)
    expected = 0.0
    for suffix, (critic, real, fake) in critics.items():
        alpha = raw[f"share{suffix}"].double()
        between = (alpha * real + (1 - alpha) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between)[-1].sum(), between)
        penalty = ((slope.flatten(1).square().sum(1).sqrt() - 1) ** 2).mean()
        assert torch.isclose(found[f"D/gp{suffix}"], penalty, rtol=1e-9)
        assert torch.isclose(found[f"D/real{suffix}"], -critic(real)[-1].mean(), rtol=1e-9)
        assert torch.isclose(found[f"D/fake{suffix}"], critic(fake)[-1].mean(), rtol=1e-9)
        halves = (critic(fake)[-1].mean() - critic(real)[-1].mean()) / 2
        expected = expected + halves.detach() + 10 * penalty.detach()
    assert torch.isclose(found["total/D"], expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix"])
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close(name: str, autocast: torch.dtype) -> None:
    torch.manual_seed(0)
    gan = GANS[name]()
    precise = totals(gan, batch(gan))
    gan.zero_grad()
    rough = totals(gan, batch(gan), autocast)
    for term, value in precise.items():
        if "gp" in term:
            assert rough[term].dtype == torch.float32
            assert torch.isclose(rough[term], value, rtol=0.05), term
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gan.nets.parameters())


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_other_norms_of_the_critic(norm: str) -> None:
    """Those of the original, with real pairs and generated ones in whatever layout."""
    gan = pairwise(gan_loss="wgangp", discriminator=PATCH | {"norm": norm}, input_nc=1, output_nc=1)
    found = totals(gan, batch(gan))
    assert found["D/gp"] > 0
    assert all(p.grad is not None for p in gan.nets["D"].parameters())


def test_what_is_differentiated_twice_is_not_compiled() -> None:
    for name, expected in {"cyclegan": ["G_A", "G_B"], "pix2pix": ["G"]}.items():
        gan = GANS[name]()
        assert gan.static_parts() == [gan.nets[each] for each in expected]
    compile_parts(gan, "fuse", Backend(torch.device("cpu")))
    with torch.compiler.set_stance(force_backend="aot_eager"):  # traced, without making code
        totals(gan, batch(gan))
    assert all(p.grad is not None for p in gan.nets.parameters())


@pytest.mark.parametrize("channels", [(1, 3), (4, 1), (3, 4)])
def test_pictures_and_translations_have_their_channels(channels: tuple[int, int]) -> None:
    sizes = dict(zip(("input_nc", "output_nc"), channels, strict=True))
    for gan in (cycle(**sizes), pairwise(**sizes), pairwise(direction="B2A", **sizes)):
        prepared = gan.eval().prepare(batch(gan))
        assert gan.translate(prepared).shape == (2, channels[1], 64, 64)
        for picture in gan.pictures(prepared).values():
            assert picture.shape == (2, 3, 64, 64) and picture.dtype == torch.uint8


@pytest.mark.parametrize("config", [cyclegan.Config, pix2pix.Config])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_gp": 5}, "has no gradient penalty: leave it out"),
        ({"gan_loss": "wgangp", "lambda_gp": -1}, "greater than or equal to 0"),
        (
            {"gan_loss": "wgangp", "discriminator": {"norm": "sync-batch"}},
            "sync-batch is refused with model.gan_loss=wgangp",
        ),
        ({"input_nc": 2}, "should be 1, 3 or 4"),
        ({"input_nc": 1, "generator": {"input_nc": 1}}, "are one option: keep one"),
    ],
)
def test_settings_that_cannot_be_meant(config: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_channels_have_two_spellings_and_settle_the_identity_loss() -> None:
    one = cyclegan.Config(generator=RESNET | {"input_nc": "1", "output_nc": "3"})
    assert one == cyclegan.Config(generator=RESNET, input_nc=1)
    alike = cyclegan.Config(input_nc=4, output_nc=4)
    assert (one.lambda_identity, alike.lambda_identity) == (0, 0.5)
    with pytest.raises(ValueError, match="input_nc=1 and output_nc=3 differ: set lambda_identity"):
        cyclegan.Config(input_nc=1, lambda_identity=0.5)
