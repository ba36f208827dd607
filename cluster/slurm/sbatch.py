"""The batch script of a job: a pure function from its options to text that a person can read.

The script computes nothing: everything that depends on the nodes or on earlier attempts is worked
out by `python -m launcher join` in Python, where it is tested.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from cluster.errors import ClusterError
from cluster.slurm import free_directives
from cluster.slurm.queries import seconds

LAUNCHERS = ("rank", "accelerate", "torchrun", "deepspeed")
OWN_VARIABLES = re.compile(r"RANK|WORLD_SIZE|LOCAL_\w+|MASTER_\w+|SLURM_\w+|SBATCH_\w+|PMI\w*")
"""What tells a process its place: a value from outside would contradict SLURM."""
SIGNS = r"[\w.@+:/=~!^%-]+"
"""Of a name in SLURM's database: what has no meaning to sbatch or a shell."""
PATTERNS = {
    # What sbatch takes unquoted after an option's "=".
    "name": (r"[\w.+-]+", "letters, digits and . _ + -"),
    "partition": (rf"{SIGNS}(,{SIGNS})*", "a partition's name, or several with commas"),
    "account": (SIGNS, "an account's name"),
    "qos": (SIGNS, "a quality of service's name"),
    "constraint": (r"[\w.,:=+&|!*()\[\]-]+", "features joined by & or |"),
    "mem": (r"\d+[KMGT]?", "memory per node, as 64G"),
    "mail": (r"[\w.+-]+@[\w.-]+", "an e-mail address"),
    "after": (r"\d+(_\d+)?", "a job's number"),
    "array": (r"\d+(-\d+)?(,\d+(-\d+)?)*(%[1-9]\d*)?", "task numbers, as 0-5 or 0-5%2"),
    # "%" and "\" mean something to sbatch in the names of logs.
    "run_dir": (r"/[^\s\"'#\\%]*", "an absolute path without spaces, quotes, # or %"),
    "work_dir": (r"/[^\s\"'#\\%]*", "an absolute path without spaces, quotes, # or %"),
}


