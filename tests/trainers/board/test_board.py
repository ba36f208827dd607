"""What rank 0 leaves behind: real TensorBoard events, metrics.jsonl, pictures."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainers import toy
from trainers.board.board import Board, rewound
from trainers.board.pictures import grid
from trainers.recipe import Cadence


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run / "board"), size_guidance={"images": 0, "scalars": 0})
    return accumulator.Reload()


def test_every_scalar_a_user_looks_for_is_on_the_board(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(), observers=(Board(tmp_path),))
    board = events(tmp_path)
    assert set(board.Tags()["scalars"]) == {
        "G/gan",
        "G/l1",
        "D/real",
        "D/fake",
        "grad_norm/G",
        "grad_norm/D",
        "lr/G",
        "lr/D",
        "speed/images_per_s",
        "speed/data_wait_share",
        "memory/peak_gib",
    }
    assert [event.step for event in board.Scalars("G/l1")] == [4, 8, 12, 16, 20]
    assert "config/text_summary" in board.Tags()["tensors"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [4, 8, 12, 16, 20]
    for row, event in zip(rows, board.Scalars("G/l1"), strict=True):
        assert row["G/l1"] == pytest.approx(event.value, rel=1e-6)
    assert all(0 <= row["speed/data_wait_share"] <= 1 for row in rows)


def test_pictures_are_condition_fake_real_and_ema(tmp_path: Path) -> None:
    toy.train(tmp_path, toy.recipe(), observers=(Board(tmp_path),))
    last = events(tmp_path).Images("pictures")[-1]
    assert last.step == 20
    picture = np.asarray(Image.open(io.BytesIO(last.encoded_image_string)))
    assert picture.shape == (4 * 8, 4 * 8, 3)  # four samples by four columns of 8 pixels
    real = torch.stack([toy.sample(16 + i)[1] for i in range(4)])
    assert np.array_equal(picture[:, 16:24, 0], real.reshape(32, 8).numpy())
    assert not np.array_equal(picture[:, 8:16], picture[:, 24:])  # the average is another fake


def test_a_resumed_run_continues_one_curve(tmp_path: Path) -> None:
    plan = toy.recipe(cadence=Cadence(log=4, pictures=0, save=12))
    toy.train(tmp_path, plan, observers=(Board(tmp_path),))
    # As if the run had been killed at 20 images, with its last checkpoint at 12 and a torn line.
    shutil.rmtree(tmp_path / "checkpoints" / "000000020")
    (tmp_path / "checkpoints" / "latest").write_text("000000012\n")
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "ima')
    toy.train(tmp_path, plan, observers=(Board(tmp_path),))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [4, 8, 12, 16, 20]
    assert [event.step for event in events(tmp_path).Scalars("G/l1")] == [4, 8, 12, 16, 20]


def test_a_damaged_history_does_not_stop_a_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"images": 4}\n\0\0\0\n{"images": 8}\n')
    assert rewound(path, 100).read_text() == '{"images": 4}\n'


def test_rewound_leaves_a_missing_file_alone(tmp_path: Path) -> None:
    assert not rewound(tmp_path / "metrics.jsonl", 5).exists()


def test_grid_scales_down_and_keeps_order() -> None:
    black = torch.zeros(2, 3, 64, 128, dtype=torch.uint8)
    white = torch.full((2, 3, 64, 128), 255, dtype=torch.uint8)
    picture = grid({"condition": black, "real": white}, width=32)
    assert picture.shape == (3, 2 * 16, 2 * 32)
    assert picture[:, :, :32].max() == 0 and picture[:, :, 32:].min() == 255
