"""A real SLURM of several nodes on this machine, with faults to order.

Each node is a space of its own (network, processes, mounts, host name) with a slurmd; they hang on
a switch, as does this machine, where slurmctld and munged run. Where spaces are refused the cluster
is local: several slurmd at this machine's address, whose network cannot fail. Nothing outlives the
process that made it: children die with it, and interfaces with their space.

Needs: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge iproute2
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import tempfile
from pathlib import Path

from cluster.slurm.queries import field
from tests.cluster.spaces import (
    Space,
    Tied,
    allowed,
    kill_all_with,
    remove_tree_of_groups,
    run,
)
from tests.processes.patience import wait_for

PROGRAMS = ("slurmctld", "slurmd", "munged", "scontrol", "sbatch", "srun", "ip")
FREEZER = Path("/sys/fs/cgroup/freezer")
CONFIGURATION = """\
ClusterName=mini
SlurmctldHost={head}({head_address})
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# Credentials must have expired before a job is requeued: 120 s by default.
AuthInfo=socket={home}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={home}/state
SlurmctldPidFile={home}/slurmctld.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
SlurmdPidFile={home}/%n/slurmd.pid
SlurmdSpoolDir={home}/%n/spool
MailProg=/bin/true
MpiDefault=none
# Only control groups hold what has left its session, as torchrun's workers do.
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout={node_timeout}
KillWait=5
MessageTimeout=5
TCPTimeout=2
PropagateResourceLimits=NONE
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=10
PartitionName=low  Nodes=ALL PriorityTier=1  PreemptMode=REQUEUE GraceTime=3
PartitionName=high Nodes=ALL PriorityTier=20 PreemptMode=OFF
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr={address} Port={port} "
    "CPUs=8 RealMemory=8000 Feature=mini Gres=gpu:2"
)
BOOT = """
hostname {name}
ip link set lo up
mount --bind {home}/hosts /etc/hosts
mount -t tmpfs tmpfs /dev/shm
read -r plugged
ip address add {address}/24 dev eth0
ip link set eth0 up
slurmd -D -N {name} &
read -r unplugged || true  # the end of the file: the test is over
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


class MiniSlurm:
    """`with MiniSlurm(2) as slurm:` two idle nodes, n1 and n2, and SLURM_CONF set to reach them."""

    def __init__(self, num_nodes: int, node_timeout: int = 10, local: bool = False):
        """node_timeout: seconds until SLURM gives up a node that does not answer."""
        self.names = [f"n{i}" for i in range(1, num_nodes + 1)]
        self.node_timeout = node_timeout
        self.spaces = not local and allowed()
        self.home = Path(tempfile.mkdtemp(prefix="minislurm-"))
        # Clusters of other processes on this machine have other networks.
        self.net = f"10.{100 + os.getpid() // 250 % 150}.{os.getpid() % 250}"
        self.port = _free_port()
        self.daemons: dict[str, Tied] = {}
        self.switch: Space | None = None
        self.nodes: dict[str, Tied] = {}
        self.cgroup_lock: socket.socket | None = None
        self.environment = dict(os.environ)

    def __enter__(self) -> MiniSlurm:
        os.environ |= {"PATH": _path(), "SLURM_CONF": f"{self.home}/slurm.conf"}
        try:
            self._configure()
            self._start("munged", *self._munged())
            wait_for((self.home / "munge.socket").exists, "munged")
            if self.spaces:
                self._connect()
            self._start("slurmctld", "slurmctld", "-D", "-i")
            for name in self.names:
                self.boot(name)
            wait_for(lambda: set(map(self.state, self.names)) == {"IDLE"}, "idle nodes")
        except BaseException as error:
            error.add_note(self.logs())
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for name in list(self.nodes):
            self.crash(name)
        for daemon in reversed(self.daemons.values()):
            daemon.kill()
        if self.switch:
            self.switch.kill()
        if not self.spaces:  # a job's processes are no children of its slurmd
            kill_all_with(f"SLURM_CONF={self.home}/slurm.conf")
        if self.cgroup_lock:
            for name in self.names:
                remove_tree_of_groups(FREEZER / f"slurm_{name}")
            self.cgroup_lock.close()
        for name in ("PATH", "SLURM_CONF"):
            os.environ.pop(name)
        os.environ |= self.environment
        shutil.rmtree(self.home)

    def boot(self, name: str) -> None:
        """Start a node that is not running."""
        (self.home / name / "spool").mkdir(parents=True, exist_ok=True)
        log = self.home / f"node-{name}.log"
        if not self.spaces:
            self.nodes[name] = Tied("slurmd", "-D", "-N", name, log=log)
            return
        address = f"{self.net}.{self.names.index(name) + 1}"
        node = Space(BOOT.format(name=name, home=self.home, address=address), log)
        self.switch.plug(name, node, "eth0")
        self.switch.run("ip", "link", "set", name, "master", "switch", "up")
        node.say("plugged")
        self.nodes[name] = node

    def crash(self, name: str) -> None:
        """All of the node's processes end at once, as if its power had."""
        self.nodes.pop(name).kill()

    def cut(self, name: str) -> None:
        """Pull the node's network cable."""
        self.switch.run("ip", "link", "set", name, "down")

    def heal(self, name: str) -> None:
        self.switch.run("ip", "link", "set", name, "up")

    def kill_slurmd(self, name: str) -> None:
        """The node's daemon alone dies; its jobs go on."""
        self.execute(name, "kill", "-KILL", (self.home / name / "slurmd.pid").read_text().strip())

    def start_slurmd(self, name: str) -> None:
        if self.spaces:
            self.execute(name, "setsid", "slurmd", "-N", name)
        else:
            self.boot(name)

    def execute(self, name: str, *command: str, check: bool = True) -> str:
        """Run a command on a node; what it prints."""
        node = self.nodes[name]
        return node.run(*command, check=check) if isinstance(node, Space) else run(*command)

    def state(self, name: str) -> str:
        """IDLE, ALLOCATED, MIXED, DOWN ... with SLURM's marks, as IDLE* for one that is silent."""
        return field(run("scontrol", "show", "node", "-o", name, check=False), "State")

    def logs(self) -> str:
        """The last lines of every daemon's log."""
        logs = {path.name: path.read_text().splitlines() for path in self.home.glob("*.log")}
        return "\n".join(f"{name}: {line}" for name in logs for line in logs[name][-8:])

    def _start(self, name: str, *command: str) -> None:
        self.daemons[name] = Tied(*command, log=self.home / f"{name}.log")

    def _munged(self) -> list[str]:
        places = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}
        files = [f"--{option}={self.home}/munge.{end}" for option, end in places.items()]
        return ["munged", "--foreground", "--force", f"--log-file={self.home}/munge.log", *files]

    def _connect(self) -> None:
        """The switch, and this machine's cable to it."""
        script = "ip link add switch type bridge; ip link set switch up; read -r over || true"
        self.switch = Space(script, self.home / "switch.log")
        wait_for(lambda: "switch" in self.switch.run("ip", "link"), "switch")
        plug = f"mini{os.getpid()}"
        self.switch.plug("head", None, plug)
        self.switch.run("ip", "link", "set", "head", "master", "switch", "up")
        run("ip", "address", "add", f"{self.net}.254/24", "dev", plug)
        run("ip", "link", "set", plug, "up")

    def _configure(self) -> None:
        """slurm.conf and what it refers to."""
        self.home.chmod(0o755)
        (self.home / "state").mkdir()
        (self.home / "munge.key").write_bytes(os.urandom(128))
        (self.home / "munge.key").chmod(0o400)
        head = socket.gethostname().partition(".")[0]
        head_address = f"{self.net}.254" if self.spaces else _own_address()
        hosts, nodes = [f"127.0.0.1 localhost\n{head_address} {head}"], []
        for i, name in enumerate(self.names, 1):
            address, host = (f"{self.net}.{i}", name) if self.spaces else (head_address, head)
            hosts.append(f"{address} {name}")
            nodes.append(NODE.format(name=name, host=host, address=address, port=_free_port()))
        proctrack = "cgroup" if self.spaces and self._take_cgroups() else "linuxproc"
        conf = CONFIGURATION.format(
            head=head,
            head_address=head_address,
            port=self.port,
            user=getpass.getuser(),
            home=self.home,
            proctrack=proctrack,
            node_timeout=self.node_timeout,
            nodes="\n".join(nodes),
        )
        files = {
            "hosts": "\n".join(hosts) + "\n",
            "slurm.conf": conf,
            "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n",
            "gres.conf": f"Name=gpu File={self._gpus()}\n",
        }
        for name, text in files.items():
            (self.home / name).write_text(text)

    def _gpus(self) -> str:
        """Two GPUs a node that are only device files: enough for CUDA_VISIBLE_DEVICES."""
        if os.geteuid() != 0:
            return "/dev/tty[0-1]"
        for i in range(2):
            run("mknod", f"{self.home}/gpu{i}", "c", "1", "3")
        return f"{self.home}/gpu[0-1]"

    def _take_cgroups(self) -> bool:
        """Two clusters would collide in the kernel's one tree of groups: whoever has the name of
        this socket, of which no file remains, goes there."""
        if not os.access(FREEZER, os.W_OK):
            return False
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind("\0minislurm")
        except OSError:
            lock.close()
            return False
        self.cgroup_lock = lock
        return True


def _path() -> str:
    """Debian keeps the daemons where only root looks."""
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _own_address() -> str:
    """This machine's address towards others, if it has any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]
