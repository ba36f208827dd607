"""`translate`: a checkpoint and a folder of conditions -> a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from launcher.recipe.building import PRECISIONS
from launcher.recipe.config import ConfigError
from launcher.recipe.errors import memory_errors
from launcher.run import features
from launcher.run.conditions import Conditions
from launcher.run.generator import generator_of, originals_generator
from launcher.text.progress_bar import progress_bar
from shards.pixels.label_ids import read_remap, void_label
from shards.pixels.storing import Storing
from trainers.checkpoints.originals import holds_originals
from trainers.engine.translate import translate_all


def translate(
    checkpoint: Path,
    source: Path,
    out: Path,
    *,
    recipe: str = "",
    split: str,
    layout: str,
    direction: str,
    ema: bool,
    background: str = "",
    remap: str = "",
    looks: str = "",
    seed: int = 0,
    overrides: dict[str, str],
) -> None:
    """A folder of conditions -> a folder of PNGs, by the architecture in the checkpoint.

    looks: what features are chosen from, and `seed` how (launcher/run/features.py). recipe: builds
    the network of the authors' weights, which tell nothing of it. overrides: options that differ
    from those in training, by dotted name."""
    if holds_originals(checkpoint):
        config, gan, direction = originals_generator(checkpoint, recipe, direction, overrides)
        place = checkpoint
    elif recipe:
        raise ConfigError("translate: --recipe belongs to the authors' weights; a run has its own.")
    else:
        config, gan, stored = generator_of(checkpoint, overrides, ema)
        place = stored.path
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    void = void_label("", config.model.needs.num_labels)
    storing = Storing(None, background, read_remap(Path(remap)) if remap else None, void)
    choice = features.choice_of(config, checkpoint, looks, seed) if looks else None
    steered = choice is not None
    conditions = Conditions(config, source, out, split, layout, direction, storing, steered)
    bar, move = progress_bar("translating")
    with bar, memory_errors("translate smaller images, or on another GPU."):
        precision = PRECISIONS[config.precision]
        given = conditions if choice is None else features.Chosen(conditions, choice)
        translate_all(gan.to(device), given, conditions.write, precision, move)
    for (member, words), count in conditions.notes.items():
        print(f"{member}: {count} {words}.")
    print(f"{out}: {len(conditions)} pictures by {place}.")
