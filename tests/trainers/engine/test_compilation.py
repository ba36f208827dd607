"""Compiled networks: the same training, no compilation after the first steps, and none needed.

Most of it traces and differentiates as torch.compile does but leaves out the generation of code,
which takes seconds a kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache

from nets.layers.blocks import ConvBlock
from tests.processes import gang
from tests.trainers import toy
from tests.trainers.backends import test_deepspeed_zero
from tests.trainers.engine.test_trainer import assert_same
from tests.trainers.gans.from_images import test_pix2pixhd_resume, test_translators
from tests.trainers.hd import FULL
from trainers.backends.base import Backend
from trainers.backends.opening import open_backend
from trainers.board.board import Observer
from trainers.checkpoints.checkpoint import find
from trainers.engine import compilation
from trainers.engine.compilation import compile_parts
from trainers.gan import GAN, Batch
from trainers.gans.from_images.pix2pixhd import Config, Pix2PixHD
from trainers.recipe import Cadence

PLAN = toy.recipe(total=3, global_batch=1, cadence=Cadence(log=1, pictures=1, save=0))
"""Three steps, with pictures after each."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    counters.clear()


def traced() -> Any:
    """Inside, compiled parts are traced and differentiated, but not made into code."""
    return torch.compiler.set_stance(force_backend="aot_eager")


def train(folder: Path, kind: str, **options: Any) -> list[int]:
    """A run with pictures and an average after each step; how much was compiled by then."""
    trainer = toy.trainer_for(folder, observers=(Observer(),), **options)
    names = list(trainer.gan.nets.state_dict())
    trainer.compilation = compile_parts(trainer.gan, kind, trainer.backend)
    assert trainer.compilation.kind == kind
    assert list(trainer.gan.nets.state_dict()) == names
    num_compiled: dict[int, int] = {}
    make = trainer.gan.pictures

    def pictures(batch: Batch) -> dict[str, Tensor]:
        before = num_compiled[trainer.progress.step] = counters["frames"]["ok"]
        made = make(batch)
        assert counters["frames"]["ok"] == before, "pictures are not worth a compilation"
        return made

    trainer.gan.pictures = pictures
    with traced():
        trainer.fit(find(folder))
    return list(num_compiled.values())


def hd(**changes: object) -> GAN:
    slim = {"num_blocks": 1, "num_scales": 2, "num_layers": 1, "num_downsamples": 1}
    return Pix2PixHD(Config(**FULL | slim | {"fix_global": 1} | changes))


def pairwise(norm: str) -> GAN:
    generator = {"kind": "unet", "ngf": 2, "num_downsamples": 2, "norm": norm, "dropout": 0}
    return test_translators.pairwise(
        generator=generator, discriminator={"ndf": 2, "num_layers": 1, "norm": norm}
    )


