"""Connected components of a class map, without SciPy: runs, joined by union-find.

A row of equal pixels is one run. Runs that touch across two rows and share a class are joined,
and each set of joined runs is one component (4-connectivity).
"""

from __future__ import annotations

import numpy as np


def components(classes: np.ndarray) -> np.ndarray:
    """Number the connected areas of `classes` (H, W); class 0 is background and stays 0.

    Returns int32 ids (H, W): 1 is the largest area, 2 the next; equal sizes in reading order.
    """
    runs, first_pixels = _runs(classes)
    joined = _join(len(first_pixels), _touching(classes, runs, first_pixels))
    foreground = classes.reshape(-1)[first_pixels] != 0
    sizes = np.bincount(joined[runs.reshape(-1)], minlength=len(joined))
    roots = np.flatnonzero((joined == np.arange(len(joined))) & foreground)
    by_size = roots[np.argsort(-sizes[roots], kind="stable")]
    ids = np.zeros(len(joined), np.int32)
    ids[by_size] = np.arange(1, len(by_size) + 1)
    return ids[joined][runs]


def _runs(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The run of every pixel (H, W), numbered in reading order, and each run's first pixel."""
    starts = np.ones(classes.shape, bool)
    starts[:, 1:] = classes[:, 1:] != classes[:, :-1]
    runs = np.cumsum(starts.reshape(-1), dtype=np.int32).reshape(classes.shape) - 1
    return runs, np.flatnonzero(starts)


def _touching(
    classes: np.ndarray, runs: np.ndarray, first_pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (upper run, lower run) of one class that share an edge, each pair at least once."""
    width = classes.shape[1]
    # Two runs overlap where the later of them begins: looking there alone finds every pair.
    lower = np.concatenate([first_pixels, first_pixels + width])
    lower = lower[(lower >= width) & (lower < classes.size)]
    flat = classes.reshape(-1)
    lower = lower[flat[lower] == flat[lower - width]]
    return runs.reshape(-1)[lower - width], runs.reshape(-1)[lower]


def _join(num_runs: int, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The smallest run number of each run's component: hook the larger root, then flatten."""
    parent = np.arange(num_runs)
    upper, lower = pairs
    while True:
        a, b = parent[upper], parent[lower]
        apart = a != b
        if not apart.any():
            return parent
        upper, lower, a, b = upper[apart], lower[apart], a[apart], b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
