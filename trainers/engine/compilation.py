"""torch.compile of the static parts of a GAN: passes fused, kernels launched by the graph.

A part is compiled in place: names, hooks, wrappers and checkpoints stay as they are. Results are
rounded differently, since fused passes keep intermediate values in registers. On a machine that
compiles nothing, and where torch cannot follow a part, it runs as written, and says so once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from trainers.backends.base import Backend
from trainers.gan import GAN

Kind = Literal["none", "fuse", "graphs"]
Options = dict[str, str | int | bool | Callable[..., Any]]
"""Of torch.compile."""
VARIANTS = 64
"""Compiled forms that one piece of code may have: shapes, frozen or not, with a graph or without.
Layers of one class share theirs: with recomputation pix2pixHD takes about 26."""


@dataclass(frozen=True)
class Compilation:
    """How the networks of a GAN run, for the loop that runs them."""

    kind: Kind = "none"

    def start_step(self) -> None:
        """What CUDA graphs gave in the step before may be written over from here on."""
        if self.kind == "graphs":
            torch.compiler.cudagraph_mark_step_begin()

    def paused(self) -> AbstractContextManager:
        """Inside, networks run as written: for pictures, too few to pay for a compilation."""
        return nullcontext() if self.kind == "none" else torch.compiler.set_stance("force_eager")


def compile_parts(gan: GAN, kind: Kind, backend: Backend) -> Compilation:
    """Have the static parts of `gan` compiled when they first run. All ranks call it together.

    Tried on a small function first: where that fails on any rank, all of them, which share one
    rounding, run the networks as written, and say why."""
    if kind == "graphs" and backend.device.type != "cuda":
        kind = "fuse"
        if backend.rank == 0:
            _tell("compile=graphs needs a GPU: compile=fuse is used.")
    if kind == "none":
        return Compilation()
    options: Options = {
        "fallback_random": True,  # dropout draws what it would draw uncompiled
        "triton.cudagraphs": kind == "graphs",
    }
    problem = _problem(backend.device, options)
    if problem:
        _tell(
            f"compile={kind} does not work on this machine, so the networks run as written: "
            f"{problem}. Install what is missing (a C++ compiler; on GPUs also triton), or set "
            "compile=none."
        )
    if backend.maximum(torch.tensor(float(bool(problem)), device=backend.device)).item():
        return Compilation()
    _prepare_torch()
    for part in gan.static_parts():
        for piece in _pieces(part):
            piece.compile(dynamic=False, options=options)
    return Compilation(kind)


def _problem(device: torch.device, options: Options) -> str:
    """Why a small function cannot be compiled and differentiated here; "" if it can."""
    import torch._dynamo.config

    tried = torch.compile(lambda x: (x * x).tanh().sum(), dynamic=False, options=options)
    try:
        with torch._dynamo.config.patch(suppress_errors=False):
            tried(torch.ones(8, device=device, requires_grad=True)).backward()
    except Exception as error:
        return _reason(error)
    return ""


def _reason(error: BaseException) -> str:
    inner = getattr(error, "inner_exception", error)
    return str(inner).strip().split("\n")[0].rstrip(".") or type(inner).__name__


def _pieces(part: nn.Module) -> Iterator[nn.Module]:
    """The largest modules that recompute nothing inside: what is recomputed is called from eager
    code, which torch.compile could not see through."""
    container = isinstance(part, (nn.ModuleList, nn.Sequential))  # not compiled by torch
    if container or getattr(part, "rematerialise", "none") != "none":
        for child in part.children():
            yield from _pieces(child)
    else:
        yield part


def _prepare_torch() -> None:
    import torch._dynamo.config
    import torch._functorch.config

    # A discriminator's graph is differentiated twice: its buffers must outlive the first time.
    # Either time all gradients are computed, those that nobody asks for too.
    torch._functorch.config.donated_buffer = False
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = VARIANTS
    logging.getLogger("torch._dynamo.convert_frame").addFilter(_ONE_SENTENCE)


class _OneSentence(logging.Filter):
    """Tells what could not be compiled in a sentence, once, in place of pages for each part."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        error = record.exc_info[1] if record.exc_info else None
        reason = record.getMessage().split("\n")[0] if error is None else _reason(error)
        if reason not in self.told:
            self.told.add(reason)
            _tell(f"Part of the networks runs uncompiled: {reason}.")
        return False


_ONE_SENTENCE = _OneSentence()


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
