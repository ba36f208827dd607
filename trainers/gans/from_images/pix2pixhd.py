"""pix2pixHD: label maps or images -> photographs up to 2048x1024, in two stages.

Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs,
CVPR 2018 (arXiv:1711.11585). Stage "coarse" trains the global generator, stage "full" continues
from its checkpoint with local enhancers around it:

    min_G sum_k [ gan(D_k(s, G(s))) + lambda_feat * FM_k ] + lambda_vgg * VGG(G(s), x)      (eq. 5)
    min_D sum_k   0.5 * [ gan_real(D_k(s, x)) + gan_fake(D_k(s, G(s))) ]

Batches as they come from the stream: label uint8 [N, 1, H, W], inst int32 [N, 1, H, W] and image
uint8 [N, 3, H, W]; for an RGB condition a and b, both uint8 [N, 3, H, W].
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from nets.discriminators.patch import MultiscaleDiscriminator
from nets.generators.encoders import Encoder
from nets.generators.pix2pixhd import LocalEnhancer, ResnetGenerator
from nets.layers import conditioning
from nets.layers.init import init_normal
from nets.losses import perceptual
from nets.memory.remat import PRESETS
from nets.memory.waist import Ahead, Terms, narrow_waist
from trainers.gan import GAN, Batch, Phase
from trainers.parts.image_pool import ImagePool
from trainers.parts.networks import at_test
from trainers.parts.pix2pixhd_judges import Judges
from trainers.parts.pix2pixhd_options import Pix2PixHDOptions as Config
from trainers.parts.pretrained import read_weights, weights_matter
from trainers.settings import in_images

__all__ = ["Config", "Model", "Pix2PixHD"]


class Pix2PixHD(GAN):
    """`training=False` builds what translation needs: neither D nor the perceptual network."""

    independent_phases: ClassVar[bool] = True  # D judges the image that G made before its step

    def __init__(self, config: Config, training: bool = True):
        super().__init__()
        self.config = config
        self.preset = PRESETS[config.memory]  # "auto" is settled before
        self.vgg = self._load_vgg() if training and config.lambda_vgg else None
        condition = config.num_labels + config.edges if config.condition == "label" else 3
        generator = self._generator(condition)
        self.nets = nn.ModuleDict({"G": generator})
        self.stride = generator.stride
        if config.encoder:
            encoder = Encoder(
                3,
                config.feat_channels,
                config.encoder_ngf,
                config.num_encoder_downsamples,
                config.norm,
            )
            self.nets["E"] = encoder
            self.stride = max(self.stride, encoder.stride)
            self.ema = ("G", "E")  # translation pairs the two: both or neither are averaged
        if training:
            discriminator = MultiscaleDiscriminator(
                condition + 3, config.ndf, config.num_layers, config.num_scales, config.norm
            )
            self.nets["D"] = discriminator
            recompute = (self.preset.slices, self.preset.strips)
            self.judges = Judges(config, discriminator, self.vgg, *recompute, self.total)
        init_normal(self.nets)
        self.weights = self._weights()
        self.pool = ImagePool(config.pool_size, "fake")
        self.num_gathered = config.pool_size

    def _generator(self, channels: int) -> ResnetGenerator | LocalEnhancer:
        config = self.config
        channels += config.feat_channels if config.steered else 0
        trunk = (channels, 3, config.ngf, config.num_downsamples, config.num_blocks)
        recompute = self.preset.generator
        if config.stage == "coarse":
            return ResnetGenerator(*trunk, norm=config.norm, rematerialise=recompute, biased=True)
        local = (config.num_enhancers, config.num_local_blocks)
        return LocalEnhancer(*trunk, *local, rematerialise=recompute, norm=config.norm)

    def _load_vgg(self) -> perceptual.Vgg:
        config = self.config
        if not weights_matter():
            return perceptual.Vgg(config.vgg, config.vgg_normalize)
        if config.vgg_weights is None:
            raise ValueError(
                f"model.lambda_vgg is {config.lambda_vgg:g}, but there are no weights: set "
                f"model.vgg_weights to a file of {config.vgg} weights, or model.lambda_vgg to 0"
            )
        try:
            weights = read_weights(config.vgg_weights)
            return perceptual.vgg_from(config.vgg, weights, config.vgg_normalize)
        except ValueError as error:
            raise ValueError(f"model.vgg_weights={config.vgg_weights} {error}") from error

    def _weights(self) -> dict[str, float]:
        weights = {"G/gan": 1.0}
        if self.config.lambda_feat:
            weights["G/feat"] = self.config.lambda_feat
        if self.config.lambda_vgg:
            weights["G/vgg"] = self.config.lambda_vgg
        return weights | {"D/real": 0.5, "D/fake": 0.5}

    def phases(self, images: int) -> tuple[Phase, ...]:
        fixed = images < in_images(self.config.fix_global)
        generator = ("G.enhancers" if fixed else "G", *(["E"] if self.config.encoder else []))
        return Phase("G", generator), Phase("D", ("D",))

    def prepare(self, batch: Batch) -> Batch:
        """-> condition [N, C, H, W] for G and D, image [N, 3, H, W] if there is one, features
        [N, feat_channels, H, W] where they were read or chosen, and the label and instance ids as
        they came. Floats are in the dtype that convolutions use."""
        dtype = conditioning.compute_dtype(next(self.nets["G"].parameters()))
        prepared: Batch = {name: batch[name] for name in ("label", "inst") if name in batch}
        if self.config.condition == "label":
            edges = conditioning.instance_edges(batch["inst"]) if self.config.edges else None
            prepared["condition"] = self._labels(batch["label"], edges, dtype)
        else:
            prepared["condition"] = conditioning.normalise(batch["a"], dtype)
        image = "image" if self.config.condition == "label" else "b"
        if image in batch:
            prepared["image"] = conditioning.normalise(batch[image], dtype)
        if "feat" in batch:
            prepared["features"] = conditioning.normalise(batch["feat"], dtype)
        elif "features" in batch:
            prepared["features"] = batch["features"].to(dtype)
        return prepared

    def _labels(self, label: Tensor, edges: Tensor | None, dtype: torch.dtype) -> Tensor:
        return conditioning.one_hot(label, self.config.num_labels, dtype, edges)

    def needs_batch(self, phase: str, carry: Batch) -> bool:
        return "ahead" not in carry

    def losses(self, phase: str, batch: Batch, carry: Batch) -> tuple[Tensor, Terms, Batch]:
        if phase == "D":
            if "ahead" in carry:
                return carry["ahead"].total(), carry["ahead"].terms, {}
            terms = self._discriminator_terms(batch, carry["fake"])
            return self.total(terms), terms, {}
        fake = self._generate(batch)
        out: Batch = {"fake": fake.detach()}
        if self._judged_once(fake):
            out["ahead"] = Ahead()
        critics = self.judges.critics(batch["condition"], batch["image"], out.get("ahead"))
        return *narrow_waist(fake, critics), out

    def _judged_once(self, fake: Tensor) -> bool:
        """Whether D's own losses come from the same passes as G's: it has the same weights in both
        phases, and judges the same images. Not in float16, where each phase has a scale of its
        own for its gradients."""
        graph = fake.requires_grad and torch.is_grad_enabled()
        return graph and fake.dtype != torch.float16 and not self.pool.size

    def _discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        condition, image = batch["condition"], batch["image"]
        if not self.pool.size:
            return self.judges.discriminator_terms(condition, image, fake)
        of_fake, earlier = self._from_record(self.pool.query(self._record(batch, fake)), fake.dtype)
        return self.judges.discriminator_terms(condition, image, earlier, of_fake)

    def _record(self, batch: Batch, fake: Tensor) -> Tensor:
        """What the pool keeps of a generated image and its condition, in few channels: label ids in
        place of their one-hot planes. All numbers are exact in any dtype of `fake`."""
        parts = [batch["condition"], fake]
        if self.config.condition == "label":
            edges = batch["condition"][:, self.config.num_labels :]
            parts = [batch["label"].to(fake.dtype), edges, fake]
        return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)

    def _from_record(self, record: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(condition, generated image) of what `_record` has made."""
        condition, fake = record[:, :-3], record[:, -3:]
        if self.config.condition == "label":
            edges = condition[:, 1:] if self.config.edges else None
            condition = self._labels(condition[:, :1].to(torch.uint8), edges, dtype)
        return condition, fake

    def _generate(self, batch: Batch) -> Tensor:
        """G on the condition padded to the stride, cropped back to [N, 3, H, W]."""
        condition = batch["condition"]
        height, width = condition.shape[-2:]
        if self.config.steered:
            condition = torch.cat([condition, self._features(batch)], dim=1)
        fake = self.nets["G"](conditioning.pad_to_multiple(condition, self.stride))
        return fake[..., :height, :width]

    def _features(self, batch: Batch) -> Tensor:
        """Features that were read or chosen, or those of the image; without one, 0, the middle of
        their range."""
        condition = batch["condition"]
        if "features" in batch:
            return batch["features"]
        if "image" not in batch or not self.config.encoder:
            count, _, height, width = condition.shape
            return condition.new_zeros(count, self.config.feat_channels, height, width)
        return self.encode(batch).to(condition.dtype)

    def encode(self, batch: Batch) -> Tensor:
        """Prepared batch with an image -> its features [N, feat_channels, H, W], one look for each
        instance, or for each label."""
        image = conditioning.pad_to_multiple(batch["image"], self.stride)
        groups = "inst" if self.config.features_of == "instances" else "label"
        return self.nets["E"](image, batch[groups])

    def static_parts(self) -> list[nn.Module]:
        """All but the sorting of instances, and what takes D's scales and VGG's slices apart."""
        parts = [self.nets["G"]]
        if self.config.encoder:
            encoder = cast(Encoder, self.nets["E"])
            parts += [encoder.trunk, encoder.head]
        scales = cast(MultiscaleDiscriminator, self.nets["D"]).scales
        return [*parts, scales, *([self.vgg.slices] if self.vgg else [])]

    @torch.no_grad()
    def translate(self, batch: Batch) -> Tensor:
        with at_test(self.nets, False, self.config.test_statistics == "batch"):
            return self._generate(batch)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        pictures = {"condition": self._condition_picture(batch)}
        pictures["fake"] = conditioning.denormalise(self.translate(batch))
        if "image" in batch:
            pictures["real"] = conditioning.denormalise(batch["image"])
        return pictures

    def _condition_picture(self, batch: Batch) -> Tensor:
        if self.config.condition == "rgb":
            return conditioning.denormalise(batch["condition"])
        colours = conditioning.label_colours(batch["label"], self.config.num_labels)
        if not self.config.edges:
            return colours
        return colours.masked_fill(conditioning.instance_edges(batch["inst"]), 255)

    def own_state(self) -> dict[str, Tensor]:
        if not self.pool.size:
            return {}
        return {f"fake/{key}": tensor for key, tensor in self.pool.state().items()}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        if state:  # of a run that kept none, there is nothing
            self.pool.load({key.removeprefix("fake/"): tensor for key, tensor in state.items()})

    def outgrown(self, name: str, given: Collection[str]) -> bool:
        """From coarse to full, and from few enhancers to more: the new ones take the place of the
        output layer before."""
        if self.config.stage == "coarse":
            return False
        fewer = self.last_level not in {level_of(other) for other in given}
        return name.startswith(("G.head.", "G.enhancers.head.") if fewer else "G.head.")

    def may_be_new(self, name: str, given: Collection[str]) -> bool:
        """Enhancers with the output layer after them, and scales of D, may be missing, as a whole
        only."""
        groups = [f"G.enhancers.levels.{i}." for i in range(self.config.num_enhancers)]
        groups += ["G.enhancers.head.", *(f"D.scales.{i}." for i in range(self.config.num_scales))]
        return any(
            name.startswith(group) and not any(other.startswith(group) for other in given)
            for group in groups
        )

    @property
    def last_level(self) -> str:
        """The enhancer for full size."""
        return f"G.enhancers.levels.{self.config.num_enhancers - 1}"


def level_of(name: str) -> str:
    """G.enhancers.levels.NUMBER of one of its weights, and something else of any other."""
    return ".".join(name.split(".")[:4])


Model = Pix2PixHD
