"""Whether the pictures of a data set suit the networks, in size and kind, before any is read."""

from __future__ import annotations

from launcher.recipe.config import Config, ConfigError
from shards.pixels.augment import Preprocess
from shards.read.sources import Source
from shards.records import decoded_members, size_text
from shards.sets.shard_set import ShardSet
from trainers.settings import Needs


def check_data(config: Config, sources: tuple[Source, ...], micro_batch: int) -> None:
    """What the manifests tell about the whole data, before the first sample is read."""
    needs, preprocess = config.model.needs, preprocess_of(config)
    for shards in (source.shard_set for source in sources):
        layout = "images" if needs.layout == "unpaired" else needs.layout
        shards.require(
            layout, num_labels=needs.num_labels, inst=needs.inst, features=needs.features
        )
        check_least(shards.require_sizes(preprocess, micro_batch), needs, shards.store)
        for width, height, _ in shards.sizes:
            check_multiple(preprocess.output_size(width, height), needs.multiple, shards.store)
            check_side(preprocess.output_size(width, height), needs, shards.store)
        if needs.samples:
            check_colours(needs, shards)
    for source in sources:
        members = decoded_members(source.shard_set.members)
        source.shard_set.require_channels({m: source.channels_of(m) for m in members})
    if needs.one_size:
        check_one_size(config, sources)


def check_micro_batch(images: int, needs: Needs) -> None:
    """Refuse micro-batches whose images cannot be compared with each other."""
    if images < needs.min_batch:
        raise ConfigError(
            f"A process handles {images} images at a time, but this GAN compares "
            f"{needs.min_batch} or more: raise batch.total or batch.micro."
        )
    if images > needs.batch_groups and images % needs.batch_groups:
        raise ConfigError(
            f"A process handles {images} images at a time, which cannot be divided into groups of "
            f"model.group_size={needs.batch_groups}: choose another batch.total or batch.micro."
        )


def check_one_size(config: Config, sources: tuple[Source, ...]) -> None:
    """Refuse pictures between which there is no picture in the middle."""
    preprocess = preprocess_of(config)
    sizes = {preprocess.output_size(w, h) for s in sources for w, h, _ in s.shard_set.sizes}
    if len(sizes) > 1:
        examples = ", ".join(map(size_text, sorted(sizes)[:3]))
        raise ConfigError(
            f"{config.data.shards} has images of {len(sizes)} sizes after data.preprocess "
            f"({examples}), but the gradient penalty of model.gan_loss=wgangp mixes real and "
            "generated ones: choose a data.preprocess.mode that crops, or model.lambda_gp=0."
        )


def check_least(size: tuple[int, int], needs: Needs, where: object) -> None:
    """Refuse pictures that a network would halve to nothing."""
    if min(size) < needs.min_side:
        raise ConfigError(
            f"{where} has images of {size[0]}x{size[1]} after data.preprocess, but these "
            f"networks need sides of {needs.min_side} pixels or more: use larger images, or "
            "networks that halve them less often (model.*num_downsamples, "
            "model.*num_layers, model.num_enhancers)."
        )


def check_multiple(size: tuple[int, int], multiple: int, where: object) -> None:
    """Refuse sides that a network cannot halve as often as it does."""
    if not fits(*size, multiple):
        width, height = (max(1, round(side / multiple)) * multiple for side in size)
        raise ConfigError(
            f"{where} has images of {size[0]}x{size[1]} after data.preprocess, but this generator "
            f"takes sides that are multiples of {multiple}, {width}x{height} for example: choose "
            "such a data.preprocess.crop_size or load_size, fewer "
            "model.generator.num_downsamples, or model.generator.pad=true."
        )


def check_side(size: tuple[int, int], needs: Needs, where: object) -> None:
    """Refuse pictures of another size than networks make."""
    if needs.side is not None and size != (needs.side, needs.side):
        raise ConfigError(
            f"{where} has images of {size_text(size)} after data.preprocess, but these networks "
            f"make images of model.side={needs.side}: choose "
            f"--data.preprocess.mode=resize_and_crop with load_size and crop_size of {needs.side}, "
            "or another model.side."
        )


def check_colours(needs: Needs, shards: ShardSet) -> None:
    """Refuse grey pictures for networks that would learn to make colours."""
    for member, channels in needs.channels.items():
        kinds = shards.manifest.conversions.get(shards.members[0], {})
        grey = sum(count for kind, count in kinds.items() if "grey" in kind)
        if channels == 3 and grey == shards.num_samples:
            raise ConfigError(
                f"{shards.store} holds grey pictures alone, but these networks make RGB ones of "
                f"{member}: choose --model.channels=1."
            )


def fits(width: int, height: int, multiple: int) -> bool:
    """Whether both sides are multiples."""
    return width % multiple == 0 and height % multiple == 0


def preprocess_of(config: Config) -> Preprocess:
    return Preprocess(**config.data.preprocess.model_dump())
