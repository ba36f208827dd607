"""What a user asks of sbatch beside our options: `--sbatch='--gres=gpu:a100:2 --exclude=n7'`."""

from __future__ import annotations

import re
import shlex

from cluster.errors import ClusterError

DIRECTIVE = re.compile(r"--([a-z][a-z0-9-]*)(=[^\s\"'#\\$`]+)?", re.ASCII)
"""As it stands after #SBATCH, where nothing is expanded, but quotes, # and \\ mean something."""
OWN = {
    "job-name": "--name",
    "nodes": "--nodes",
    "ntasks": "--nodes and --ranks",
    "ntasks-per-node": "--ranks",
    "cpus-per-task": "--cpus",
    "gpus-per-node": "--gpus",
    "gpus": "--gpus (on each node)",
    "gpus-per-task": "--gpus (on each node)",
    "mem": "--mem",
    "time": "--time",
    "partition": "--partition",
    "account": "--account",
    "qos": "--qos",
    "constraint": "--constraint",
    "array": "--array",
    "dependency": "--after",
    "mail-user": "--mail",
    "mail-type": "--mail",
    "signal": "--signal_s",
    "requeue": "--requeue",
    "no-requeue": "--requeue",
    "export": "--env",
    "container": "--container",
}
"""What has an option of its own."""
FIXED = {
    "chdir": "the folder where `submit` is called",
    "output": "RUN/logs",
    "error": "RUN/logs",
    "input": "nothing",
    "open-mode": "append",
    "kill-on-invalid-dep": "yes",
    "wrap": "nothing",
    "parsable": "what `submit` reads",
    "test-only": "nothing (use --dry)",
    "wait": "nothing",
    "help": "nothing",
    "version": "nothing",
    "quiet": "nothing",
    "hold": "nothing (use scontrol)",
    "ntasks-per-core": "left to --ranks",
    "ntasks-per-socket": "left to --ranks",
    "ntasks-per-gpu": "left to --ranks",
    "uid": "yours",
    "gid": "yours",
}
"""What the run relies on, or what would submit nothing."""


def parsed(text: str, gpus: int) -> tuple[str, ...]:
    """The directives in `text`, without their dashes; ClusterError for what contradicts ours.

    gpus: those that the job asks for on each node by an option of its own."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ClusterError(f"--sbatch={text} is not closed ({error}): close its quotes.") from error
    for word in words:
        _check(word, gpus)
    return tuple(word.removeprefix("--") for word in words)


def _check(word: str, gpus: int) -> None:
    found = DIRECTIVE.fullmatch(word)
    if found is None:
        raise ClusterError(
            f"--sbatch: {word!r} must read --NAME or --NAME=VALUE, by its long name, without "
            "blanks, quotes, #, $ or backslashes inside."
        )
    name = found[1]
    if name in OWN:
        raise ClusterError(f"--sbatch: --{name} is ours to write: give {OWN[name]} instead.")
    if name in FIXED:
        raise ClusterError(f"--sbatch: --{name} is fixed to {FIXED[name]}: leave it out.")
    if name in ("gres", "tres-per-node") and "gpu" in word and gpus:
        raise ClusterError(
            f"--sbatch: {word} and --gpus={gpus} both ask for GPUs: leave --gpus out, and give "
            "--ranks=N for N processes on each node."
        )
