"""What a node's own launcher is called with: a pure function, whole in the tests' goldens.

About these launchers, not in their manuals:
  - torchrun's shared store keeps the addresses of dead workers, so that restarts fail unless
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE is set; only the c10d rendezvous survives them.
  - torchrun and accelerate die of USR1 and leave their workers alone with it, unless told to pass
    it on. They give the workers TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds to save, then kill them.
    What SLURM says, `join` tells the workers itself: a launcher that starts could not.
  - accelerate reads torchrun's PET_ variables for what it has no option for. A user's own default
    configuration would mix in, hence the file. `--cpu` starts one process, whatever else is said.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

CONFIG_FILE = Path(__file__).parents[2] / "cluster" / "accelerate-multi-node.yaml"
SAVING = 60
"""Seconds that workers have to save once they were told to leave; as many may pass before a rank
that hangs in a collective is killed and its node starts again."""
RESTARTS = 3
"""By the launcher inside one start; what watches the job counts starts without progress."""
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"


@dataclass(frozen=True)
class Node:
    """One node's part of a start."""

    run: Path
    """The run folder."""
    ranks: int
    """Workers on each node."""
    index: int
    hosts: tuple[str, ...]
    own_address: str
    """Where the other nodes reach this one."""
    address: str
    """The first node's, and the port that is free there."""
    port: int
    interface: str | None
    """Name of this node's interface towards it, for gloo."""
    name: str
    """Equal on all nodes of this start, and on no others."""

    @property
    def num_nodes(self) -> int:
        return len(self.hosts)

    @property
    def world(self) -> int:
        return self.num_nodes * self.ranks

    @property
    def hostfile(self) -> str:
        """DeepSpeed's list of nodes."""
        return "".join(f"{host} slots={self.ranks}\n" for host in self.hosts)

    @property
    def worker(self) -> list[str]:
        return ["-m", "launcher", "train", f"{self.run}/config.yaml"]


@dataclass(frozen=True)
class Command:
    """What starts the workers of a node."""

    argv: list[str]
    environment: dict[str, str]
    """Beside what is there already."""


def command(launch: str, node: Node) -> Command:
    """How `launch` (torchrun, accelerate, deepspeed) starts the workers of a node."""
    built = BUILDERS[launch](node)
    if node.interface is None:
        return built
    return Command(built.argv, built.environment | {"GLOO_SOCKET_IFNAME": node.interface})


def torchrun(node: Node) -> Command:
    argv = [
        *(sys.executable, "-m", "torch.distributed.run"),
        f"--nnodes={node.num_nodes}",
        f"--nproc-per-node={node.ranks}",
        "--rdzv-backend=c10d",
        f"--rdzv-conf=is_host={int(node.index == 0)}",
        f"--max-restarts={RESTARTS}",
        *node.worker,
    ]
    return Command(argv, elastic(node))


def accelerate(node: Node) -> Command:
    argv = [
        *(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"),
        f"--config_file={CONFIG_FILE}",
        f"--num_machines={node.num_nodes}",
        f"--num_processes={node.world}",
        f"--machine_rank={node.index}",
        f"--main_process_ip={node.address}",
        f"--main_process_port={node.port}",
        "--rdzv_backend=c10d",
        f"--rdzv_conf=is_host={int(node.index == 0)}",
        f"--max_restarts={RESTARTS}",
        *node.worker,
    ]
    return Command(argv, elastic(node))


def elastic(node: Node) -> dict[str, str]:
    """What torchrun reads, and accelerate, which is built on it."""
    return {
        "PET_RDZV_ENDPOINT": f"{node.address}:{node.port}",
        "PET_RDZV_ID": re.sub(r"\W+", "-", node.name),
        "PET_LOCAL_ADDR": node.own_address,
        "PET_SIGNALS_TO_HANDLE": SIGNALS,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVING),
    }


def deepspeed(node: Node) -> Command:
    argv = [
        *(sys.executable, "-m", "deepspeed.launcher.runner"),
        f"--hostfile={node.run}/hostfile",
        "--no_ssh",
        f"--node_rank={node.index}",
        f"--master_addr={node.address}",
        f"--master_port={node.port}",
        "--module",
        *node.worker[1:],
    ]
    return Command(argv, {})


BUILDERS: Mapping[str, Callable[[Node], Command]] = {
    "torchrun": torchrun,
    "accelerate": accelerate,
    "deepspeed": deepspeed,
}
