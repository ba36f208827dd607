"""CycleGAN and pix2pix on the engine: world sizes, accumulation, resuming, precision, sizes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.processes import gang
from tests.trainers import toy
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from trainers.backends.base import Backend
from trainers.board.board import Observer
from trainers.checkpoints.checkpoint import find
from trainers.gan import GAN, Batch
from trainers.gans.from_images import cyclegan, pix2pix
from trainers.player import Player, only
from trainers.recipe import Cadence

RESNET = {"kind": "resnet", "ngf": 2, "num_blocks": 2, "norm": "instance", "dropout": 0}
UNET = {"kind": "unet", "ngf": 2, "num_downsamples": 6}
PATCH = {"ndf": 2, "num_layers": 2}


def cycle(**changes: object) -> GAN:
    options = {"generator": RESNET, "discriminator": PATCH, "pool_size": 3} | changes
    return cyclegan.CycleGAN(cyclegan.Config(**options))


def pairwise(**changes: object) -> GAN:
    options = {"generator": UNET, "discriminator": PATCH} | changes
    return pix2pix.Pix2Pix(pix2pix.Config(**options))


def apart_gan(name: str) -> GAN:
    """Networks in which the samples of a batch do not influence each other, and no chance."""
    calm = {"norm": "instance", "dropout": 0}
    return {
        "cyclegan": lambda: cycle(pool_size=0),
        "cyclegan-directions": lambda: cycle(pool_size=0, memory="directions"),
        "pix2pix": lambda: pairwise(
            generator=UNET | calm, discriminator=PATCH | {"norm": "instance"}
        ),
        "pix2pix-sync": lambda: pairwise(
            generator=UNET | {"norm": "sync-batch", "dropout": 0},
            discriminator=PATCH | {"norm": "sync-batch"},
        ),
    }[name]()


def images(position: int, side: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(position)
    draw = torch.randint(0, 256, (2, 3, side, side), generator=generator, dtype=torch.uint8)
    return draw[0], draw[1]


def make_stream(
    backend: Backend, global_batch: int, num_micro: int
) -> Callable[[int], Iterator[Batch]]:
    micro = global_batch // backend.world // num_micro

    def stream(start: int) -> Iterator[Batch]:
        first = start + backend.rank * micro * num_micro
        while True:
            for i in range(num_micro):
                pairs = [images(first + i * micro + j) for j in range(micro)]
                a, b = (torch.stack(sides) for sides in zip(*pairs, strict=True))
                yield {"a": a, "b": b}
            first += global_batch

    return stream


def train(
    folder: Path,
    make_gan: Callable[[], GAN],
    stop: Callable[[], bool] = lambda: False,
    observers: tuple[Observer, ...] = (),
    **changes: object,
) -> None:
    numbers = {"total": 16, "optimizer": toy.SLOW, "cadence": Cadence(log=4, pictures=8, save=0)}
    plan = toy.recipe(**(numbers | changes))
    makers = {"make_gan": make_gan, "make_stream": make_stream}
    toy.train(folder, plan, stop=stop, observers=observers, **makers)


class Watcher(Observer):
    """Makes rank 0 take pictures, alone."""


APART = ("cyclegan", "cyclegan-directions", "pix2pix", "pix2pix-sync")


def gang_work(root: str) -> None:
    """All two-process runs of this file, in one gang."""
    for name in APART:
        watchers = (Watcher(),) if int(os.environ["RANK"]) == 0 else ()
        train(Path(root, name), lambda: apart_gan(name), observers=watchers)
        train(Path(root, f"{name}-micro"), lambda: apart_gan(name), num_micro=2)
    for name, make_gan in (("pools", cycle), ("noise", pairwise)):
        train(Path(root, f"{name}-whole"), make_gan)
        train(Path(root, f"{name}-cut"), make_gan, stop=StopAfter(2))
        train(Path(root, f"{name}-cut"), make_gan)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gang")
    gang.run(2, gang_work, str(folder))
    return folder


@pytest.mark.parametrize("name", APART)
def test_one_process_equals_two(together: Path, tmp_path: Path, name: str) -> None:
    """Although rank 0 takes pictures; also with accumulation, but for norms over a micro-batch."""
    train(tmp_path, lambda: apart_gan(name))
    assert_equal_weights(tmp_path, together / name)
    if name != "pix2pix-sync":
        assert_equal_weights(tmp_path, together / f"{name}-micro")


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix"])
def test_accumulation_equals_one_batch(tmp_path: Path, name: str) -> None:
    train(tmp_path / "one", lambda: apart_gan(name))
    train(tmp_path / "four", lambda: apart_gan(name), num_micro=4)
    assert_equal_weights(tmp_path / "one", tmp_path / "four")


def assert_equal_weights(folder: Path, other: Path) -> None:
    """Biases in front of a norm have no gradient but noise, which Adam blows up."""
    ours, theirs = toy.result(folder), toy.result(other)
    names = [n for n in ours if n.startswith("weights:") and not n.endswith("conv.bias")]
    assert len(names) > 8
    for name in names:
        gap = (ours[name].double() - theirs[name].double()).abs().max().item()
        assert gap < 1e-9, f"{name} differs by {gap}"


@pytest.mark.parametrize("name", ["pools", "noise"])
def test_interrupted_equals_uninterrupted_on_two_processes(together: Path, name: str) -> None:
    """With image pools, which differ between ranks; with dropout and running statistics."""
    whole, cut = together / f"{name}-whole", together / f"{name}-cut"
    assert_same(whole, cut)
    if name == "pools":
        first, second = (find(whole).tensors(f"rank0000{rank}") for rank in (0, 1))
        assert torch.equal(first["gan/fake_A/image00000"], second["gan/fake_A/image00000"]) is False


@pytest.mark.parametrize("make_gan", [cycle, pairwise])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_interrupted_at_any_step_equals_uninterrupted(
    tmp_path: Path, make_gan: Callable[[], GAN], steps: int
) -> None:
    train(tmp_path / "whole", make_gan)
    train(tmp_path / "cut", make_gan, stop=StopAfter(steps))
    train(tmp_path / "cut", make_gan)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_pictures_change_nothing(tmp_path: Path) -> None:
    """Neither the draws of dropout nor the running statistics."""
    train(tmp_path / "watched", pairwise, observers=(Watcher(),))
    train(tmp_path / "alone", pairwise)
    assert_same(tmp_path / "watched", tmp_path / "alone")


def test_a_run_goes_on_in_another_precision(tmp_path: Path) -> None:
    """The pools hold images of the old one."""
    half = {"dtype": torch.float32, "make_gan": cycle, "make_stream": make_stream}
    for total, precision in ((16, torch.float16), (32, torch.bfloat16), (48, torch.float16)):
        slow = replace(toy.SLOW, lr=1e-4)
        plan = toy.recipe(total=total, precision=precision, optimizer=slow)
        toy.train(tmp_path, plan, **half)
    assert find(tmp_path).progress.images == 48


def test_every_weight_of_cyclegan_belongs_to_its_side() -> None:
    weights = cycle(lambda_A=2, lambda_B=7, lambda_identity=0.1).weights
    # G_A is shown images of B to leave alone, and the cycle A -> B -> A ends in A.
    assert (weights["G/cycle_A"], weights["G/cycle_B"]) == (2, 7)
    assert weights["G/idt_A"] == pytest.approx(0.7) and weights["G/idt_B"] == pytest.approx(0.2)


def losses_of(gan: GAN, raw: Batch, autocast: torch.dtype | None = None) -> dict[str, float]:
    """Totals of both phases; gradients are left on the parameters."""
    carry, totals = {}, {}
    for phase in gan.phases(0):
        with only(gan, phase):
            total, _, out = Player(gan, phase, autocast)(raw, carry)
            total.backward()
            totals[phase.name] = total.item()
            carry |= out
    return totals


def batch(side: int = 64, count: int = 2, other_side: int | None = None) -> Batch:
    a = torch.stack([images(i, side)[0] for i in range(count)])
    b = torch.stack([images(i, other_side or side)[1] for i in range(count)])
    return {"a": a, "b": b}


@pytest.mark.parametrize("make_gan", [cycle, lambda: cycle(memory="directions"), pairwise])
def test_bf16_stays_close_and_every_parameter_gets_a_gradient(
    make_gan: Callable[[], GAN],
) -> None:
    torch.manual_seed(0)
    gan = make_gan()
    state = torch.get_rng_state()
    precise = losses_of(gan, batch())
    torch.set_rng_state(state)
    gan.zero_grad()
    rough = losses_of(gan, batch(), torch.bfloat16)
    for name, value in precise.items():
        assert rough[name] == pytest.approx(value, rel=0.05)
    missing = [name for name, p in gan.nets.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize("memory", ["none", "directions"])
def test_images_of_a_and_b_may_differ_in_size(memory: str) -> None:
    gan = cycle(memory=memory)
    raw = batch(32, 1, other_side=44)
    assert all(value > 0 for value in losses_of(gan, raw).values())
    _, _, fakes = gan.losses("G", gan.prepare(raw), {})
    assert fakes["fake_B"].shape[-1] == 32 and fakes["fake_A"].shape[-1] == 44


def test_batch_norm_keeps_the_passes_of_a_generator_apart() -> None:
    """A batched call would normalise the images of A by those of B."""
    generator = RESNET | {"norm": "batch"}
    gan = cycle(generator=generator, lambda_identity=0).double()
    with_identity = cycle(generator=generator).double()
    with_identity.nets.load_state_dict(gan.nets.state_dict())
    losses = [
        g.losses("G", g.prepare(batch()), {})[1]["G/gan_A"].item() for g in (gan, with_identity)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("direction", ["A2B", "B2A"])
def test_directions_of_pix2pix(direction: str) -> None:
    gan = pairwise(direction=direction)
    prepared = gan.prepare(batch())
    condition = prepared["condition"] if direction == "A2B" else prepared["image"]
    assert torch.equal(condition, batch()["a"] / 127.5 - 1)
    assert gan.config.needs.directions == (direction,)


def test_directions_of_cyclegan() -> None:
    gan, raw = cycle(), batch()
    for member, network in (("a", "G_A"), ("b", "G_B")):
        prepared = gan.prepare({member: raw[member]})
        assert torch.equal(gan.translate(prepared), gan.nets[network](prepared[member]))


def test_noise_at_test_time_is_an_option() -> None:
    noisy, calm = pairwise().eval(), pairwise(test_dropout=False).eval()
    for gan, equal in ((noisy, False), (calm, True)):
        prepared = gan.prepare(batch())
        assert torch.equal(gan.translate(prepared), gan.translate(prepared)) is equal


def test_statistics_at_test_time_are_an_option_and_leave_no_trace() -> None:
    by_batch = pairwise(test_dropout=False)
    running = pairwise(test_dropout=False, test_statistics="running")
    running.nets.load_state_dict(by_batch.nets.state_dict())
    before = {name: tensor.clone() for name, tensor in by_batch.nets.state_dict().items()}
    pictures = [gan.eval().translate(gan.prepare(batch())) for gan in (by_batch, running)]
    assert not torch.allclose(*pictures)
    for name, tensor in by_batch.nets.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(layer.training for layer in by_batch.modules())


def test_phase_g_sees_the_very_fake_that_phase_d_saw() -> None:
    """Although it is made twice, with dropout, and in several micro-batches."""
    gan = pairwise()
    seen: dict[str, list[Tensor]] = {"D": [], "G": []}
    generate, carries = gan._generate, [{}, {}]
    for phase in gan.phases(0):
        gan._generate = lambda x, name=phase.name: keep(seen[name], generate(x))
        for carry in carries:
            carry |= Player(gan, phase)(batch(), carry)[2]
    assert not torch.equal(seen["D"][0], seen["D"][1])
    for first, second in zip(seen["D"], seen["G"], strict=True):
        assert torch.equal(first, second)
    counted = {n: int(t) for n, t in gan.nets["G"].state_dict().items() if "num_batches" in n}
    assert counted and set(counted.values()) == {2}


def keep(seen: list[Tensor], image: Tensor) -> Tensor:
    seen.append(image.detach())
    return image


@pytest.mark.parametrize("side", [30, 37])
def test_a_resnet_takes_any_size_and_a_u_net_pads_if_asked(side: int) -> None:
    for gan in (cycle(), pairwise(generator=UNET | {"pad": True})):
        prepared = gan.eval().prepare(batch(side))
        assert gan.translate(prepared).shape[-2:] == (side, side)
    with pytest.raises(ValueError, match=f"{side}x{side}"):
        gan = pairwise().eval()
        gan.translate(gan.prepare(batch(side)))


@pytest.mark.parametrize("make_gan", [cycle, pairwise])
def test_pictures(make_gan: Callable[[], GAN]) -> None:
    gan = make_gan().eval()
    pictures = gan.pictures(gan.prepare(batch()))
    assert any(name.startswith("fake") for name in pictures)
    for picture in pictures.values():
        assert picture.shape == (2, 3, 64, 64) and picture.dtype == torch.uint8


@pytest.mark.parametrize("make_gan", [cycle, pairwise])
def test_a_run_starts_from_another_of_the_same_architecture_alone(
    make_gan: Callable[..., GAN],
) -> None:
    torch.manual_seed(1)
    other, gan = make_gan(), make_gan()
    assert gan.adopt(other.nets.state_dict()) == []
    assert torch.equal(*(next(g.nets.parameters()) for g in (gan, other)))
    with pytest.raises(ValueError, match="has shape .* their options differ"):
        gan.adopt(make_gan(discriminator=PATCH | {"ndf": 3}).nets.state_dict())


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (cyclegan.Config, {"pool_size": -1}),
        (cyclegan.Config, {"generator": UNET, "memory": "directions+blocks"}),
        (cyclegan.Config, {"generator": {"norm": "group"}}),
        (pix2pix.Config, {"direction": "AtoB"}),
        (pix2pix.Config, {"discriminator": {"num_layers": 7}}),
        (pix2pix.Config, {"generator": {"dropout": 1.0}}),
        (pix2pix.Config, {"generator": {"num_downsamples": 5}}),
    ],
)
def test_settings_that_cannot_be_meant(config: type, options: dict) -> None:
    with pytest.raises(ValueError):
        config(**options)


def test_defaults_are_the_papers() -> None:
    cycle_config, pair_config = cyclegan.Config(), pix2pix.Config(generator={"ngf": 32})
    assert cycle_config.generator.kind == "resnet" and cycle_config.generator.num_blocks == 9
    assert (cycle_config.pool_size, cycle_config.lambda_identity) == (50, 0.5)
    assert pair_config.generator.kind == "unet" and pair_config.generator.norm == "batch"
    assert pair_config.generator.dropout == 0.5 and pair_config.lambda_L1 == 100
