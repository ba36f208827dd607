"""Small stand-ins for ranks in training: they beat, vote, step and save as the real ones do.

python -m tests.cluster.ranks RUN STEPS [FAULT ...], by srun or alone. A fault RANK:STEP:WHAT
happens once in the run's life, or in every start as RANK:STEP:WHAT! with WHAT one of
kill (by SIGKILL), hang (in the main thread), freeze (the whole process), exit=STATUS. With
SLOW_RESTART=SECONDS in the environment they come up late in a requeued job, and die of any signal
until then."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from cluster.text_files import replace_text
from cluster.watch import attempts, heartbeat
from cluster.watch.heartbeat import Heart

heartbeat.INTERVAL = 0.2
STEP_S = 0.1
SAVE_EVERY = 2
caught: list[int] = []


def main(run: Path, num_steps: int, faults: list[str]) -> int:
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    if "SLURM_RESTART_COUNT" in os.environ:
        time.sleep(float(os.environ.get("SLOW_RESTART", "0")))
    for signum in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(signum, lambda signum, frame: caught.append(signum))
    heart = Heart(run / "heartbeats", rank).start()
    latest = run / "checkpoints" / "latest"
    step = int(latest.read_text()) if latest.exists() else 0
    start = os.environ.get(heartbeat.START, "none")
    stop = ""
    while step < num_steps and not (stop := vote(run, rank, f"{start} {step}")):
        heart.pulse("step", step, step)
        note(run / f"steps-{rank}", f"{step} {os.getpid()} {time.time()} {start}")
        commit(run, rank, step, faults)
        time.sleep(STEP_S)
        step += 1
        if rank == 0 and step % SAVE_EVERY == 0:
            save(latest, step)
    if rank == 0:
        save(latest, step)
        attempts.write_outcome(run, "stopped" if stop else "finished", stop, step)
    heart.stop()
    return 128 + signal.Signals[stop] if stop.startswith("SIG") else 0


def vote(run: Path, rank: int, name: str) -> str:
    """Why all ranks stop at this step, "" if none wants to: a collective made of files."""
    wish = "stop file" if (run / "stop").exists() else ""
    folder = run / "votes" / name.replace("/", " ")
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / str(rank), signal.Signals(caught[0]).name if caught else wish)
    told = None
    while len(votes := list(folder.glob("[0-9]*"))) < int(os.environ.get("SLURM_NTASKS", "1")):
        told = told or (time.monotonic() if caught else None)
        if told and time.monotonic() - told > 0.5:
            sys.exit("Connection closed by peer.")  # as gloo has it
        time.sleep(0.01)
    return max(path.read_text() for path in votes)


def commit(run: Path, rank: int, step: int, faults: list[str]) -> None:
    """The fault of this rank and step, if it is due."""
    for fault in faults:
        where, at, what = fault.rstrip("!").split(":")
        done = run / f"done-{fault.replace(':', '-')}"
        if (rank, step) != (int(where), int(at)) or done.exists():
            continue
        if not fault.endswith("!"):
            done.touch()
        if what.startswith("exit"):
            os._exit(int(what.partition("=")[2]))
        if what == "hang":
            time.sleep(1000)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}[what])


def save(latest: Path, step: int) -> None:
    latest.parent.mkdir(exist_ok=True)
    replace_text(latest, f"{step:09d}\n")


def note(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
