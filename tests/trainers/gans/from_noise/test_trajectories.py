"""The steps of each GAN from noise, beside those of the reference implementations."""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor

from tests.nets.noise.oracle import needs_networks
from tests.nets.noise.reference_names import as_in_collection, as_in_progan, as_in_sagan
from tests.trainers.gans.from_noise.trajectory import Inputs, Names, follow, plain_images, read
from trainers.ema import Ema
from trainers.gan import Batch
from trainers.gans.from_noise import (
    biggan,
    cgan,
    cogan,
    dcgan,
    gan,
    infogan,
    progan,
    sagan,
    wgan,
    wgan_gp,
)
from trainers.recipe import OptimizerRecipe

__all__ = ["plain_images"]
pytestmark = needs_networks

ADAM = OptimizerRecipe(2e-4, betas=(0.5, 0.999))
SLOW = OptimizerRecipe(1e-4, betas=(0.0, 0.9))
FAST = OptimizerRecipe(4e-4, betas=(0.0, 0.9))
NAMES: Names = {
    "D_real": {"D/real": 1.0},
    "D_fake": {"D/fake": 1.0},
    "critic_real": {"D/real": -1.0},
    "critic_fake": {"D/fake": 1.0},
    "gp": {"D/gp": 1.0},
    "drift": {"D/drift": 1.0},
    "G_gan": {"G/gan": 1.0},
    "G_category_0": {"G/category": 1.0},
    "G_nll": {"G/code": 1.0},
}


def both(optimizer: OptimizerRecipe) -> dict[str, OptimizerRecipe]:
    return {"G": optimizer, "D": optimizer}


def noise(updates: Inputs) -> Tensor:
    """[N, turns, num_noise] of those updates that draw it."""
    return torch.stack([update["noise"].flatten(1) for update in updates if "noise" in update], 1)


def uniform(labels: Tensor, num_classes: int) -> Tensor:
    """Draws that give these classes."""
    return (labels + 0.5) / num_classes


def plain(updates: Inputs) -> Batch:
    """D's updates draw all."""
    batch = {"image": updates[0]["real"], "noise_D": noise(updates)}
    if "alpha" in updates[0]:
        batch["share"] = torch.stack([each["alpha"] for each in updates if "alpha" in each], 1)
    return batch


def own(updates: Inputs) -> Batch:
    """D's update and G's each draw their noise."""
    first, second = updates
    return {"image": first["real"], "noise_D": noise([first]), "noise_G": second["noise"]}


def test_gan() -> None:
    config = gan.Config(side=6, channels=1, num_noise=8)
    follow(read("gan_mlp"), gan.Model(config), both(OptimizerRecipe(3e-4)), plain, NAMES)


def test_dcgan() -> None:
    config = dcgan.Config(channels=1, num_noise=10, generator={"ngf": 2}, discriminator={"ndf": 2})
    follow(read("dcgan"), dcgan.Model(config), both(ADAM), plain, NAMES)


def test_wgan() -> None:
    networks: dict[str, Any] = {"generator": {"ngf": 2}, "discriminator": {"ndf": 4}}
    config = wgan.Config(channels=1, num_noise=12, **networks)
    follow(
        read("wgan_n5"), wgan.Model(config), both(OptimizerRecipe(5e-5, "rmsprop")), plain, NAMES
    )


def test_wgan_gp() -> None:
    networks: dict[str, Any] = {"generator": {"ngf": 2}, "discriminator": {"ndf": 3}}
    config = wgan_gp.Config(channels=1, num_noise=10, num_critic_steps=2, **networks)
    follow(read("wgan_gp_n2"), wgan_gp.Model(config), both(SLOW), plain, NAMES)


def test_cgan_with_linear_layers() -> None:
    config = cgan.Config(
        side=6,
        num_noise=8,
        num_classes=4,
        generator={"widths": (8, 12, 16, 20)},
        discriminator={"widths": (16, 16, 16), "dropout": 0.0},
    )

    def batch(updates: Inputs) -> Batch:
        drawn = {"class_D": uniform(updates[0]["gen_label"], 4)[:, None]}
        return plain(updates) | {"class": updates[0]["label"]} | drawn

    follow(read("cgan_mlp"), cgan.Model(config), both(ADAM), batch, NAMES)


def test_cgan_with_a_critic() -> None:
    config = cgan.Config(
        side=64,
        num_noise=8,
        num_classes=5,
        generator={"kind": "dcgan", "ngf": 2, "num_embedding": 6},
        discriminator={"kind": "dcgan", "ndf": 2},
        gan_loss="wgangp",
        num_critic_steps=2,
        generator_first=False,
        generated_classes="real",
    )

    def batch(updates: Inputs) -> Batch:
        return plain(updates) | {"class": updates[0]["label"]}

    follow(read("cgan_wgangp"), cgan.Model(config), both(SLOW), batch, NAMES)


