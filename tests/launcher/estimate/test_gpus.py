"""The table of cards, and what a machine has free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from launcher.estimate import free_memory
from launcher.estimate.gpus import CARDS, GIB, Card, cards_of, seconds
from launcher.recipe.config import ConfigError


def names(text: str) -> list[str]:
    return [card.name for card in cards_of(text)]


def test_cards_are_found_by_name_and_by_memory() -> None:
    assert names("H200") == names("h200") == names("141G") == ["H200"]
    assert names("RTX 4090") == names("rtx-4090") == ["RTX4090"]
    assert names("A100") == ["A100-40", "A100-80"] and names("a100-80") == ["A100-80"]
    assert names("24G") == names("24 GiB") == ["RTX3090", "RTX4090", "A10", "L4"]
    assert cards_of("20G") == (Card("20G", 20.0, {}, 0.0),)


@pytest.mark.parametrize("text", ["H20", "24", "0G", "", "fast", "9" * 400 + "G"])
def test_what_is_no_card_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--gpu={text} is neither a card's memory"):
        cards_of(text)


def test_the_table_holds_together() -> None:
    for card in CARDS:
        rates = card.flops
        assert rates["fp32"] <= rates["bf16"] <= rates["fp16"], card.name
        assert 1e12 < rates["fp32"] < 2e14 and 3e11 <= card.bandwidth <= 1e13, card.name
        assert 0 <= card.nvlink < card.bandwidth and card.usable_bytes < card.memory_gib * GIB


def test_a_kernel_is_bound_by_arithmetic_or_by_memory() -> None:
    card = Card("made up", 1, {"fp32": 10.0, "bf16": 20.0}, bandwidth=5.0)
    kernels = [(100, 5), (0, 50)]
    assert seconds(kernels, card, "fp32") == 10 + 10
    assert seconds(kernels, card, "bf16") == 5 + 10


def group(folder: Path, limit: str, used: int, droppable: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {droppable}\n")


def test_every_limit_above_a_process_counts(tmp_path: Path) -> None:
    group(tmp_path / "job/step", "max", 70, 20)
    group(tmp_path / "job", "100", 70, 20)
    group(tmp_path, "1000", 800, 0)
    assert list(free_memory.room(tmp_path, "/job/step", "max", "current")) == [50, 200]


def test_processes_share_the_memory_of_a_machine() -> None:
    cpu = torch.device("cpu")
    one, four = free_memory.memory_at_hand(cpu, 1), free_memory.memory_at_hand(cpu, 4)
    assert 0 < one <= free_memory.available() * 1.1 and four == pytest.approx(one / 4, rel=0.1)
