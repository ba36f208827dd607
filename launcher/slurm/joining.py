"""`join`: a task of srun finds its place and becomes the worker, or its node's launcher; `train`: a
worker that somebody has started finds the others."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from cluster import signals
from cluster.errors import ClusterError
from cluster.signals import StopRequest, reason
from cluster.start.preflight import preflight
from cluster.start.rendezvous import (
    Rendezvous,
    check_interfaces,
    interface,
    rendezvous,
    worker_environment,
)
from cluster.start.token import token_of
from cluster.start.topology import Topology, topology
from cluster.text_files import replace_text
from cluster.watch import attempts
from cluster.watch.attempts import member
from launcher.recipe.config import Config, ConfigError, load
from launcher.run import accelerate_options, logs
from launcher.slurm import launchers, signal_relay
from launcher.slurm.fingerprints import config_fingerprint, facts, text_fingerprint

AGENT = "TORCHELASTIC_RUN_ID"
"""Set for the workers of torchrun and accelerate."""
PATIENCE = 300.0
"""Seconds for which those who were started one by one wait for each other."""


def join(run: Path, launch: str, ranks: int) -> int:
    """Meet the other tasks, then train; the exit status.

    launch: rank, when this task is a worker itself; else who starts `ranks` workers on each node.
    Raises ClusterError, on all tasks, when one is missing or is not the same program."""
    run = member(run.absolute())
    where = topology()
    if not run.is_dir():
        raise ClusterError(
            f"{run} is not there on {socket.gethostname()}: the run folder must lie on a file "
            "system that all nodes share."
        )
    if launch == "rank" and where.world.rank > 0:
        logs.divert(logs.attempt_folder(run), where.world.rank)
    if launch != "rank":
        check_one_task_per_node(where, launch)
    meeting = rendezvous(where)
    config = {"the configuration": config_fingerprint(run / "config.yaml")}
    preflight(where.world, meeting, facts() | config, secret(where, run))
    if signals.held():  # nothing is begun that could be saved
        return leave(run, signals.held())
    if launch != "rank":
        return hand_over(launch, node_of(run, ranks, where, meeting))
    os.environ |= worker_environment(where, meeting)
    return train(load(f"{run}/config.yaml"))


def work(config: str, overrides: Mapping[str, str]) -> int:
    """Train in this process, one of those that any launcher started; the exit status."""
    where = topology()
    folder = os.environ.get(logs.FOLDER)
    if folder and where.world.rank > 0:
        logs.divert(Path(folder), where.world.rank)
    resolved = load(config, overrides)
    if where.world.size > 1:
        check_interfaces()
        if AGENT not in os.environ:
            meet(where, resolved)
    return train(resolved)


def meet(where: Topology, config: Config) -> None:
    """As `join`, for workers that srun, mpirun, deepspeed or a person has started without it.
    torchrun and accelerate have an agent on each node, and these have met."""
    meeting = rendezvous(where)
    own = {"the configuration": text_fingerprint(config.to_yaml().encode())}
    token = secret(where, config.run_dir)
    patience = min(config.backend.timeout_s, PATIENCE)
    preflight(where.world, meeting, facts() | own, token, patience)
    os.environ.update(worker_environment(where, meeting))


def secret(where: Topology, run: Path) -> bytes:
    """What the run's processes know each other by; a single one meets nobody."""
    return token_of(run) if where.world.size > 1 else b""


def train(resolved: Config) -> int:
    accelerate_options.check(resolved, os.environ, accelerate_options.parent_command())
    from launcher.run import training  # torch comes with it: not before `preflight`

    return training.train(resolved)


def check_one_task_per_node(where: Topology, launch: str) -> None:
    if where.world.size != where.num_nodes or where.world.size != len(where.hosts or "1"):
        raise ClusterError(
            f"join: --launch={launch} is started once per node, by srun --ntasks-per-node=1, but "
            f"there are {where.world.size} tasks on {where.num_nodes} nodes: use such a job, or "
            "--launch=rank."
        )


def node_of(run: Path, ranks: int, where: Topology, meeting: Rendezvous) -> launchers.Node:
    if ranks < 1:
        raise ConfigError("join: --ranks=0 must be 1 or more.")
    return launchers.Node(
        run=run,
        ranks=ranks,
        index=where.node,
        hosts=where.hosts or (socket.gethostname(),),
        own_address=own_address(meeting.address),
        address=meeting.address,
        port=meeting.port,
        interface=interface(meeting.address),
        name=meeting.run,
    )


def hand_over(launch: str, node: launchers.Node) -> int:
    """Start the node's workers by their launcher, and pass SLURM's signals on to them."""
    command = launchers.command(launch, node)
    os.environ |= {logs.FOLDER: str(logs.attempt_folder(node.run))} | command.environment
    print(f"{node.hosts[node.index]}: {shlex.join(command.argv)}", file=sys.stderr, flush=True)
    if launch == "deepspeed":
        write_hostfile(node)
    stop = StopRequest().install()
    status = signal_relay.run(command.argv, stop)
    if stop() and attempts.read_outcome(node.run) is None:  # they were told before they could hear
        return leave(node.run, stop())
    return status


def leave(run: Path, signum: int) -> int:
    """Leave word that this start was told to end; the exit status.

    SIGTERM alone proves nothing: srun sends it to all once a task of another node has failed, and
    the watch asks SLURM itself whether the job is to end."""
    if attempts.RUN in os.environ and signum != signal.SIGTERM:
        images = attempts.newest_images(run)
        attempts.write_outcome(run, "stopped", reason(signum), images)
    return 128 + signum


def write_hostfile(node: launchers.Node) -> None:
    """Every node writes the same text; none may see half of another's."""
    replace_text(node.run / "hostfile", node.hostfile)


def own_address(target: str) -> str:
    """This node's address on the way to `target`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))  # sends nothing, only chooses the way
        return probe.getsockname()[0]
