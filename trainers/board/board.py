"""Who watches a run: the protocol of observers, and rank 0's TensorBoard with metrics.jsonl."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from torch import Tensor

from trainers.checkpoints.checkpoint import Progress
from trainers.checkpoints.durable_files import named, read_bytes, replace_text, through_no_link


class Observer:
    """Sees what the trainer has to tell; only rank 0 has any. By itself it does nothing."""

    def start(self, progress: Progress, total: int, config: str) -> None:
        """The run begins or goes on at `progress`, towards `total` images."""

    def scalars(self, progress: Progress, values: dict[str, float]) -> None:
        """Means of the tick that ends here."""

    def pictures(self, progress: Progress, grid: Tensor) -> None:
        """A uint8 picture grid [3, H, W]."""

    def close(self) -> None:
        """Nothing more will come."""


class Board(Observer):
    """TensorBoard events and metrics.jsonl in the run folder; the x axis is images seen."""

    def __init__(self, run_dir: Path):
        self.run_dir = Path(run_dir)

    def start(self, progress: Progress, total: int, config: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        hush_writer()
        # What was logged after the checkpoint that we go on from is about to happen again.
        self.writer = SummaryWriter(self.run_dir / "board", purge_step=progress.images + 1)
        self.writer.add_text("config", f"```yaml\n{config}\n```", progress.images)
        metrics = rewound(self.run_dir / "metrics.jsonl", progress.images)
        self.metrics = open(metrics, "a", opener=through_no_link)

    def scalars(self, progress: Progress, values: dict[str, float]) -> None:
        row = {"step": progress.step, "images": progress.images, **values}
        with named(self.run_dir):
            for name, value in values.items():
                self.writer.add_scalar(name, value, progress.images)
            self.writer.flush()
            self.metrics.write(json.dumps(row) + "\n")
            self.metrics.flush()

    def pictures(self, progress: Progress, grid: Tensor) -> None:
        with named(self.run_dir):
            self.writer.add_image("pictures", grid, progress.images)
            self.writer.flush()

    def close(self) -> None:
        with named(self.run_dir):
            self.writer.close()
            self.metrics.close()


def hush_writer() -> None:
    """TensorBoard's thread need not tell of its error: our next call of it raises the same."""
    tell = threading.excepthook

    def hook(told: threading.ExceptHookArgs) -> None:
        if not type(told.thread).__module__.startswith("tensorboard."):
            tell(told)

    threading.excepthook = hook


def rewound(path: Path, images: int) -> Path:
    """Drop the rows of metrics.jsonl beyond `images`, and all from one that a crash damaged."""
    if path.exists():
        kept = []
        for row in read_bytes(path).decode(errors="replace").splitlines():
            try:
                seen = json.loads(row)["images"]
            except (ValueError, TypeError, KeyError, RecursionError):
                break
            kept += [row + "\n"] if seen <= images else []
        replace_text(path, "".join(kept))
    return path
