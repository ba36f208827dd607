"""Who wraps, synchronises and steps: one process, DDP, or DeepSpeed."""
