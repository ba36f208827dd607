"""Going on from a checkpoint: networks, average, moments, and what each process had to itself."""

from __future__ import annotations

from torch import Tensor

from trainers.backends.base import Backend, Moments, Past
from trainers.checkpoints.checkpoint import Checkpoint, load_weights
from trainers.checkpoints.rng_state import set_random_state
from trainers.checkpoints.store import own_file
from trainers.ema import Ema
from trainers.gan import GAN


def restore(checkpoint: Checkpoint, gan: GAN, ema: Ema | None, backend: Backend) -> None:
    """Put weights, average and random state back as they were."""
    load_weights(gan, checkpoint.weights(), checkpoint.path)
    if ema is not None:
        ema.restart(gan)
        if checkpoint.has("ema"):
            for name, tensor in checkpoint.tensors("ema").items():
                ema.shadow[name].copy_(tensor)
    # Other processes than those that wrote it start with fresh draws and empty pools.
    if checkpoint.has(own_file(backend)) and checkpoint.state["world"] == backend.world:
        restore_own(checkpoint.tensors(own_file(backend)), gan, backend)


def restore_own(tensors: dict[str, Tensor], gan: GAN, backend: Backend) -> None:
    """The inverse of `own_tensors`."""
    groups: dict[str, dict[str, Tensor]] = {"random": {}, "gan": {}}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        groups[group][name] = tensor
    set_random_state(groups["random"], backend.device)
    gan.load_own_state({name: tensor.to(backend.device) for name, tensor in groups["gan"].items()})


def read_pasts(checkpoint: Checkpoint) -> dict[str, Past]:
    """What the seats of the checkpoint's phases left behind, by phase; moments on the CPU."""
    moments: dict[str, Moments] = {}
    for key, tensor in checkpoint.tensors("optimizers").items():
        phase, name, kind = key.split("/")
        moments.setdefault(phase, {}).setdefault(name, {})[kind] = tensor
    scalers = checkpoint.state["scalers"]
    return {phase: Past(moments.get(phase, {}), scaler) for phase, scaler in scalers.items()}
