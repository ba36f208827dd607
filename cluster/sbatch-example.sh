#!/bin/bash
# city: 2 x 4 processes. Written by `organza submit`; the run is in
# /scratch/me/runs/city
#SBATCH --job-name=city
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --mem=128G
#SBATCH --time=1-00:00:00
#SBATCH --chdir=/home/me/organza
#SBATCH --output=/scratch/me/runs/city/logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue

trap '' USR2  # it would end this shell; the watch looks at the clock as well
set -e  # without its surroundings the command would fail less clearly
source /home/me/organza/.venv/bin/activate

exec python -m cluster.watch /scratch/me/runs/city --requeue \
    --patience=3 --timeout_s=1800 --signal_s=120 -- \
    srun --export=ALL --kill-on-bad-exit=1 --mpi=none --overlap --cpus-per-task=8 \
    python -m launcher join /scratch/me/runs/city
