"""From packed sets to batches: order, draws, workers, and the cache of a node."""
