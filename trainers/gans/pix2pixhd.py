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
from contextlib import nullcontext
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nets.discriminators.patch import MultiscaleDiscriminator, PatchDiscriminator
from nets.generators.encoders import Encoder
from nets.generators.pix2pixhd import LocalEnhancer, ResnetGenerator
from nets.layers import conditioning
from nets.layers.blocks import downsample
from nets.layers.init import init_normal
from nets.losses import losses, perceptual
from nets.memory.remat import PRESETS, Memory
from nets.memory.waist import Ahead, Critic, Terms, narrow_waist, unfrozen
from trainers.gan import GAN, Batch, Phase
from trainers.parts.pretrained import read_weights, weights_matter
from trainers.settings import GANSettings, Needs, Span, UserPath, in_images


class Config(GANSettings):
    """Options under `model`. Defaults are the paper's; stage "full" uses ngf 32, num_scales 3."""

    stage: Literal["coarse", "full"] = "coarse"
    """coarse: global generator alone; full: with local enhancers, started from a coarse run."""
    condition: Literal["label", "rgb"] = "label"
    """What is translated: label maps or RGB images."""
    num_labels: int = Field(35, ge=2, le=256)
    """Number of label ids; ids run from 0 to num_labels - 1."""
    edges: bool = True
    """Give the edges between instances to G and D as one more channel."""
    encoder: bool = False
    """Learn instance-wise features of the image that steer an object's look."""
    feat_channels: int = Field(3, ge=1)
    """Number of channels of these features."""
    encoder_ngf: int = Field(16, ge=1)
    """Width of the encoder at full size."""
    num_encoder_downsamples: int = Field(4, ge=1, le=8)
    """Number of times that the encoder halves the image."""
    ngf: int = Field(64, ge=1)
    """Width of the generator at the full size of this stage."""
    num_downsamples: int = Field(4, ge=1, le=8)
    """Number of times that the global generator halves its input."""
    num_blocks: int = Field(9, ge=1)
    """Number of residual blocks of the global generator."""
    num_enhancers: int = Field(1, ge=1, le=4)
    """Number of local enhancers (stage full); each doubles the size."""
    num_local_blocks: int = Field(3, ge=1)
    """Number of residual blocks of each local enhancer (stage full)."""
    ndf: int = Field(64, ge=1)
    """Width of the discriminators' first layer."""
    num_scales: int = Field(2, ge=1, le=6)
    """Number of discriminators, each on half the size of the one before."""
    num_layers: int = Field(3, ge=1, le=6)
    """Number of normalised layers of each discriminator."""
    gan_loss: losses.GanLoss = "lsgan"
    """Adversarial loss: lsgan, bce (cross-entropy with logits) or hinge."""
    lambda_feat: float = Field(10.0, ge=0)
    """Weight of feature matching; 0 leaves it out."""
    lambda_vgg: float = Field(10.0, ge=0)
    """Weight of the perceptual loss; 0 leaves it out."""
    vgg: perceptual.VggName = "vgg19"
    """Network of the perceptual loss."""
    vgg_weights: UserPath | None = None
    """File with its ImageNet weights: safetensors, or torchvision's .pth."""
    vgg_normalize: bool = False
    """Give it images with ImageNet's mean and deviation (the original does not)."""
    fix_global: Span = 0
    """Images (or "10 epochs") for which stage full trains the enhancers alone."""
    memory: Literal[Memory, "auto"] = "none"
    """Recomputation for memory, the same gradients: from fastest to smallest; auto: the fastest
    that fits."""

    @property
    def needs(self) -> Needs:
        """What the data set must hold."""
        # Padded to the stride, an image must leave the innermost residual blocks two pixels.
        halvings = self.num_downsamples + (self.num_enhancers if self.stage == "full" else 0)
        if self.encoder:
            halvings = max(halvings, self.num_encoder_downsamples)
        min_side = 2**halvings + 1
        if self.condition == "rgb":
            return Needs("pairs", min_side, min_side)
        inst = self.edges or self.encoder
        num_labels, photos = self.num_labels, self.encoder
        return Needs(
            "labels", min_side, min_side, num_labels=num_labels, inst=inst, photos=photos
        )

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.condition == "rgb" and (self.edges or self.encoder):
            raise ValueError(
                "model.condition=rgb comes without instance maps: "
                "set model.edges and model.encoder to False"
            )
        if self.stage == "coarse" and self.fix_global:
            raise ValueError("model.fix_global belongs to model.stage=full: set it to 0")
        return self


