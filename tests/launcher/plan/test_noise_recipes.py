"""`plan` and the presets of memory for the recipes of GANs from noise, at their full width."""

from __future__ import annotations

import pytest

from tests.launcher.sample import organza

PARAMETERS = {
    "gan": "D 0.1 M, G 0.2 M",
    "dcgan": "D 2.8 M, G 12.7 M",
    "wgan": "D 2.8 M, G 12.7 M",
    "wgan-gp": "D 2.8 M, G 13.1 M",
    "cgan": "G 1.8 M, D 1.1 M",
    "infogan": "D 6.6 M, G 6.8 M",
    "cogan": "D 0.4 M, G 7.8 M",
    "sagan": "D 39.5 M, G 42.1 M",
    "biggan": "D 88.0 M, G 70.4 M",
    "s2gan": "D 89.5 M, G 70.4 M",
    "progan": "D 23.1 M, G 23.1 M",
}
"""As the references' networks have them."""


@pytest.mark.parametrize("recipe", PARAMETERS)
def test_every_recipe_can_be_planned(recipe: str) -> None:
    words = ("plan", recipe, "--gpu=H200", "--batch.total=4", "--model.turned=0")
    status, output = organza(*(words if recipe == "s2gan" else words[:-1]))
    assert status == 0 and PARAMETERS[recipe] in output, output
    presets = ("none", "blocks") if recipe in ("biggan", "s2gan") else ("(no presets)",)
    rows = [line.split("  ")[0] for line in output.splitlines() if line.rstrip().endswith("yes")]
    assert rows == [*presets]
