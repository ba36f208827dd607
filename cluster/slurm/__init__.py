"""SLURM: batch scripts, and what its commands say of a job."""
