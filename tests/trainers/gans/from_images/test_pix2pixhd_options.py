"""Options that pix2pixHD's authors have: a pool of generated images, batch norm, more enhancers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.originals import original_keys
from tests.trainers import toy
from tests.trainers.engine.test_trainer import StopAfter, assert_same
from tests.trainers.hd import FULL, SMALL, raw_batch
from trainers.gan import Batch
from trainers.gans.from_images.pix2pixhd import Config, Pix2PixHD
from trainers.player import Player
from trainers.recipe import Cadence


def built(**options: object) -> Pix2PixHD:
    torch.manual_seed(0)
    return Pix2PixHD(Config(**options)).double()


class AuthorsPool:
    """History of [N, C, H, W] as the authors' code keeps it, of conditions and images together."""

    def __init__(self, size: int, draws: random.Random):
        self.size, self.draws, self.kept = size, draws, []

    def query(self, image: Tensor) -> Tensor:
        if len(self.kept) < self.size:
            self.kept.append(image)
            return image
        if self.draws.uniform(0, 1) <= 0.5:
            return image
        place = self.draws.randint(0, self.size - 1)
        image, self.kept[place] = self.kept[place], image
        return image


def authors_d_loss(gan: Pix2PixHD, batch: Batch, query: Callable[[Tensor], Tensor]) -> Tensor:
    """(fake + real) / 2 over the scales' sums, from conditions concatenated with images (LSGAN)."""
    condition = batch["condition"]
    found = torch.zeros((), dtype=torch.float64)
    shown = query(torch.cat([condition, gan.translate(batch)], 1))
    for goal, x in ((0.0, shown), (1.0, torch.cat([condition, batch["image"]], 1))):
        for level in range(gan.config.num_scales):
            found = found + 0.5 * (gan.judges.discriminator.at(level)(x)[-1] - goal).square().mean()
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    return found


@pytest.mark.parametrize("options", [SMALL, SMALL | {"edges": False}])
def test_d_is_shown_earlier_images_beside_their_conditions(options: dict) -> None:
    gan = built(**options, pool_size=2)
    pool = AuthorsPool(2, random.Random(f"{torch.initial_seed()} fake"))
    generate, judge = (Player(gan, phase) for phase in gan.phases(0))
    swapped = 0
    for step in range(8):
        raw = raw_batch(seed=step)
        carry = generate(raw, {})[2]
        loss, terms, _ = judge(raw, carry)
        batch = gan.prepare(raw)
        expected = authors_d_loss(gan, batch, pool.query)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        without = built(**options)
        without.nets.load_state_dict(gan.nets.state_dict())
        swapped += abs(authors_d_loss(without, batch, lambda x: x) - loss).item() > 1e-9
    assert 0 < swapped < 6  # the first two pass


def test_the_pool_keeps_few_channels_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def make_gan() -> Pix2PixHD:
        return built(**SMALL, pool_size=2)

    def make_stream(*_: object) -> Callable[[int], Iterator[Batch]]:
        def stream(position: int) -> Iterator[Batch]:
            while True:
                yield raw_batch(seed=position)
                position += 1

        return stream

    def train(folder: Path, stop: Callable[[], bool] = lambda: False) -> None:
        plan = toy.recipe(total=6, global_batch=1, cadence=Cadence(log=2, pictures=0, save=0))
        toy.train(folder, plan, stop=stop, make_gan=make_gan, make_stream=make_stream)

    train(tmp_path / "whole")
    train(tmp_path / "parts", stop=StopAfter(4))
    train(tmp_path / "parts")
    assert_same(tmp_path / "whole", tmp_path / "parts")
    gan = make_gan()
    for seed in range(2):
        carry = Player(gan, gan.phases(0)[0])(raw_batch(seed=seed), {})[2]
        Player(gan, gan.phases(0)[1])(raw_batch(seed=seed), carry)
    assert [tuple(image.shape) for image in gan.pool.images] == [(1, 5, 32, 48)] * 2
    assert make_gan().own_state().keys() == {"fake/random"} and not built(**SMALL).own_state()


def test_batch_norm_leaves_the_biases_before_it() -> None:
    """As the authors' code: nn.Conv2d has a bias by default, whatever follows."""
    gan = built(**FULL, norm="batch", encoder=True, encoder_ngf=4, num_encoder_downsamples=1)
    for name, net in gan.nets.items():
        convolutions = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert convolutions and all(conv.bias is not None for conv in convolutions)
        ends = {"G": 1, "E": 1, "D": 2 * FULL["num_scales"]}[name]  # no norm after these
        assert len(norms) == len(convolutions) - ends
    theirs = {*original_keys(gan.nets["D"]).values()}
    assert {"scale2_layer1.1.running_mean", "scale0_layer3.1.weight"} <= theirs
    assert "scale0_layer0.1.weight" not in theirs


def test_batch_norm_trains_and_translates_by_either_statistics() -> None:
    gan = built(**SMALL, norm="batch")
    raw = raw_batch(count=2)
    generate, judge = (Player(gan, phase) for phase in gan.phases(0))
    loss, terms, carry = generate(raw, {})
    own, _, _ = judge(raw, carry)
    (loss + own).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gan.nets.parameters())
    batch = gan.prepare(raw)
    kept = {name: weight.clone() for name, weight in gan.nets["G"].state_dict().items()}
    by_batch = gan.translate(batch)
    torch.testing.assert_close(by_batch, carry["fake"], rtol=0, atol=1e-12)
    assert all(torch.equal(kept[name], w) for name, w in gan.nets["G"].state_dict().items())
    running = built(**SMALL, norm="batch", test_statistics="running")
    running.nets.load_state_dict(gan.nets.state_dict())
    assert not torch.allclose(running.translate(batch), by_batch, atol=1e-3)


def test_two_enhancers_start_from_one() -> None:
    one = built(**FULL)
    two = built(**FULL | {"ngf": FULL["ngf"] // 2, "num_enhancers": 2})
    before, given = {n: w.clone() for n, w in two.nets.state_dict().items()}, one.nets.state_dict()
    fresh = two.adopt(given)
    after = two.nets.state_dict()
    assert {name.rsplit(".", 1)[0].rpartition(".conv")[0] for name in fresh} >= {"G.enhancers.head"}
    assert all(n.startswith(("G.enhancers.levels.1.", "G.enhancers.head.")) for n in fresh)
    assert all(torch.equal(after[name], before[name]) for name in fresh)
    assert all(torch.equal(after[name], given[name]) for name in set(after) - set(fresh))
    with pytest.raises(ValueError, match="has G.enhancers.levels.1.* which this network lacks"):
        one.adopt(after)


def test_conditions_are_remade_from_what_the_pool_keeps() -> None:
    gan = built(**SMALL, pool_size=1)
    batch = gan.prepare(raw_batch(count=2))
    fake = gan.translate(batch)
    condition, again = gan._from_record(gan._record(batch, fake), fake.dtype)
    assert torch.equal(condition, batch["condition"]) and torch.equal(again, fake)
    assert condition.is_contiguous(memory_format=torch.channels_last)
