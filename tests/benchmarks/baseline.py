"""The steps that ours are measured against: the papers' networks and updates, as one would write
them with torch's own modules, in the order of the authors' code, and nothing saved anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.losses.perceptual import NUM_CONVS
from trainers.gan import Batch


@dataclass(frozen=True)
class Plain:
    """A GAN in the plain way."""

    generators: list[nn.Module]
    discriminators: list[nn.Module]
    update: Callable[[Batch], tuple[Tensor, Tensor]]
    """One training step on a raw batch -> the losses of generators and discriminators, whose
    gradients stay on the parameters."""
    perceptual: nn.Module | None = None

    @property
    def num_parameters(self) -> int:
        nets = (*self.generators, *self.discriminators)
        return sum(parameter.numel() for net in nets for parameter in net.parameters())


def conv(
    before: int, after: int, kernel: int, stride: int = 1, reflect: int = 0
) -> list[nn.Module]:
    padding = 0 if reflect else (kernel - 1) // 2
    pad = [nn.ReflectionPad2d(reflect)] if reflect else []
    return [*pad, nn.Conv2d(before, after, kernel, stride, padding)]


def normalised(*layers: nn.Module) -> list[nn.Module]:
    width = layers[-1].out_channels
    return [*layers, nn.InstanceNorm2d(width), nn.ReLU(inplace=True)]


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        second = [*conv(width, width, 3, reflect=1), nn.InstanceNorm2d(width)]
        self.layers = nn.Sequential(*normalised(*conv(width, width, 3, reflect=1)), *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def halve(width: int) -> list[nn.Module]:
    return normalised(*conv(width, 2 * width, 3, stride=2))


def double(width: int) -> list[nn.Module]:
    up = nn.ConvTranspose2d(width, width // 2, 3, 2, padding=1, output_padding=1)
    return normalised(up)


def hourglass(channels: int, width: int, depth: int, num_blocks: int) -> list[nn.Module]:
    layers = normalised(*conv(channels, width, 7, reflect=3))
    for level in range(depth):
        layers += halve(width * 2**level)
    layers += [Residual(width * 2**depth) for _ in range(num_blocks)]
    for level in reversed(range(depth)):
        layers += double(width * 2 ** (level + 1))
    return layers


def painted(width: int) -> list[nn.Module]:
    return [*conv(width, 3, 7, reflect=3), nn.Tanh()]


class Enhancer(nn.Module):
    """pix2pixHD's local enhancer around its global generator."""

    def __init__(self, channels: int, width: int, depth: int, num_blocks: int, num_local: int):
        super().__init__()
        self.whole = nn.Sequential(*hourglass(channels, 2 * width, depth, num_blocks))
        first = normalised(*conv(channels, width, 7, reflect=3))
        self.down = nn.Sequential(*first, *halve(width))
        blocks = [Residual(2 * width) for _ in range(num_local)]
        self.up = nn.Sequential(*blocks, *double(2 * width), *painted(width))
        self.pool = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x) + self.whole(self.pool(x)))


class Patches(nn.Module):
    """A PatchGAN that gives the features of every layer."""

    def __init__(self, channels: int, width: int, depth: int, padding: int):
        super().__init__()
        widths = [min(width * 2**level, 512) for level in range(depth + 1)]
        first = [nn.Conv2d(channels, width, 4, 2, padding), nn.LeakyReLU(0.2, True)]
        self.layers = nn.ModuleList([nn.Sequential(*first)])
        for level, (before, after) in enumerate(pairwise(widths), start=1):
            layer = nn.Conv2d(before, after, 4, 2 if level < depth else 1, padding)
            norm = nn.InstanceNorm2d(after)
            self.layers.append(nn.Sequential(layer, norm, nn.LeakyReLU(0.2, True)))
        self.layers.append(nn.Conv2d(widths[-1], 1, 4, padding=padding))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


class Scales(nn.Module):
    """Discriminators of an image, of its half, and so on."""

    def __init__(self, channels: int, width: int, depth: int, num_scales: int):
        super().__init__()
        self.judges = nn.ModuleList(Patches(channels, width, depth, 2) for _ in range(num_scales))
        self.pool = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        found = []
        for judge in self.judges:
            found.append(judge(x))
            x = self.pool(x)
        return found


class Vgg(nn.Module):
    """relu1_1 to relu5_1."""

    def __init__(self, name: str):
        super().__init__()
        self.slices, layers, before = nn.ModuleList(), [], 3
        for level, number in enumerate((*NUM_CONVS[name], 1)):
            width = 64 * 2 ** min(level, 3)
            for index in range(number):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
                before = width
                if index == 0:
                    self.slices.append(nn.Sequential(*layers))
                    layers = []
            layers.append(nn.MaxPool2d(2))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for part in self.slices:
            x = part(x)
            features.append(x)
        return features


def lsgan(scores: Tensor, real: bool) -> Tensor:
    return F.mse_loss(scores, torch.full_like(scores, float(real)))


