"""`doctor`: everything that can be known to fail before it does, each with its remedy."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from cluster.errors import ClusterError
from cluster.slurm import queries
from cluster.start import rendezvous
from cluster.start.preflight import preflight
from cluster.start.token import token_of
from cluster.start.topology import topology
from cluster.watch import claim
from launcher.doctor.data_checks import cache, data
from launcher.doctor.file_systems import OF_A_NODE, file_system
from launcher.doctor.finding import Finding
from launcher.recipe.config import Config, ConfigError, load
from launcher.run import run_folder
from launcher.slurm.fingerprints import facts
from launcher.text.sentences import sentence
from launcher.text.tables import table
from shards.records import DataError

SKEW = 5.0
"""Seconds by which a clock may differ: heartbeats are a minute's matter."""
SLURM_COMMANDS = ("sbatch", "srun", "scontrol", "scancel")


def doctor(recipe: str, overrides: Mapping[str, str]) -> int:
    """Print the table; 1 if anything is wrong. Of several tasks under srun, rank 0 prints all,
    the others what is wrong on their node."""
    config = load(recipe, overrides)
    where = topology()
    findings = [finding for check in CHECKS for finding in looked_at(check, config)]
    findings += looked_at(peers, config)
    wrong = [finding for finding in findings if finding.remedy]
    told = findings if where.world.rank == 0 else wrong
    if told:
        rows = [["WRONG" if f.remedy else "ok", f.what, f.found] for f in told]
        host = os.environ.get("SLURMD_NODENAME", os.uname().nodename)
        print(table([host, "what", "found"], rows))
        for finding in wrong:
            print(sentence(f"{finding.what}: {finding.remedy}"))
    return 1 if wrong else 0


def looked_at(check: Callable[[Config], Iterator[Finding]], config: Config) -> list[Finding]:
    """A check's findings; a sentence for the user that it ends with is one too."""
    findings = []
    try:
        for finding in check(config):
            findings.append(finding)
    except (ConfigError, ClusterError, DataError, OSError) as error:
        findings.append(Finding(check.__name__, "does not work", str(error)))
    return findings


def versions(config: Config) -> Iterator[Finding]:
    found = run_folder.versions()
    absent = [name for name, version in found.items() if version == "absent"]
    if config.backend.kind != "deepspeed" and "deepspeed" in absent:
        absent.remove("deepspeed")  # an option, not a need
    remedy = f"install {', '.join(absent)} into {sys.prefix}" if absent else ""
    yield Finding("versions", ", ".join(f"{n} {v}" for n, v in found.items()), remedy)
    code = facts()["code"]
    yield Finding("code", f"{Path(__file__).parents[2]} ({code})")


def gpus(config: Config) -> Iterator[Finding]:
    number = torch.cuda.device_count()
    names = {torch.cuda.get_device_name(i) for i in range(number)}
    hidden = not number and Path("/dev/nvidia0").exists()
    yield Finding(
        "GPUs",
        f"{number} visible {', '.join(sorted(names))}".strip(),
        f"there is /dev/nvidia0, but torch {torch.__version__} sees no GPU: install a CUDA build "
        "that fits the driver, or ask SLURM for --gpus"
        if hidden
        else "",
    )


def run_dir(config: Config) -> Iterator[Finding]:
    """Writable, with locks, and with a clock that agrees with this machine's."""
    folder = config.run_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        claim.locked(file.fileno(), folder)
        file.write(b"x")
        file.flush()
        ahead = os.fstat(file.fileno()).st_mtime - time.time()
    free = shutil.disk_usage(folder).free
    kind = file_system(folder)
    apart = kind in OF_A_NODE and topology().num_nodes > 1
    yield Finding(
        "run_dir",
        f"{folder} is writable, {free / 2**30:.1f} GiB free, on {kind}",
        f"choose a run_dir that all nodes share: each has a {kind} of its own" if apart else "",
    )
    skewed = abs(ahead) > SKEW
    yield Finding(
        "clock",
        f"{folder}'s is {ahead:+.1f} s from this machine's",
        "synchronise both with NTP" if skewed else "",
    )


def scheduler(config: Config) -> Iterator[Finding]:
    """SLURM is no must: without any of it this is one machine."""
    missing = [name for name in SLURM_COMMANDS if shutil.which(name) is None]
    if len(missing) == len(SLURM_COMMANDS):
        yield Finding("SLURM", "not on this machine: `submit` works on login nodes only")
        return
    remedy = f"install {', '.join(missing)} (package slurm-client)" if missing else ""
    yield Finding("SLURM", f"{len(SLURM_COMMANDS) - len(missing)} of its commands", remedy)
    if not missing:
        queries.status("1")  # any answer will do
        yield Finding("controller", "answers")


def peers(config: Config) -> Iterator[Finding]:
    """All tasks of this srun reach rank 0 and are the same program. Last: whoever is late for it
    would be missed."""
    where = topology()
    if where.world.size == 1:
        return
    own = facts()
    reports = preflight(where.world, rendezvous.rendezvous(where), own, token_of(config.run_dir))
    hosts = list(dict.fromkeys(report.host for report in reports))
    skew = max((report.clock for report in reports), key=abs)
    yield Finding("peers", f"{len(reports)} ranks on {', '.join(hosts)} reach rank 0")
    yield Finding(
        "clocks",
        f"up to {skew:+.1f} s from rank 0's",
        "synchronise the nodes with NTP" if abs(skew) > SKEW else "",
    )


CHECKS = (versions, gpus, run_dir, data, cache, scheduler)
