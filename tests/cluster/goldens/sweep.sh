#!/bin/bash
# city: 1 x 1 processes. Written by `organza submit`; the run is in
# /scratch/runs/city
#SBATCH --job-name=city
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --array=0-5%2
#SBATCH --chdir=/home/me/organza
#SBATCH --output=/scratch/runs/city/logs/job-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --no-requeue

trap '' USR2  # it would end this shell; the watch looks at the clock as well

exec python -m cluster.watch /scratch/runs/city \
    --patience=3 --timeout_s=1800 --signal_s=120 -- \
    srun --export=ALL --kill-on-bad-exit=1 --mpi=none --overlap \
    apptainer exec --nv /images/organza.sif \
    python -m launcher join /scratch/runs/city
