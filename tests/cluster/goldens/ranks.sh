#!/bin/bash
# city: 2 x 2 processes. Written by `organza submit`; the run is in
# /scratch/runs/city
#SBATCH --job-name=city
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=2
#SBATCH --gpus-per-node=2
#SBATCH --mem=6G
#SBATCH --time=1-12:00:00
#SBATCH --partition=main
#SBATCH --account=vision
#SBATCH --qos=normal
#SBATCH --constraint=mini&mini
#SBATCH --dependency=afterok:17
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-user=me@site.org
#SBATCH --mail-type=END,FAIL,REQUEUE
#SBATCH --chdir=/home/me/organza
#SBATCH --output=/scratch/runs/city/logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@300
#SBATCH --requeue

trap '' USR2  # it would end this shell; the watch looks at the clock as well
set -e  # without its surroundings the command would fail less clearly
module load cuda/12.4 gcc/12
source '/home/me/my venv/bin/activate'
export NCCL_DEBUG=INFO
export GREETING='it'"'"'s $5, "really"'
export NCCL_IB_HCA=mlx5_0,mlx5_1

exec python -m cluster.watch /scratch/runs/city --requeue \
    --patience=3 --timeout_s=1800 --signal_s=300 -- \
    srun --export=ALL --kill-on-bad-exit=1 --mpi=none --overlap --cpus-per-task=2 \
    python -m launcher join /scratch/runs/city
