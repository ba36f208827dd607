"""Jobs whose batch scripts are kept in goldens/; a real SLURM of two nodes accepts them all.

After an intended change: python -m tests.cluster.jobs"""

from __future__ import annotations

from pathlib import Path

from cluster.slurm.sbatch import Job, job, render

GOLDENS = Path(__file__).parent / "goldens"
RUN = {"run_dir": "/scratch/runs/city", "work_dir": "/home/me/organza", "name": "city"}
JOBS = {
    "least": {},
    "ranks": {
        "nodes": "2",
        "gpus": "2",
        "cpus": "2",
        "mem": "6G",
        "time": "1-12:00:00",
        "partition": "main",
        "account": "vision",
        "qos": "normal",
        "constraint": "mini&mini",
        "mail": "me@site.org",
        "after": "17",
        "signal_s": "300",
        "requeue": "yes",
        "modules": "cuda/12.4,gcc/12",
        "venv": "/home/me/my venv",
        "env": 'NCCL_DEBUG=INFO,GREETING=it\'s $5, "really",NCCL_IB_HCA=mlx5_0,mlx5_1',
    },
    "torchrun": {
        "nodes": "2",
        "gpus": "2",
        "cpus": "1",
        "launch": "torchrun",
        "conda": "organza",
    },
    "sweep": {"gpus": "1", "array": "0-5%2", "container": "/images/organza.sif"},
    "processors": {"nodes": "2", "ranks": "2", "launch": "deepspeed", "time": "30"},
}


def golden(name: str) -> Job:
    return job(JOBS[name], **RUN)


if __name__ == "__main__":
    for name in JOBS:
        (GOLDENS / f"{name}.sh").write_text(render(golden(name)))
