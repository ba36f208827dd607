"""What networks are built from: blocks, norms, conditions, initialisation."""
