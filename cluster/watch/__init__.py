"""Who starts the ranks of a run, listens to them, and decides what follows from their end."""
