"""Where this process stands among its peers, as the launcher's environment tells it.

Pure functions of an environment. Whoever starts processes says it in names of its own: torchrun,
accelerate and deepspeed (RANK ...), OpenMPI, MVAPICH, MPICH, or srun. What contradicts itself is
refused: a wrong count ends in a process group that waits for ever.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from cluster.errors import ClusterError
from cluster.start.hosts import expand

Environment = Mapping[str, str]


@dataclass(frozen=True)
class World:
    """One process among its peers."""

    rank: int = 0
    """Index of this process among all."""
    size: int = 1
    """Number of processes over all nodes."""
    local_rank: int = 0
    """Index among the processes of its node: which GPU is its own."""
    local_size: int = 1
    """Number of processes on its node."""


@dataclass(frozen=True)
class Topology:
    """All processes, node by node."""

    world: World = World()
    node: int = 0
    """Index of this process's node."""
    num_nodes: int = 1
    hosts: tuple[str, ...] = ()
    """Names of the nodes, where the launcher tells them: rank 0 is on the first."""
    tasks: tuple[int, ...] = (1,)
    """Number of processes on each node; () where only the own node's is known."""


PEERS = {
    # rank, size, local rank, local size
    "torchrun, accelerate or deepspeed": (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
    ),
    "mpirun (OpenMPI)": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "mpirun (MVAPICH)": (
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    "mpiexec (MPICH)": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}


def world(environment: Environment = os.environ) -> World:
    """This process among its peers; see `topology`."""
    return topology(environment).world


def topology(environment: Environment = os.environ) -> Topology:
    """The launcher's word on all processes; without a launcher, one process on its own.

    The innermost launcher counts: torchrun or mpirun may itself be a task of srun.
    Raises ClusterError when the variables contradict each other."""
    for launcher, names in PEERS.items():
        # srun's own PMI sets PMI_RANK, but not the local rank: then SLURM's variables tell more.
        if names[2] in environment or names[0] == "RANK" and {*names[:2]} & {*environment}:
            return _peers(environment, launcher, names)
    if "SLURM_STEP_ID" in environment:
        return _slurm_step(environment)
    # The batch script itself, or a shell of salloc: alone, unless more was asked for.
    for name, things in (("SLURM_NTASKS", "tasks"), ("SLURM_JOB_NUM_NODES", "nodes")):
        if number(environment, name, 1) > 1:
            raise ClusterError(
                f"SLURM gave this job {environment[name]} {things} ({name}), but this process was "
                "not started by srun: put `srun` in front of the command."
            )
    if number(environment, "PMI_SIZE", 1) > 1:
        raise ClusterError(
            f"PMI_SIZE={environment['PMI_SIZE']}, but MPI_LOCALRANKID, the rank on its node, is "
            "not set: set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or start by "
            "another launcher."
        )
    return Topology()


def _peers(environment: Environment, launcher: str, names: tuple[str, ...]) -> Topology:
    missing = [name for name in names[:3] if name not in environment]
    if missing:
        given = ", ".join(f"{n}={environment[n]}" for n in names[:3] if n in environment)
        raise ClusterError(
            f"{given}, but {missing[0]} is not set: start by {launcher}, which sets "
            f"{', '.join(names[:3])}, or unset them all."
        )
    rank, size, local_rank = (number(environment, name) for name in names[:3])
    # DeepSpeed has another name for it; without either, all are taken to be on one machine.
    local_size = number(environment, names[3], number(environment, "LOCAL_SIZE", size))
    _fits(names[0], rank, size, f"{names[1]}={size}")
    _fits(names[2], local_rank, local_size, f"{names[3]}={local_size}")
    _fits(names[2], local_rank, size, f"{names[1]}={size}")
    num_tasks = number(environment, "SLURM_STEP_NUM_TASKS", 1)
    if num_tasks > size:
        raise ClusterError(
            f"{names[1]}={size}, but srun started {num_tasks} tasks (SLURM_STEP_NUM_TASKS): start "
            f"{launcher} once per node, or unset {', '.join(names[:3])} to go by srun's tasks."
        )
    return Topology(
        World(rank, size, local_rank, local_size),
        node=rank // local_size,
        num_nodes=-(-size // local_size),
        tasks=(),
    )


def _slurm_step(environment: Environment) -> Topology:
    """One task of srun: the step's own variables where the job's would say something else."""

    def name(of_step: str, of_job: str) -> str:
        return of_step if of_step in environment else of_job

    size_name = name("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    hosts_name = name("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
    tasks_name = name("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    size, rank = number(environment, size_name), number(environment, "SLURM_PROCID")
    local_rank = number(environment, "SLURM_LOCALID")
    node = number(environment, "SLURM_NODEID")
    hosts = tuple(expand(environment.get(hosts_name, "")))
    tasks = task_counts(environment.get(tasks_name, ""))
    if len(tasks) != len(hosts) or sum(tasks) != size:
        raise ClusterError(
            f"{tasks_name}={environment.get(tasks_name)} is {sum(tasks)} tasks on {len(tasks)} "
            f"nodes, but {size_name}={size} and {hosts_name}={environment.get(hosts_name)} has "
            f"{len(hosts)} nodes: start all tasks by one srun, without a heterogeneous job."
        )
    _fits("SLURM_PROCID", rank, size, f"{size_name}={size}")
    _fits("SLURM_NODEID", node, len(hosts), f"the {len(hosts)} nodes of {hosts_name}")
    _fits("SLURM_LOCALID", local_rank, tasks[node], f"the {tasks[node]} tasks of {hosts[node]}")
    world = World(rank, size, local_rank, tasks[node])
    return Topology(world, node, len(hosts), hosts, tasks)


def of_hostfile(slots: Mapping[str, int], host: str) -> Topology:
    """The first process of node `host` in a DeepSpeed hostfile (`hosts.read_hostfile`)."""
    hosts, tasks = tuple(slots), tuple(slots.values())
    if host not in slots:
        raise ClusterError(
            f"The hostfile names {', '.join(hosts)}, but this node is {host}: write its line as "
            "`hostname` prints it."
        )
    node = hosts.index(host)
    world = World(sum(tasks[:node]), sum(tasks), 0, tasks[node])
    return Topology(world, node, len(hosts), hosts, tasks)


def task_counts(text: str) -> tuple[int, ...]:
    """SLURM's short form of tasks per node: "2(x3),1" -> (2, 2, 2, 1)."""
    found = [re.fullmatch(r"(\d{1,7})(?:\(x(\d{1,5})\))?", p, re.ASCII) for p in text.split(",")]
    parts = [part for part in found if part]
    if len(parts) < len(found):
        raise ClusterError(f"Tasks per node must read as SLURM's '2(x3),1', not {text!r}.")
    return tuple(chain.from_iterable([int(p[1])] * int(p[2] or 1) for p in parts))


def number(environment: Environment, name: str, default: int | None = None) -> int:
    """The environment variable `name`; without a default, its absence is an error."""
    if name not in environment and default is not None:
        return default
    text = environment.get(name)
    if text is None:
        raise ClusterError(f"The environment variable {name} is not set: start by a launcher.")
    if not (text.isascii() and text.isdecimal()):
        raise ClusterError(f"The environment variable {name}={text!r} is not a number: unset it.")
    return int(text)


def _fits(name: str, value: int, limit: int, what: str) -> None:
    if value >= limit:
        raise ClusterError(f"{name}={value} does not fit {what}: start by a launcher, or by srun.")
