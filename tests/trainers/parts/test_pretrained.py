"""Files of pretrained weights: read, refused, never run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainers.parts.pretrained import read_weights


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    given = {"features.0.weight": torch.randn(4, 3, 3, 3).half()}
    save_file(given, path) if suffix == ".safetensors" else torch.save(given, path)
    assert torch.equal(read_weights(path)["features.0.weight"], given["features.0.weight"])


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_weights(tmp_path / "missing.pth")
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"garbage{suffix}"
        path.write_bytes(b"not weights at all" * 10)
        with pytest.raises(ValueError, match="neither safetensors nor a state dict"):
            read_weights(path)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        read_weights(tmp_path / "list.pth")


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="neither safetensors nor a state dict"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "touched").exists()
