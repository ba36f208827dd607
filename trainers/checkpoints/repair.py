"""Which of a run's checkpoints are as they were written."""

from __future__ import annotations

import json
from pathlib import Path

from trainers.checkpoints.checkpoint import FILES, numbered, pointed_at, read
from trainers.checkpoints.durable_files import crc32_of, read_bytes, replace_text
from trainers.errors import TrainingError


def mend(run_dir: Path) -> list[str]:
    """Set the pointer back to the newest checkpoint whose files are as they were written.

    Returns a sentence for each newer one that cannot be used; it stays where it is. Raises
    TrainingError when there are checkpoints, but none is whole."""
    folder = Path(run_dir) / "checkpoints"
    names, newest = numbered(folder), pointed_at(folder)
    complaints = []
    if names and newest not in names:
        newest = names[0]
        complaints.append(f"{folder}/latest is lost: the newest whole checkpoint is used.")
    for name in [name for name in names if name <= newest]:
        complaint = complaint_about(folder / name)
        if complaint is None:
            if complaints:
                replace_text(folder / "latest", name + "\n")
            return complaints
        complaints.append(f"{complaint} The one before is used.")
    if not names:
        return []
    raise TrainingError(
        f"{folder} has no whole checkpoint to go on from. {' '.join(complaints)} Restore one, or "
        "remove the folder to start anew."
    )


def complaint_about(path: Path) -> str | None:
    """Why a checkpoint cannot be used; None if its files are as they were written."""
    try:
        if not (path / FILES).exists():
            read(path)  # earlier formats had no such list
    except TrainingError as error:
        return str(error)
    try:
        written = json.loads(read_bytes(path / FILES))
        for name, expected in written.items():
            # The list is data, too: only plain names in this folder are followed.
            if expected != crc32_of(path / Path(name).name):
                return f"The checkpoint {path} is damaged: {name} was cut or altered."
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return f"The checkpoint {path} is damaged: {error}."
    return None
