"""Many processes on many machines: their places, how they start together, who starts them again."""
