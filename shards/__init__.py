"""Data sets as tar shards: packing, reading, checking. Knows nothing of training."""