class Pix2PixHD(GAN):
    """`training=False` builds what translation needs: neither D nor the perceptual network."""

    independent_phases: ClassVar[bool] = True  # D judges the image that G made before its step

    def __init__(self, config: Config, training: bool = True):
        super().__init__()
        self.config = config
        self.preset = PRESETS[config.memory]
        self.vgg = self._load_vgg() if training and config.lambda_vgg else None
        condition = config.num_labels + config.edges if config.condition == "label" else 3
        self.nets = nn.ModuleDict({"G": self._generator(condition)})
        self.stride = self.nets["G"].stride
        if config.encoder:
            self.nets["E"] = Encoder(
                3, config.feat_channels, config.encoder_ngf, config.num_encoder_downsamples
            )
            self.stride = max(self.stride, self.nets["E"].stride)
            self.ema = ("G", "E")  # translation pairs the two: both or neither are averaged
        if training:
            self.nets["D"] = MultiscaleDiscriminator(
                condition + 3, config.ndf, config.num_layers, config.num_scales
            )
        init_normal(self.nets)
        self.weights = self._weights()

    def _generator(self, channels: int) -> ResnetGenerator | LocalEnhancer:
        config = self.config
        channels += config.feat_channels if config.encoder else 0
        trunk = (channels, 3, config.ngf, config.num_downsamples, config.num_blocks)
        recompute = self.preset.generator
        if config.stage == "coarse":
            return ResnetGenerator(*trunk, rematerialise=recompute)
        local = (config.num_enhancers, config.num_local_blocks)
        return LocalEnhancer(*trunk, *local, rematerialise=recompute)

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
        """-> condition [N, C, H, W] for G and D, image [N, 3, H, W] if there is one, and the
        label and instance ids as they came. Floats are in the dtype that convolutions use."""
        dtype = conditioning.compute_dtype(next(self.nets["G"].parameters()))
        prepared: Batch = {name: batch[name] for name in ("label", "inst") if name in batch}
        if self.config.condition == "label":
            inst = batch["inst"] if self.config.edges else None
            prepared["condition"] = conditioning.one_hot(
                batch["label"], self.config.num_labels, dtype, inst
            )
        else:
            prepared["condition"] = conditioning.normalise(batch["a"], dtype)
        image = "image" if self.config.condition == "label" else "b"
        if image in batch:
            prepared["image"] = conditioning.normalise(batch[image], dtype)
        return prepared

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
        critics = self._critics(batch["condition"], batch["image"], out.get("ahead"))
        return *narrow_waist(fake, critics), out

    def _judged_once(self, fake: Tensor) -> bool:
        """Whether D's own losses come from the same passes as G's: it has the same weights in both
        phases, and judges the same images. Not in float16, where each phase has a scale of its
        own for its gradients."""
        return fake.requires_grad and torch.is_grad_enabled() and fake.dtype != torch.float16

    def _generate(self, batch: Batch) -> Tensor:
        """G on the condition padded to the stride, cropped back to [N, 3, H, W]."""
        condition = batch["condition"]
        height, width = condition.shape[-2:]
        if self.config.encoder:
            condition = torch.cat([condition, self._features(batch)], dim=1)
        fake = self.nets["G"](conditioning.pad_to_multiple(condition, self.stride))
        return fake[..., :height, :width]

    def _features(self, batch: Batch) -> Tensor:
        """Instance-wise features of the image; without one, 0, the middle of their range."""
        condition = batch["condition"]
        if "image" not in batch:
            count, _, height, width = condition.shape
            return condition.new_zeros(count, self.config.feat_channels, height, width)
        image = conditioning.pad_to_multiple(batch["image"], self.stride)
        return self.nets["E"](image, batch["inst"]).to(condition.dtype)

    def _critics(self, condition: Tensor, image: Tensor, ahead: Ahead | None) -> list[Critic]:
        """All that judges a generated image in phase G, one after the other."""
        critics: list[Critic] = [partial(self._judge_from, condition, image, 0, ahead)]
        if self.vgg is None:
            return critics
        cuts = perceptual.strips(image.shape[-2]) if self.preset.strips else [None]
        return critics + [partial(self._perceive, real=image, strip=cut) for cut in cuts]

    def _judge_from(
        self, condition: Tensor, real: Tensor, level: int, ahead: Ahead | None, image: Tensor
    ) -> tuple[Tensor, Terms]:
        """The discriminator of this scale, and those of the coarser scales at half the size."""
        critics: list[Critic] = [partial(self._judge, condition, real, level, ahead)]
        if level + 1 < self.config.num_scales:
            critics.append(partial(self._descend, condition, real, level, ahead))
        return narrow_waist(image, critics)

    def _descend(
        self, condition: Tensor, real: Tensor, level: int, ahead: Ahead | None, image: Tensor
    ) -> tuple[Tensor, Terms]:
        condition, real, image = (downsample(x) for x in (condition, real, image))
        return self._judge_from(condition, real, level + 1, ahead, image)

    def _judge(
        self, condition: Tensor, real: Tensor, level: int, ahead: Ahead | None, image: Tensor
    ) -> tuple[Tensor, Terms]:
        """Adversarial loss and feature matching of one scale; D's own losses go `ahead`."""
        judge = self.nets["D"].at(level)
        with nullcontext() if ahead is None else unfrozen(judge):
            wanted, found = self._look_at(judge, condition, real, image)
            if ahead is not None:
                ahead.take(self._own_terms(wanted, found), self.total, judge)
        wanted = [features.detach() for features in wanted]
        terms = {"G/gan": losses.generator_loss(found[-1], self.config.gan_loss)}
        if self.config.lambda_feat:
            matching = losses.feature_matching(found, wanted)
            terms["G/feat"] = matching / self.config.num_scales
        return self.total(terms), terms

    def _look_at(
        self, judge: PatchDiscriminator, condition: Tensor, real: Tensor, fake: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The features of one scale in the real and in the generated image."""
        lead = judge.lead(condition)
        return judge(real, lead), judge(fake, lead)

    def _own_terms(self, real: list[Tensor], fake: list[Tensor]) -> Terms:
        """What D learns at one scale, from its features."""
        kind = self.config.gan_loss
        return {
            "D/real": losses.discriminator_loss(real[-1], True, kind),
            "D/fake": losses.discriminator_loss(fake[-1], False, kind),
        }

    def _perceive(
        self, image: Tensor, real: Tensor, strip: perceptual.Strip | None
    ) -> tuple[Tensor, Terms]:
        assert self.vgg is not None
        slices = self.preset.slices
        terms = {"G/vgg": perceptual.perceptual_loss(self.vgg, image, real, strip, slices)}
        return self.total(terms), terms

    def _discriminator_terms(self, batch: Batch, fake: Tensor) -> Terms:
        pictures = batch["condition"], batch["image"], fake
        terms: Terms = {}
        for level in range(self.config.num_scales):
            if level:
                pictures = tuple(downsample(picture) for picture in pictures)
            found = self._look_at(self.nets["D"].at(level), *pictures)
            for name, term in self._own_terms(*found).items():
                terms[name] = terms[name] + term if level else term
        return terms

    def static_parts(self) -> list[nn.Module]:
        """All but the sorting of instances, and what takes D's scales and VGG's slices apart."""
        parts = [self.nets["G"]]
        if self.config.encoder:
            parts += [self.nets["E"].trunk, self.nets["E"].head]
        return [*parts, self.nets["D"].scales, *([self.vgg.slices] if self.vgg else [])]

    @torch.no_grad()
    def translate(self, batch: Batch) -> Tensor:
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

    def outgrown(self, name: str) -> bool:
        """From coarse to full: the enhancers take the place of the coarse output layer."""
        return self.config.stage == "full" and name.startswith("G.head.")

    def may_be_new(self, name: str, given: Collection[str]) -> bool:
        """From coarse to full: enhancers and scales of D may be missing, as a whole only."""
        groups = ["G.enhancers."] + [f"D.scales.{i}." for i in range(self.config.num_scales)]
        return any(
            name.startswith(group) and not any(other.startswith(group) for other in given)
            for group in groups
        )


Model = Pix2PixHD
