"""Parts in turn: the gradients of one backward through their sum, with one part in memory."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nets.generators.pix2pixhd import ResnetGenerator
from nets.memory.waist import Part, Terms, in_turn, loss_scale, narrow_waist
from tests.processes import gang
from trainers.engine.tracing import LiveMemory


def build(dtype: torch.dtype = torch.float64, **options: object) -> nn.ModuleList:
    """Two generators, which both parts use, and one that the second part alone uses."""
    torch.manual_seed(0)
    nets = [ResnetGenerator(3, 3, 4, 1, 1, **options) for _ in range(3)]
    return nn.ModuleList(nets).to(dtype)


def pictures(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(7)
    return torch.randn(2, 3, 16, 12, dtype=dtype), torch.randn(2, 3, 16, 12, dtype=dtype)


def precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cycle(there: nn.Module, back: nn.Module, image: Tensor) -> tuple[Tensor, Terms]:
    """A translation there and back; a critic judges what lies between, as a nested waist."""
    fake = there(image)

    def judge(fake: Tensor) -> tuple[Tensor, Terms]:
        term = (precise(fake) - 1).square().mean()
        return 2 * term, {"G/gan": term}

    total, terms = narrow_waist(fake, [judge, judge])
    distance = (precise(back(fake)) - precise(image)).abs().mean()
    return total + 10 * distance, terms | {"G/cycle": distance}


def directions(nets: nn.ModuleList, a: Tensor, b: Tensor) -> list[Part]:
    one, two, three = nets
    return [partial(cycle, one, two, a), partial(cycle, two, one, b), partial(cycle, three, two, a)]


def gradients(nets: nn.ModuleList) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in nets.named_parameters()}


def plain(nets: nn.ModuleList, parts: list[Part], scale: float = 1.0) -> tuple[Tensor, list[Terms]]:
    nets.zero_grad()
    totals, terms = zip(*(part() for part in parts), strict=True)
    (sum(totals) * scale).backward()
    return sum(totals).detach(), list(terms)


def relative_error(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    largest = max(gradient.abs().max() for gradient in wanted.values())
    return max(float((found[name] - wanted[name]).abs().max() / largest) for name in wanted)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("announced", [1.0, 65536.0])
def test_value_terms_and_gradients_of_one_backward(scale: float, announced: float) -> None:
    nets = build()
    parts = directions(nets, *pictures())
    with loss_scale(announced):
        wanted_total, wanted_terms = plain(nets, parts, scale)
    wanted = gradients(nets)
    nets.zero_grad()
    with loss_scale(announced):
        total, terms = in_turn(parts, list(nets.parameters()))
    (total * scale).backward()
    assert relative_error(gradients(nets), wanted) <= 1e-12
    assert total.item() == pytest.approx(wanted_total.item(), rel=1e-12)
    for name in ("G/gan", "G/cycle"):
        expected = sum(found[name] for found in wanted_terms).item()
        assert terms[name].item() == pytest.approx(expected, rel=1e-12)
        assert not terms[name].requires_grad


def test_gradients_accumulate_over_backwards() -> None:
    nets = build()
    parts = directions(nets, *pictures())
    plain(nets, parts)
    once = {name: gradient.clone() for name, gradient in gradients(nets).items()}
    in_turn(parts, list(nets.parameters()))[0].backward()
    assert relative_error(gradients(nets), {n: 2 * g for n, g in once.items()}) <= 1e-12


def test_a_part_may_use_some_parameters_or_none() -> None:
    nets = build()
    one, two, three = nets
    a, b = pictures()
    three.requires_grad_(False)
    constant: Part = lambda: (torch.tensor(2.0, dtype=torch.float64), {})  # noqa: E731
    parts = [constant, partial(cycle, one, one, a), partial(cycle, three, three, b)]
    total, _ = in_turn(parts, list(nets.parameters()))
    total.backward()
    found = gradients(nets)
    assert all((found[name] is None) != name.startswith("0.") for name in found)
    plain(nets, parts[1:2])
    wanted = {name: gradient for name, gradient in gradients(nets).items() if gradient is not None}
    assert relative_error(found, wanted) <= 1e-12


def test_only_the_parameters_are_differentiated() -> None:
    nets = build()
    a, b = pictures()
    total, _ = in_turn(directions(nets, a.requires_grad_(), b), list(nets[0].parameters()))
    total.backward()
    assert a.grad is None and all(parameter.grad is None for parameter in nets[1].parameters())
    assert all(parameter.grad is not None for parameter in nets[0].parameters())


def test_without_gradients_nothing_is_differentiated() -> None:
    nets, seen = build(), []

    def watched() -> tuple[Tensor, Terms]:
        seen.append(torch.is_grad_enabled())
        return cycle(nets[0], nets[1], pictures()[0])

    with torch.no_grad():
        assert not in_turn([watched], list(nets.parameters()))[0].requires_grad
    nets.requires_grad_(False)
    assert not in_turn([watched], list(nets.parameters()))[0].requires_grad
    assert seen == [False, False]


def test_parts_run_in_order_and_each_graph_is_gone_before_the_next() -> None:
    weight = nn.Parameter(torch.randn(50))
    alive: list[weakref.ref[Tensor]] = []
    order: list[int] = []

    def greedy(number: int) -> tuple[Tensor, Terms]:
        assert not any(reference() is not None for reference in alive)
        order.append(number)
        activation = weight.exp()
        alive.append(weakref.ref(activation))
        return (activation * activation).sum(), {}

    in_turn([partial(greedy, number) for number in range(3)], [weight])
    assert order == [0, 1, 2]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("remat", ["none", "halves"])
def test_autocast(remat: str, dropout: float) -> None:
    """Weights cast within one part, or without gradients before, must not lose theirs."""
    nets = build(torch.float32, rematerialise=remat, dropout=dropout)
    parts = directions(nets, *pictures(torch.bfloat16))
    found = []
    for run in (lambda: sum(part()[0] for part in parts), lambda: in_turn(parts, weights)[0]):
        weights = list(nets.parameters())
        nets.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                nets[2](pictures(torch.bfloat16)[0])
            torch.manual_seed(5)
            total = run()
        total.backward()
        found.append(gradients(nets))
    assert relative_error(found[1], found[0]) < 1e-2
    assert all(gradient is not None for gradient in found[1].values())


def test_the_peak_is_that_of_the_largest_part() -> None:
    nets = build(torch.float32)
    image = torch.randn(1, 3, 128, 128)
    parts = [partial(cycle, nets[0], nets[1], image) for _ in range(3)]
    weights = list(nets.parameters())
    size = sum(weight.numel() * weight.element_size() for weight in weights)

    def peak(run: object) -> int:
        with LiveMemory() as memory:
            run()
        return memory.peak

    alone = peak(lambda: parts[0]()[0].backward())
    nets.zero_grad()
    together = peak(lambda: sum(part()[0] for part in parts).backward())
    nets.zero_grad()
    turned = peak(lambda: in_turn(parts, weights)[0].backward())
    assert turned <= alone + 3 * size and together > 2.5 * alone


class Step(nn.Module):
    def __init__(self, nets: nn.ModuleList):
        super().__init__()
        self.nets = nets

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return in_turn(directions(self.nets, a, b), list(self.nets.parameters()))[0]


def in_the_gang() -> dict[str, list]:
    dist.init_process_group("gloo")
    nets, rank = build(), dist.get_rank()
    step = DistributedDataParallel(Step(nets))
    for _ in range(2):
        nets.zero_grad()
        step(*(image[rank : rank + 1] for image in pictures())).backward()
    found = {name: gradient.tolist() for name, gradient in gradients(nets).items()}
    del step
    dist.destroy_process_group()
    return found


def test_under_ddp_two_processes_are_one() -> None:
    nets = build()
    plain(nets, directions(nets, *pictures()))
    for found in gang.run(2, in_the_gang):
        ours = {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}
        assert relative_error(ours, gradients(nets)) <= 1e-12
