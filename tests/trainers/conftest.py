"""Fixtures of this floor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nets.losses.perceptual import Vgg
from tests.nets.rule import vgg_weights


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Vgg("vgg19").state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(vgg_weights(shapes), path)
    return path
