"""What a training step costs in memory and work, without a GPU."""