def test_infogan() -> None:
    config = infogan.Config(
        num_noise=6, generator_widths=(16, 8, 4), trunk_widths=(4, 8, 16), recogniser_width=8
    )

    def batch(updates: Inputs) -> Batch:
        first = updates[0]
        return {
            "image": 2 * first["real"] - 1,
            "noise_D": noise(updates),
            "category_D": uniform(first["category"].view(-1, 1, 1), 10),
            "code_D": (first["code"].view(-1, 1, 2) + 1) / 2,
        }

    follow(read("infogan_mnist"), infogan.Model(config), both(ADAM), batch, NAMES)


def test_cogan() -> None:
    config = cogan.Config(
        num_noise=8, generator_widths=(16, 12, 10, 8), discriminator_widths=(4, 6, 12)
    )

    def batch(updates: Inputs) -> Batch:
        first, second = updates
        images = {name: 2 * first[f"real_{name}"] - 1 for name in "ab"}
        return images | {"noise_D": noise([first]), "noise_G": second["noise"]}

    decayed = OptimizerRecipe(2e-4, betas=(0.5, 0.999), weight_decay=5e-4)
    follow(read("cogan_edge"), cogan.Model(config), both(decayed), batch, NAMES)


def test_sagan() -> None:
    model = sagan.Model(sagan.Config(num_noise=10, ngf=8, ndf=2))
    keys = {name: as_in_sagan(net) for name, net in model.nets.items()}
    follow(read("sagan_hinge"), model, {"G": SLOW, "D": FAST}, own, NAMES, keys=keys)


def test_sagan_with_classes() -> None:
    config = sagan.Config(
        num_noise=8,
        num_classes=5,
        ngf=2,
        ndf=4,
        generator_attention=(32,),
        discriminator_attention=(16,),
        spectral_eps=1e-8,
    )
    rates = {"G": 1e-4, "D": 4e-4}
    optimizers = {name: OptimizerRecipe(lr, betas=(0.0, 0.999)) for name, lr in rates.items()}
    follow(read("sagan_cond"), sagan.Model(config), optimizers, with_classes, NAMES)


def with_classes(updates: Inputs) -> Batch:
    first, second = updates
    classes = [uniform(update["gen_label"], 5) for update in updates]
    drawn = {"class_D": classes[0][:, None], "class_G": classes[1]}
    return own(updates) | {"class": first["label"]} | drawn


def test_biggan() -> None:
    config = biggan.Config(
        side=32,
        num_noise=8,
        num_classes=5,
        ngf=4,
        ndf=4,
        num_shared=6,
        generator_attention=(),
        discriminator_attention=(),
    )
    chunks: list[dict[str, Tensor]] = []

    def batch(updates: Inputs) -> Batch:
        """The first step of an iteration draws the real images of both."""
        nonlocal chunks
        first = updates[0]
        if "real" in first:
            halves = zip(first["real"].chunk(2), first["label"].chunk(2), strict=True)
            chunks = [{"image": image, "class": label} for image, label in halves]
        made = {"noise_D": noise([first]), "class_D": uniform(first["gen_label"], 5)[:, None]}
        own_draws = updates[-1]
        g = {"noise_G": own_draws["noise"], "class_G": uniform(own_draws["gen_label"], 5)}
        return chunks.pop(0) | made | g

    def ema(model: Any) -> Ema:
        kept = Ema(model, halflife=1, start=16)
        kept.halflife = 8 * log(0.5) / log(0.9)  # type: ignore[assignment]
        return kept

    optimizers = {
        name: OptimizerRecipe(lr, betas=(0.0, 0.999), eps=1e-6)
        for name, lr in {"G": 1e-4, "D": 4e-4}.items()
    }
    follow(read("biggan_2d"), biggan.Model(config), optimizers, batch, NAMES, ema)


def at_level(model: progan.ProGAN, lod: float) -> progan.ProGAN:
    """Stays at one level of detail."""
    model.lod_at = lambda images: lod  # type: ignore[method-assign]
    model.advance(0, 0)
    return model


def growing(updates: Inputs) -> Batch:
    """Images come at full size."""
    first, *rest = updates
    batch = {
        "image": first["real"].repeat_interleave(2, 2).repeat_interleave(2, 3),
        "noise_D": noise([first]),
        "share": first["alpha"][:, None],
    }
    return batch | ({"noise_G": rest[0]["noise"]} if "noise" in rest[0] else {})


EQUALISED = OptimizerRecipe(1e-3, betas=(0.0, 0.99))


def test_progan() -> None:
    config = progan.Config(side=16, num_noise=6, fmap_base=32, fmap_max=8)
    model = at_level(progan.Model(config), 1.7)
    keys = {name: as_in_progan(net, model.top) for name, net in model.nets.items()}

    def ema(model: Any) -> Ema:
        kept = Ema(model, halflife=1)
        kept.halflife = 8 * log(0.5) / log(0.999)  # type: ignore[assignment]
        return kept

    follow(read("progan_karras_fade8"), model, both(EQUALISED), growing, NAMES, ema, keys, "sample")


def test_simple_progan() -> None:
    config = progan.Config(side=16, num_noise=6, form="simple", fmap_base=32, fmap_max=8)
    model = at_level(progan.Model(config), 1.7)
    keys = {name: as_in_collection(net, model.top) for name, net in model.nets.items()}
    follow(read("progan_l1_a03"), model, both(EQUALISED), growing, NAMES, keys=keys)
