"""What a run leaves to go on from, and weights of other programs."""
