"""Less memory for the same gradients: recomputation, and one critic at a time."""
