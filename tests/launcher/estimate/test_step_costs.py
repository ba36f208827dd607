"""The traced step is the real one: the same bytes and the same kernels, number for number."""

from __future__ import annotations

import pytest

from launcher.estimate.step_costs import StepCosts, step_costs, traced
from launcher.recipe.config import Config, load
from launcher.recipe.memory_presets import with_preset
from trainers.engine.tracing import LiveMemory
from trainers.parts.pretrained import shapes_alone

SMALL = {
    "pix2pixhd-full": dict(
        ngf=2, ndf=4, num_downsamples=2, num_blocks=1, num_local_blocks=1, num_scales=2
    ),
    "cyclegan": {"generator.ngf": 4, "generator.num_blocks": 1, "discriminator.ndf": 4},
    "pix2pix": {"generator.ngf": 4, "generator.num_downsamples": 6, "discriminator.ndf": 4},
}


def small(recipe: str, **options: str) -> Config:
    model = {f"model.{name}": str(value) for name, value in (SMALL[recipe] | options).items()}
    # bf16 would differ: a real step on the CPU pads in float32.
    return load(recipe, model | {"precision": "fp32", "ema.halflife": "100"})


@pytest.mark.parametrize(
    ("recipe", "options", "presets", "num_images", "num_micro", "size"),
    [
        ("pix2pixhd-full", {}, ["none", "whole+strips"], 1, 1, (48, 64)),
        ("pix2pixhd-full", {"encoder": "true", "lambda_vgg": "0"}, ["none"], 2, 2, (32, 64)),
        ("cyclegan", {}, ["none", "directions+blocks"], 2, 1, (48, 48)),
        ("pix2pix", {}, [], 1, 2, (64, 64)),
    ],
)
def test_an_estimate_is_what_a_real_step_holds_and_computes(
    recipe: str,
    options: dict[str, str],
    presets: list[str],
    num_images: int,
    num_micro: int,
    size: tuple[int, int],
) -> None:
    config = small(recipe, **options)
    for chosen in [with_preset(config, preset) for preset in presets] or [config]:
        with shapes_alone(), LiveMemory() as memory:
            real = traced(chosen, num_images, size, memory, num_micro)
        estimate = step_costs(chosen, num_images, size, num_micro)
        assert estimate.peak_bytes == real.peak_bytes
        # Fake tensors need one copy more in the encoder, whose layout they do not foresee.
        tolerance = 0.02 if "encoder" in options else 0
        assert estimate.num_trained == real.num_trained
        # The norm of all gradients is one kernel of real tensors, and many of fake ones.
        assert work(estimate, "forward", "backward", "step") == pytest.approx(
            work(real, "forward", "backward", "step"), rel=tolerance
        )
        assert work(estimate, "forward") == pytest.approx(work(real, "forward"), rel=tolerance)
        order = "DG" if recipe == "pix2pix" else "GD"
        stages = [(phase, stage) for phase in order for stage in ("forward", "backward", "step")]
        assert [(part.phase, part.stage) for part in real.parts] == stages


def work(costs: StepCosts, *stages: str) -> tuple[int, int]:
    """FLOPs and bytes of these stages."""
    kernels = [kernel for part in costs.parts if part.stage in stages for kernel in part.kernels]
    return sum(flops for flops, _ in kernels), sum(moved for _, moved in kernels)


def test_every_further_micro_batch_holds_as_much() -> None:
    config = small("pix2pixhd-full", memory="halves", lambda_vgg="0")
    two, three, four = (step_costs(config, 1, (64, 64), n) for n in (2, 3, 4))
    # Raw: label, inst and image; handed on to phase D: the generated image and D's gradients.
    expected = 64 * 64 * (1 + 4 + 3 + 3 * 4) + 4 * two.num_trained["D"]
    assert four.peak_bytes - three.peak_bytes == pytest.approx(expected, rel=1e-3)
    assert three.peak_bytes - two.peak_bytes == pytest.approx(expected, rel=1e-3)
