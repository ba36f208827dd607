"""All that judges an image of pix2pixHD: discriminators on several sizes, and a VGG network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from torch import Tensor

from nets.discriminators.patch import MultiscaleDiscriminator, PatchDiscriminator
from nets.layers.blocks import downsample
from nets.losses import losses, perceptual
from nets.memory.waist import Ahead, Critic, Terms, narrow_waist, unfrozen
from trainers.parts.pix2pixhd_options import Pix2PixHDOptions


class Judges:
    """The losses of both phases. Images and conditions are [N, C, H, W]."""

    def __init__(
        self,
        config: Pix2PixHDOptions,
        discriminator: MultiscaleDiscriminator,
        vgg: perceptual.Vgg | None,
        slices: bool,
        strips: bool,
        total: Callable[[Terms], Tensor],
    ):
        """slices, strips: recompute VGG by slices, and take images in strips, for memory. total:
        the weighted sum of terms."""
        self.config = config
        self.discriminator = discriminator
        self.vgg = vgg
        self.slices, self.strips = slices, strips
        self.total = total

    def critics(self, condition: Tensor, image: Tensor, ahead: Ahead | None) -> list[Critic]:
        """All that judges a generated image in phase G, one after the other. D's own losses go
        `ahead`, where it is given."""
        critics: list[Critic] = [partial(self._judge_from, condition, image, 0, ahead)]
        if self.vgg is None:
            return critics
        cuts = perceptual.strips(image.shape[-2]) if self.strips else [None]
        return critics + [partial(self._perceive, real=image, strip=cut) for cut in cuts]

    def discriminator_terms(
        self, condition: Tensor, real: Tensor, fake: Tensor, of_fake: Tensor | None = None
    ) -> Terms:
        """What D learns from a real and a generated image. of_fake: the condition of the generated
        one, where it is another's."""
        pictures = [condition, real, fake] + ([] if of_fake is None else [of_fake])
        terms: Terms = {}
        for level in range(self.config.num_scales):
            if level:
                pictures = [downsample(picture) for picture in pictures]
            found = self._look_at(self.discriminator.at(level), *pictures)
            for name, term in self._own_terms(*found).items():
                terms[name] = terms[name] + term if level else term
        return terms

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
        judge = self.discriminator.at(level)
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
        self,
        judge: PatchDiscriminator,
        condition: Tensor,
        real: Tensor,
        fake: Tensor,
        of_fake: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The features of one scale in the real and in the generated image."""
        lead = judge.lead(condition)
        return judge(real, lead), judge(fake, lead if of_fake is None else judge.lead(of_fake))

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
        loss = perceptual.perceptual_loss(self.vgg, image, real, strip, self.slices)
        terms = {"G/vgg": loss}
        return self.total(terms), terms
