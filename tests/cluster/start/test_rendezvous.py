"""Address and port of rank 0, worked out alike on all nodes."""

from __future__ import annotations

import socket

import pytest

from cluster.errors import ClusterError
from cluster.start import rendezvous as meeting
from cluster.start.rendezvous import Rendezvous, interface, is_loopback, job_port, master_address
from cluster.start.topology import Topology, World, topology

TWO_NODES = Topology(World(1, 2), 1, 2, ("127.0.0.1", "n2"), (1, 1))


def no_slurm(host: str) -> str:
    raise ClusterError("scontrol is not on this machine.")


def test_the_launcher_s_word_counts() -> None:
    environment = {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "29501", "SLURM_JOB_ID": "17"}
    found = meeting.rendezvous(TWO_NODES, environment)
    assert found == Rendezvous("10.0.0.7", 29501, "the start at port 29501")
    assert found.preflight_port == 29502


def test_one_node_needs_no_network() -> None:
    assert meeting.rendezvous(Topology(), {}) == Rendezvous(
        "127.0.0.1", 29500, "the start at port 29500"
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "localhost", "::1"])
def test_several_nodes_do_not_meet_at_localhost(address: str) -> None:
    with pytest.raises(ClusterError, match=f"MASTER_ADDR={address} is each node's own"):
        meeting.rendezvous(TWO_NODES, {"MASTER_ADDR": address})


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("MASTER_ADDR", "no-such-host.invalid", "MASTER_ADDR=no-such-host.invalid is no address"),
        ("MASTER_PORT", "0", "MASTER_PORT=0 is no port: choose one from 1024 to 65534"),
        ("MASTER_PORT", "65535", "MASTER_PORT=65535 is no port"),
        ("MASTER_PORT", "99999", "MASTER_PORT=99999 is no port"),
        ("MASTER_PORT", "http", "MASTER_PORT='http' is not a number"),
    ],
)
def test_what_cannot_be_a_place_is_named(variable: str, value: str, sentence: str) -> None:
    with pytest.raises(ClusterError, match=sentence):
        meeting.rendezvous(Topology(), {variable: value})


@pytest.mark.parametrize("variable", ["GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"])
def test_an_interface_that_is_not_here_is_named(variable: str) -> None:
    with pytest.raises(ClusterError, match=f"{variable}=ib7, but .* has .*lo.*: name the"):
        meeting.check_interfaces({variable: "ib7"})
    meeting.check_interfaces({variable: "lo"})


def test_nccl_has_more_ways_to_name_interfaces() -> None:
    for value in ("l", "^docker", "=lo", "ib7,lo"):
        meeting.check_interfaces({"NCCL_SOCKET_IFNAME": value})
    with pytest.raises(ClusterError):
        meeting.check_interfaces({"NCCL_SOCKET_IFNAME": "=l"})
    for value in ("l", "lo,ib7"):  # gloo uses every one that it is told
        with pytest.raises(ClusterError):
            meeting.check_interfaces({"GLOO_SOCKET_IFNAME": value})


def test_a_job_s_port_follows_from_its_number() -> None:
    environment = {"SLURM_JOB_ID": "17", "MASTER_ADDR": "10.0.0.7"}
    first = meeting.rendezvous(TWO_NODES, environment)
    again = meeting.rendezvous(TWO_NODES, environment | {"SLURM_RESTART_COUNT": "1"})
    assert first.port == job_port(17) and again.port == job_port(17, 1)
    assert first.run == "job 17, restart 0, step 0" != again.run


def test_ports_are_low_even_and_neighbours_differ() -> None:
    ports = [job_port(job, attempt) for job in range(5000, 5090) for attempt in range(50)]
    assert len(set(ports)) == len(ports)
    assert all(1024 < port < 32767 and port % 2 == 0 for port in ports)
    assert 1024 < job_port(2**32, 10**6) < 32767


def test_the_first_host_s_address_is_taken_if_others_reach_it() -> None:
    assert master_address(["10.1.2.3", "n2"], no_slurm) == "10.1.2.3"


def test_a_loopback_name_falls_back_to_what_slurm_knows() -> None:
    assert master_address(["localhost", "n2"], lambda host: "10.1.2.3") == "10.1.2.3"


@pytest.mark.parametrize("host", ["localhost", "no-such-host.invalid"])
def test_without_an_address_that_others_reach_there_is_a_sentence(host: str) -> None:
    with pytest.raises(ClusterError, match=f"{host}, the first node, .*scontrol is not on"):
        master_address([host, "n2"], no_slurm)
    with pytest.raises(ClusterError, match="NodeAddr is no better"):
        master_address([host, "n2"], lambda name: "127.0.0.1")
    with pytest.raises(ClusterError, match="names no nodes and no MASTER_ADDR"):
        master_address([], no_slurm)


def test_loopback_is_known_by_any_name() -> None:
    assert all(map(is_loopback, ("localhost", "localhost.localdomain", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("n1", "10.0.0.1", "localhosts")))


def test_the_interface_that_leads_to_an_address_is_named() -> None:
    assert interface("127.0.0.1") == "lo"
    assert interface("255.255.255.256") is None  # no address: no way to it


def test_the_user_s_interface_is_kept() -> None:
    found = meeting.worker_environment(
        TWO_NODES, Rendezvous("127.0.0.1", 29500, ""), {"GLOO_SOCKET_IFNAME": "ib0"}
    )
    assert found["GLOO_SOCKET_IFNAME"] == "ib0"


def test_a_worker_finds_what_torchrun_would_tell_it() -> None:
    found = meeting.worker_environment(
        Topology(World(3, 4, 1, 2), 1, 2), Rendezvous("127.0.0.1", 12000, "")
    )
    assert topology(found).world == World(3, 4, 1, 2)
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("127.0.0.1", "12000")
    assert found["GLOO_SOCKET_IFNAME"] == "lo"
    socket.if_nametoindex(found["GLOO_SOCKET_IFNAME"])