@dataclass(frozen=True)
class Job:
    """What to ask SLURM for. Raises ClusterError for values that sbatch or bash would misread."""

    run_dir: str
    """The run folder, on a file system that all nodes share."""
    work_dir: str
    """Where the command runs: `python -m launcher` works there."""
    name: str
    nodes: int = 1
    gpus: int = 0
    """On each node."""
    ranks: int = 0
    """Processes on each node; 0: one per GPU, or a single one without GPUs."""
    launch: str = "rank"
    """Who starts the ranks: srun (rank), or on each node accelerate | torchrun | deepspeed."""
    cpus: int = 0
    """CPU cores for each rank; 0: what SLURM gives."""
    mem: str = ""
    time: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    mail: str = ""
    after: str = ""
    """Wait until this job has ended well."""
    array: str = ""
    """Numbers of a sweep's members."""
    signal_s: int = 120
    """Seconds before the time limit at which the ranks are told to save; SLURM looks at its clock
    every 30 s only, so that it may come earlier."""
    requeue: bool = False
    """Whether SLURM, and the run itself at its time limit, may start the job again."""
    patience: int = 3
    """So many starts in a row may get no further before the job ends."""
    timeout_s: int = 1800
    """Seconds after which ranks that do not go on are started again."""
    modules: tuple[str, ...] = ()
    venv: str = ""
    conda: str = ""
    """Name or folder of a conda environment."""
    container: str = ""
    """Image for apptainer."""
    env: tuple[tuple[str, str], ...] = ()
    sbatch: str = ""
    """Other options of sbatch, as --gres=gpu:a100:2 --exclude=n7."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not all(text.isprintable() for text in _texts(getattr(self, field.name))):
                raise ClusterError(f"--{field.name} holds a line break or another control sign.")
        for name, (pattern, allowed) in PATTERNS.items():
            value = getattr(self, name)
            needed = name in ("name", "run_dir", "work_dir")
            if (value or needed) and not re.fullmatch(pattern, value, re.ASCII):
                raise ClusterError(f"--{name}={value} must be {allowed}.")
        self._check_numbers()
        self._check_surroundings()
        free_directives.parsed(self.sbatch, self.gpus)

    def _check_numbers(self) -> None:
        least = {"nodes": 1, "gpus": 0, "ranks": 0, "cpus": 0}
        least |= {"signal_s": 1, "patience": 1, "timeout_s": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise ClusterError(f"--{name}={getattr(self, name)} must be {number} or more.")
        if self.launch not in LAUNCHERS:
            raise ClusterError(f"--launch={self.launch} must be one of {', '.join(LAUNCHERS)}.")
        limit = seconds(self.time) if self.time else None
        if limit is not None and limit <= self.signal_s:
            raise ClusterError(
                f"--time={self.time} is over before the ranks are told to save: it must be longer "
                f"than --signal_s={self.signal_s} seconds."
            )

    def _check_surroundings(self) -> None:
        chosen = [name for name in ("venv", "conda", "container") if getattr(self, name)]
        if len(chosen) > 1:
            raise ClusterError(f"--{chosen[0]} and --{chosen[1]} exclude each other: keep one.")
        for key, _ in self.env:
            if not re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII):
                raise ClusterError(f"--env={key}: {key!r} is not the name of a variable.")
            if OWN_VARIABLES.fullmatch(key):
                raise ClusterError(f"--env={key}: {key} is set by the launcher; leave it out.")

    @property
    def directives(self) -> tuple[str, ...]:
        """Those of `sbatch`, without their dashes."""
        return free_directives.parsed(self.sbatch, self.gpus)

    @property
    def ranks_per_node(self) -> int:
        return self.ranks or self.gpus or 1

    @property
    def tasks_per_node(self) -> int:
        """Tasks of srun: the ranks themselves, or one launcher for them."""
        return self.ranks_per_node if self.launch == "rank" else 1

    @property
    def cpus_per_task(self) -> int:
        return self.cpus * self.ranks_per_node // self.tasks_per_node

    @property
    def log(self) -> str:
        """Where the batch script and srun write, with SLURM's %-signs for the job's number."""
        return f"{self.run_dir}/logs/job-{'%A_%a' if self.array else '%j'}.log"


def job(options: Mapping[str, str], **defaults: Any) -> Job:
    """A Job from the command line's texts; an unknown option lists what there is.

    options: name -> text, e.g. {"nodes": "2", "requeue": "yes", "env": "A=1,B=2"}.
    defaults: what the caller sets, and the user may not, e.g. run_dir."""
    kinds = {field.name: str(field.type) for field in fields(Job)}
    known = [name for name in kinds if name not in defaults]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f" (did you mean --{near[0]}?)" if near else ""
            raise ClusterError(f"--{name} is no option{meant}: there are {', '.join(known)}.")
    return Job(**defaults | {name: _value(name, kinds[name], t) for name, t in options.items()})


def _value(name: str, kind: str, text: str) -> Any:
    if kind == "int":
        if not (text.isascii() and text.isdecimal()):
            raise ClusterError(f"--{name}={text} must be a whole number.")
        return int(text)
    if kind == "bool":
        if text not in ("yes", "no"):
            raise ClusterError(f"--{name}={text} must be yes or no.")
        return text == "yes"
    if name == "modules":
        return tuple(filter(None, text.split(",")))
    if name == "env":
        pairs = re.split(r",(?=[A-Za-z_]\w*=)", text)  # a comma inside a value stays
        if not all("=" in pair for pair in pairs):
            raise ClusterError(f"--env={text} must read KEY=VALUE, or KEY=VALUE,KEY=VALUE.")
        return tuple(tuple(pair.split("=", 1)) for pair in pairs)
    return text


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _texts(part)


def render(job: Job) -> str:
    """The whole batch script."""
    size = f"{job.nodes} x {job.ranks_per_node} processes"
    lines = [
        "#!/bin/bash",
        f"# {job.name}: {size}. Written by `organza submit`; the run is in",
        f"# {job.run_dir}",
        *(f"#SBATCH --{directive}" for directive in _directives(job)),
        "",
        *_surroundings(job),
        *_command(job),
    ]
    return "\n".join(lines) + "\n"


def _directives(job: Job) -> Iterator[str]:
    yield f"job-name={job.name}"
    yield f"nodes={job.nodes}"
    yield f"ntasks-per-node={job.tasks_per_node}"
    values = {
        "cpus-per-task": job.cpus_per_task,
        "gpus-per-node": job.gpus,
        "mem": job.mem,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "constraint": job.constraint,
        "array": job.array,
    }
    yield from (f"{name}={value}" for name, value in values.items() if value)
    if job.after:
        yield f"dependency=afterok:{job.after}"
        yield "kill-on-invalid-dep=yes"  # else it waits for ever once the other has failed
    if job.mail:
        yield f"mail-user={job.mail}"
        yield "mail-type=END,FAIL,REQUEUE"
    yield from job.directives
    yield f"chdir={job.work_dir}"
    yield f"output={job.log}"
    yield "open-mode=append"  # else a requeued job begins its log anew
    yield f"signal=B:USR2@{job.signal_s}"
    yield "requeue" if job.requeue else "no-requeue"


def _surroundings(job: Job) -> list[str]:
    lines = [f"module load {shlex.join(job.modules)}"] if job.modules else []
    if job.venv:
        lines.append(f"source {shlex.quote(job.venv + '/bin/activate')}")
    if job.conda:
        lines += ['eval "$(conda shell.bash hook)"', f"conda activate {shlex.quote(job.conda)}"]
    lines += [f"export {key}={shlex.quote(value)}" for key, value in job.env]
    hold = "trap '' USR2  # it would end this shell; the watch looks at the clock as well"
    first = "set -e  # without its surroundings the command would fail less clearly"
    return [hold, *([first] if lines else []), *lines, ""]


def _command(job: Job) -> list[str]:
    watch = f"exec python -m cluster.watch {shlex.quote(job.run_dir)}"
    watch += " --requeue" if job.requeue else ""
    limits = f"--patience={job.patience} --timeout_s={job.timeout_s} --signal_s={job.signal_s} --"
    # Without --overlap the ranks could not be started again beside a step that SLURM believes to
    # be running because its slurmstepd cannot tell any more.
    srun = "srun --export=ALL --kill-on-bad-exit=1 --mpi=none --overlap"
    if job.cpus:
        srun += f" --cpus-per-task={job.cpus_per_task}"
    container = [f"apptainer exec --nv {shlex.quote(job.container)}"] if job.container else []
    join = f"python -m launcher join {shlex.quote(job.run_dir)}"
    if job.launch != "rank":
        join += f" --launch={job.launch} --ranks={job.ranks_per_node}"
    return " \\\n    ".join([watch, limits, srun, *container, join]).split("\n")
