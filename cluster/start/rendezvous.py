"""Where the processes meet: one address and port that every node works out without talking."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cluster.errors import ClusterError
from cluster.slurm import queries
from cluster.start.topology import Environment, Topology, number

FIRST_PORT = 12000
NUM_PORTS = 10000
"""Pairs of ports, all below 32768, where Linux begins to hand them out to whoever connects."""
HIGHEST_PORT = 65535
USUAL_PORT = 29500
"""torch's own default, for clusters without job numbers."""
SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of an interface."""


@dataclass(frozen=True)
class Rendezvous:
    """Where rank 0 listens."""

    address: str
    port: int
    """torch.distributed's; the next one is `preflight`'s."""
    run: str
    """Equal on all processes of one start, and on no others."""

    @property
    def preflight_port(self) -> int:
        return self.port + 1


def rendezvous(topology: Topology, environment: Environment = os.environ) -> Rendezvous:
    """The launcher's MASTER_ADDR and MASTER_PORT, or else the first node and the job's own port.

    Raises ClusterError when several nodes would meet at an address that each has for itself, and
    for an address or port that cannot be one."""
    address = environment.get("MASTER_ADDR")
    if address is None:
        address = master_address(topology.hosts) if topology.num_nodes > 1 else "127.0.0.1"
    elif topology.num_nodes > 1 and is_loopback(address):
        raise ClusterError(
            f"MASTER_ADDR={address} is each node's own, but there are {topology.num_nodes} nodes: "
            "give the launcher an address of the first node that the others reach."
        )
    check_known(address)
    if "MASTER_PORT" in environment or "SLURM_JOB_ID" not in environment:
        port = number(environment, "MASTER_PORT", USUAL_PORT)
        if not 0 < port < HIGHEST_PORT:
            raise ClusterError(
                f"MASTER_PORT={port} is no port: choose one from 1024 to {HIGHEST_PORT - 1}; the "
                "next one is used too."
            )
        return Rendezvous(address, port, f"the start at port {port}")
    job, restart, step = (
        number(environment, f"SLURM_{name}", 0) for name in ("JOB_ID", "RESTART_COUNT", "STEP_ID")
    )
    run = f"job {job}, restart {restart}, step {step}"
    return Rendezvous(address, job_port(job, restart + step), run)


def check_known(address: str) -> None:
    try:
        socket.getaddrinfo(address, None)
    except OSError as error:
        raise ClusterError(
            f"MASTER_ADDR={address} is no address that {socket.gethostname()} knows "
            f"({error.strerror}): give the name or number of rank 0's machine."
        ) from error


def check_interfaces(environment: Environment = os.environ) -> None:
    """Raise ClusterError if gloo or NCCL are told to use interfaces that are not here."""
    here = [name for _, name in socket.if_nameindex()]
    for variable, fits, enough in (
        ("GLOO_SOCKET_IFNAME", str.__eq__, all),
        ("NCCL_SOCKET_IFNAME", str.startswith, any),
    ):
        asked = environment.get(variable, "")
        if not asked or asked.startswith("^"):  # NCCL: all but these
            continue
        names = asked.removeprefix("=").split(",")
        fits = str.__eq__ if asked.startswith("=") else fits
        if not enough(any(fits(name, wanted) for name in here) for wanted in names):
            raise ClusterError(
                f"{variable}={asked}, but {socket.gethostname()} has {', '.join(here)}: name the "
                "interface that leads to the other nodes, or unset it."
            )


def job_port(job: int, attempt: int = 0) -> int:
    """The port of a job's attempt: of neighbouring jobs and attempts, each has its own."""
    return FIRST_PORT + 2 * ((job * 101 + attempt) % NUM_PORTS)


def master_address(
    hosts: Sequence[str], node_address: Callable[[str], str] = queries.node_address
) -> str:
    """An IPv4 address of the first host that other nodes reach.

    Debian's /etc/hosts gives a node's own name as 127.0.1.1; then `node_address`, SLURM's word,
    is taken. Raises ClusterError when that is no better."""
    if not hosts:
        raise ClusterError("The launcher names no nodes and no MASTER_ADDR: set MASTER_ADDR.")
    found = reachable(hosts[0])
    if found is None:
        try:
            found = reachable(node_address(hosts[0]))
        except ClusterError as error:
            raise ClusterError(_no_address(hosts[0], str(error))) from error
    if found is None:
        raise ClusterError(_no_address(hosts[0], "SLURM's NodeAddr is no better."))
    return found


def _no_address(host: str, reason: str) -> str:
    return (
        f"{host}, the first node, has no address here that other nodes reach: correct /etc/hosts "
        f"or the name service, or set MASTER_ADDR. ({reason})"
    )


def reachable(host: str) -> str | None:
    """The first IPv4 address of `host` that is not this machine's own 127.*; None without one."""
    try:
        answers = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return None
    addresses = [str(answer[4][0]) for answer in answers]
    return next((a for a in addresses if not ipaddress.ip_address(a).is_loopback), None)


def is_loopback(host: str) -> bool:
    """Whether `host` is certainly this machine alone: localhost, 127.*, ::1."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.partition(".")[0] in ("localhost", "ip6-localhost")


def interface(address: str) -> str | None:
    """Name of this node's interface towards `address` (IPv4), for GLOO_SOCKET_IFNAME.

    gloo goes by the node's own name, which may be 127.0.1.1: then the others cannot reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing, only chooses the way
        except OSError:
            return None
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an address
                continue
            if answer[20:24] == own:
                return name
    return None


def worker_environment(
    topology: Topology, meeting: Rendezvous, environment: Environment = os.environ
) -> Mapping[str, str]:
    """What a worker finds under torchrun, for one that srun or mpirun started."""
    world = topology.world
    names = {
        "RANK": world.rank,
        "WORLD_SIZE": world.size,
        "LOCAL_RANK": world.local_rank,
        "LOCAL_WORLD_SIZE": world.local_size,
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": meeting.port,
    }
    asked = environment.get("GLOO_SOCKET_IFNAME")
    # A machine's way to itself, as set for a run on one, leads to no other node.
    gloo = asked if asked and asked != "lo" else interface(meeting.address)
    return {name: str(value) for name, value in names.items()} | (
        {"GLOO_SOCKET_IFNAME": gloo} if gloo else {}
    )
