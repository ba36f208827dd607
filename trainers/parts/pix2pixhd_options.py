"""Options of pix2pixHD: Wang et al., CVPR 2018 (arXiv:1711.11585)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nets.losses import losses, perceptual
from nets.memory.remat import Memory
from trainers.settings import GANSettings, Needs, Span, UserPath


class Pix2PixHDOptions(GANSettings):
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
    features_of: Literal["instances", "labels"] = "instances"
    """What shares one look: each instance, or all pixels of a label (the authors' label_feat)."""
    load_features: bool = False
    """Read the features from the set's pictures `feat`, which `organza features` makes, in place of
    an encoder."""
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
    norm: Literal["instance", "batch", "sync-batch"] = "instance"
    """Of all networks: instance, batch (over a process) or sync-batch (over all processes)."""
    test_statistics: Literal["batch", "running"] = "batch"
    """Batch norm in translation: by the image at hand, as the authors' code does, or by the running
    statistics of training."""
    num_scales: int = Field(2, ge=1, le=6)
    """Number of discriminators, each on half the size of the one before."""
    num_layers: int = Field(3, ge=1, le=6)
    """Number of normalised layers of each discriminator."""
    gan_loss: losses.GanLoss = "lsgan"
    """Adversarial loss: lsgan, bce (cross-entropy with logits) or hinge."""
    pool_size: int = Field(0, ge=0)
    """Generated images, with their conditions, that each process keeps to show D again; 0 for
    none."""
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
        return Needs(
            "labels",
            min_side,
            min_side,
            num_labels=self.num_labels,
            inst=self.edges or (self.encoder and self.features_of == "instances"),
            photos=self.encoder,
            features=self.load_features,
        )

    @property
    def steered(self) -> bool:
        """Whether G takes features beside the condition."""
        return self.encoder or self.load_features

    @model_validator(mode="after")
    def _consistent(self) -> Pix2PixHDOptions:
        if self.condition == "rgb" and (self.edges or self.steered):
            raise ValueError(
                "model.condition=rgb comes without instance maps: "
                "set model.edges, model.encoder and model.load_features to False"
            )
        if self.encoder and self.load_features:
            raise ValueError(
                "model.encoder learns the features that model.load_features reads: keep one of them"
            )
        if self.load_features and self.feat_channels != 3:
            raise ValueError(
                f"model.feat_channels is {self.feat_channels}, but model.load_features reads "
                "pictures of 3: set it to 3"
            )
        if self.stage == "coarse" and self.fix_global:
            raise ValueError("model.fix_global belongs to model.stage=full: set it to 0")
        return self