def pix2pixhd(model: Any, device: torch.device, dtype: torch.dtype | None) -> Plain:
    """From a config section of pix2pixHD."""
    channels = model.num_labels + model.edges
    sizes = (channels, model.ngf, model.num_downsamples, model.num_blocks)
    with device:
        if model.stage == "full":
            paint: nn.Module = Enhancer(*sizes, model.num_local_blocks)
        else:
            paint = nn.Sequential(*hourglass(*sizes), *painted(model.ngf))
        judge = Scales(channels + 3, model.ndf, model.num_layers, model.num_scales)
        vgg = Vgg(model.vgg) if model.lambda_vgg else None
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (paint, judge)]

    def losses(batch: Batch) -> tuple[Tensor, Tensor]:
        condition, real = one_hot(batch, model), pixels(batch["image"])
        fake = paint(condition)
        shown = judge(torch.cat([condition, fake.detach()], 1))
        wanted = judge(torch.cat([condition, real], 1))
        found = judge(torch.cat([condition, fake], 1))
        d = sum(lsgan(s[-1], False) for s in shown) + sum(lsgan(s[-1], True) for s in wanted)
        g = sum(lsgan(scale[-1], True) for scale in found)
        weight = 4.0 / (model.num_layers + 1) / model.num_scales * model.lambda_feat
        for ours, theirs in zip(found, wanted, strict=True):
            for a, b in zip(ours[:-1], theirs[:-1], strict=True):
                g = g + weight * F.l1_loss(a, b.detach())
        if vgg is not None:
            for level, (a, b) in enumerate(zip(vgg(fake), vgg(real), strict=True)):
                share = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)[level]
                g = g + model.lambda_vgg * share * F.l1_loss(a, b.detach())
        return g, 0.5 * d

    def update(batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            totals = losses(batch)
        for total, optimizer in zip(totals, optimizers, strict=True):
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        return totals

    return Plain([paint], [judge], update, vgg)


def cyclegan(model: Any, device: torch.device, dtype: torch.dtype | None) -> Plain:
    """From a config section of CycleGAN."""
    g, d = model.generator, model.discriminator
    with device:
        paints: list[nn.Module] = [
            nn.Sequential(*hourglass(3, g.ngf, g.halvings, g.num_blocks), *painted(g.ngf))
            for _ in range(2)
        ]
        judges: list[nn.Module] = [Patches(3, d.ndf, d.num_layers, 1) for _ in range(2)]
    optimizers = [
        torch.optim.Adam(chain(*(net.parameters() for net in nets)), 2e-4, (0.5, 0.999))
        for nets in (paints, judges)
    ]
    to_b, to_a = paints

    def generated(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fake_b, fake_a = to_b(a), to_a(b)
        total = model.lambda_A * F.l1_loss(to_a(fake_b), a)
        total = total + model.lambda_B * F.l1_loss(to_b(fake_a), b)
        if model.lambda_identity:
            share_a, share_b = (model.lambda_identity * w for w in (model.lambda_A, model.lambda_B))
            total = total + share_b * F.l1_loss(to_b(b), b) + share_a * F.l1_loss(to_a(a), a)
        for judge, fake in zip(judges, (fake_b, fake_a), strict=True):
            total = total + lsgan(judge(fake)[-1], True)
        return total, fake_b, fake_a

    def judged(judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * (lsgan(judge(real)[-1], True) + lsgan(judge(fake.detach())[-1], False))

    def update(batch: Batch) -> tuple[Tensor, Tensor]:
        a, b = pixels(batch["a"]), pixels(batch["b"])
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            frozen(judges, True)
            total, fake_b, fake_a = generated(a, b)
        optimizers[0].zero_grad()
        total.backward()
        optimizers[0].step()
        frozen(judges, False)
        optimizers[1].zero_grad()
        shares = []
        for judge, real, fake in zip(judges, (b, a), (fake_b, fake_a), strict=True):
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                shares.append(judged(judge, real, fake))
            shares[-1].backward()
        optimizers[1].step()
        return total, sum(shares)

    return Plain(paints, judges, update)


def frozen(nets: list[nn.Module], still: bool) -> None:
    for net in nets:
        net.requires_grad_(not still)


def one_hot(batch: Batch, model: Any) -> Tensor:
    """Label ids, and the edges between instances, as float planes."""
    label = batch["label"].long()
    planes = torch.zeros(len(label), model.num_labels, *label.shape[2:], device=label.device)
    planes.scatter_(1, label, 1.0)
    if not model.edges:
        return planes
    inst = batch["inst"]
    edges = torch.zeros_like(inst, dtype=torch.bool)
    across, down = inst[..., 1:] != inst[..., :-1], inst[..., 1:, :] != inst[..., :-1, :]
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return torch.cat([planes, edges.float()], 1)


def pixels(image: Tensor) -> Tensor:
    return image / 127.5 - 1


PLAIN = {"pix2pixhd": pix2pixhd, "cyclegan": cyclegan}