RUNS: dict[str, dict[str, Any]] = {
    "pix2pixhd": {
        "make_gan": lambda: hd(encoder=True, encoder_ngf=2, num_encoder_downsamples=1),
        "make_stream": test_pix2pixhd_resume.make_stream,
    },
    "pix2pixhd, halves": {
        "make_gan": lambda: hd(memory="halves"),
        "make_stream": test_pix2pixhd_resume.make_stream,
    },
    "cyclegan": {
        "make_gan": lambda: test_translators.apart_gan("cyclegan"),
        "make_stream": test_translators.make_stream,
    },
    "pix2pix": {
        "make_gan": lambda: pairwise("instance"),
        "make_stream": test_translators.make_stream,
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_a_compiled_run_is_the_same_run(tmp_path: Path, name: str) -> None:
    for kind in ("none", "fuse"):
        num_compiled = train(tmp_path / kind, kind, plan=PLAN, **RUNS[name])
    assert_same(tmp_path / "none", tmp_path / "fuse", 1e-9)
    first, second, third = num_compiled
    # What was frozen in the first step is trained from the second on.
    assert 0 < first <= second == third and (second > first) == name.startswith("pix2pixhd")


def small(seed: int = 0) -> nn.Module:
    """Layers whose passes are fused: channels last, dropout, a norm, a reflected border."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 4, 3)
    return ConvBlock(conv, nn.LeakyReLU(0.2, inplace=True), reflect=1, dropout=0.5)


class Small(GAN):
    """One network; nothing else of a GAN."""

    def __init__(self, *nets: nn.Module):
        super().__init__()
        self.nets = nn.ModuleDict({str(i): net for i, net in enumerate(nets)})


def gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Two losses of one graph, as phases that share a discriminator's run have them."""
    torch.manual_seed(1)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = net(x)
    wanted = [x, *net.parameters()]
    first = torch.autograd.grad(y.square().mean(), wanted, retain_graph=True)
    second = torch.autograd.grad(y.cos().mean(), wanted)
    return [y.detach(), *first, *second]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_generated_code_agrees_in_every_use(precision: torch.dtype | None) -> None:
    net, x = small(), torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        wanted = gradients(net, x)
        compile_parts(Small(net), "fuse", Backend())
        found = gradients(net, x)
    assert counters["frames"]["ok"]
    tolerance = 1e-6 if precision is None else 2e-2
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_without_a_compiler_the_networks_run_as_written(capfd: pytest.CaptureFixture[str]) -> None:
    with no_compiler():
        assert compile_parts(toy.Toy(), "fuse", Backend()).kind == "none"
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith("compile=fuse does not work on this machine, so the networks run as")
    assert "C++ compiler" in told


def test_cuda_graphs_without_a_gpu_are_plain_fusion(capfd: pytest.CaptureFixture[str]) -> None:
    assert compile_parts(Small(), "graphs", Backend()).kind == "fuse"
    assert capfd.readouterr().err == "compile=graphs needs a GPU: compile=fuse is used.\n"


def test_what_fails_later_runs_as_written_and_is_told_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken(graph: Any, inputs: Any) -> Callable[..., Any]:
        raise RuntimeError("kernels are out of stock\nand much more text")

    nets, x = [small(0), small(0).double()], torch.randn(1, 3, 8, 8)
    wanted = gradients(nets[0], x)
    compile_parts(Small(*nets), "fuse", Backend())
    with torch.compiler.set_stance(force_backend=broken):
        found = gradients(nets[0], x)
        gradients(nets[1], x.double())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
    told = capfd.readouterr().err
    assert told == "Part of the networks runs uncompiled: kernels are out of stock.\n"


def test_sizes_that_always_change_stop_being_compiled(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compilation, "VARIANTS", 2)
    net = small()
    compile_parts(Small(net), "fuse", Backend())
    counters.clear()
    with traced():
        for side in (8, 9, 10, 11, 12):
            assert net(torch.randn(1, 3, side, side)).shape == (1, 4, side, side)
    assert counters["frames"]["ok"] == 2
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith("Part of the networks runs uncompiled: ") and "limit" in told


@contextmanager
def no_compiler() -> Iterator[None]:
    """Inside, no C++ compiler is found, nor what one has made before."""
    with fresh_cache(), torch._inductor.config.patch({"cpp.cxx": (None, "/nonexistent/g++")}):
        yield


def on_two_processes(folder: Path) -> tuple[str, list[int]]:
    """How the ranks run where the second has no compiler; then how much is compiled by step."""
    torch._dynamo.reset()
    counters.clear()
    plan = toy.recipe(total=6, global_batch=2, cadence=Cadence(log=2, pictures=2, save=0))
    for name, kind in itertools.product(PAIRED, ("none", "fuse")):
        num_compiled = train(folder / name / kind, kind, plan=plan, **PAIRED[name])
    torch._dynamo.reset()
    backend = open_backend(2, timeout=60)
    with no_compiler() if backend.rank else nullcontext():
        return compile_parts(Small(), "fuse", backend).kind, num_compiled


PAIRED = {
    "pix2pixhd": {"make_gan": lambda: hd(fix_global=2), "make_stream": test_deepspeed_zero.apart},
    "sync-batch": {
        "make_gan": lambda: pairwise("sync-batch"),
        "make_stream": test_translators.make_stream,
    },
}


def test_two_processes_compile_together(tmp_path: Path) -> None:
    for kind, (first, second, third) in gang.run(2, on_two_processes, tmp_path):
        assert kind == "none" and 0 < first <= second == third
    for name in PAIRED:
        assert_same(tmp_path / name / "none", tmp_path / name / "fuse", 1e-9)
