"""The traced step is the real one: the same bytes and the same kernels, number for number."""

from __future__ import annotations

import pytest

from launcher.config import Config, load
from launcher.costs import step_costs, traced
from launcher.presets import presets, with_preset
from trainers.tracing import LiveMemory, Part
from trainers.weights import shapes_alone

SMALL = {
    "pix2pixhd-full": dict(ngf=2, ndf=4, num_downsamples=2, num_blocks=2, num_local_blocks=1),
    "cyclegan": {"generator.ngf": 4, "generator.num_blocks": 2, "discriminator.ndf": 4},
    "pix2pix": {"generator.ngf": 4, "discriminator.ndf": 4},
}


def small(recipe: str, **options: object) -> Config:
    model = {f"model.{name}": str(value) for name, value in SMALL[recipe].items()}
    return load(recipe, model | {name: str(value) for name, value in options.items()})


@pytest.mark.parametrize(
    ("recipe", "options", "num_images", "num_micro", "size"),
    [
        ("pix2pixhd-full", {"precision": "fp32"}, 1, 1, (96, 128)),
        ("pix2pixhd-full", {"precision": "fp32", "model.encoder": "true"}, 2, 2, (32, 64)),
        ("cyclegan", {}, 2, 1, (48, 48)),
        ("pix2pix", {"ema.halflife": "1000"}, 1, 2, (256, 256)),
    ],
)
def test_an_estimate_is_what_a_real_step_holds_and_computes(
    recipe: str, options: dict[str, str], num_images: int, num_micro: int, size: tuple[int, int]
) -> None:
    config = small(recipe, **options)
    for preset in presets(config.model)[::2] or [None]:
        chosen = config if preset is None else with_preset(config, preset)
        with shapes_alone(), LiveMemory() as memory:
            real = traced(chosen, num_images, size, memory, num_micro)
        estimate = step_costs(chosen, num_images, size, num_micro)
        assert estimate.peak_bytes == real.peak_bytes, preset
        assert estimate.num_trained == real.num_trained
        for traced_part, part in zip(estimate.parts, real.parts, strict=True):
            assert (traced_part.phase, traced_part.stage) == (part.phase, part.stage)
            if part.stage == "step":  # the norms of all gradients are one kernel of real tensors
                assert sums(traced_part) == sums(part)
            else:
                assert traced_part.kernels == part.kernels, preset
        order = "DG" if recipe == "pix2pix" else "GD"
        stages = [(phase, stage) for phase in order for stage in ("forward", "backward", "step")]
        assert [(part.phase, part.stage) for part in real.parts] == stages


def sums(part: Part) -> tuple[int, int]:
    """FLOPs and bytes."""
    return sum(flops for flops, _ in part.kernels), sum(moved for _, moved in part.kernels)


def test_every_further_micro_batch_holds_as_much() -> None:
    config = small("pix2pixhd-full", **{"model.memory": "halves"})
    two, three, four = (step_costs(config, 1, (64, 64), n).peak_bytes for n in (2, 3, 4))
    # Raw: label, inst and image; carried on to phase D: the generated image.
    assert four - three == three - two == 64 * 64 * (1 + 4 + 3 + 3 * 2)
