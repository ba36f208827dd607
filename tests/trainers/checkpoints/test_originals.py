"""The authors' files of weights fill our networks, or are refused with what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nets.originals import original_keys
from trainers.checkpoints.originals import adopt_originals, described, files_in, holds_originals
from trainers.gan import GAN
from trainers.gans.from_images import cyclegan, pix2pix, pix2pixhd

RESNET = {"ngf": 2, "num_blocks": 2}


def cycle(**generator: object) -> GAN:
    return cyclegan.Model(cyclegan.Config(generator=RESNET | generator), training=False)


def publish(gan: GAN, name: str, file: Path, **more: Tensor) -> Path:
    """Save a network as its authors do, under their names."""
    theirs = original_keys(gan.nets[name])
    torch.save({theirs[k]: w for k, w in gan.nets[name].state_dict().items()} | more, file)
    return file


def test_a_file_fills_the_network_that_its_name_says(tmp_path: Path) -> None:
    given, gan = cycle(), cycle()
    before = {k: w.clone() for k, w in gan.nets["G_A"].state_dict().items()}
    file = publish(given, "G_B", tmp_path / "latest_net_G_B.pth")
    assert holds_originals(file) and adopt_originals(gan, file) == ["G_B"]
    for key, weight in given.nets["G_B"].state_dict().items():
        assert torch.equal(gan.nets["G_B"].state_dict()[key], weight)
    assert all(torch.equal(gan.nets["G_A"].state_dict()[k], w) for k, w in before.items())


def test_a_folder_fills_all_networks_from_the_newest_files(tmp_path: Path) -> None:
    old, new, gan = cycle(), cycle(), cycle()
    for name in ("G_A", "G_B"):
        publish(old, name, tmp_path / f"195_net_{name}.pth")
        publish(new, name, tmp_path / f"1000_net_{name}.pth")
    publish(new, "G_A", tmp_path / "latest_net_D_A.pth")  # this GAN was built without D
    (tmp_path / "notes_net.txt").touch()
    assert {name: file.name for name, file in files_in(tmp_path).items() if name[0] == "G"} == {
        "G_A": "1000_net_G_A.pth",
        "G_B": "1000_net_G_B.pth",
    }
    assert sorted(adopt_originals(gan, tmp_path)) == ["G_A", "G_B"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(gan.nets.state_dict().values(), new.nets.state_dict().values(), strict=True)
    )


def test_a_published_generator_has_a_name_of_its_own(tmp_path: Path) -> None:
    """horse2zebra.pth; wrapped by DataParallel, with the statistics of old instance norms."""
    given, gan = cycle(), cycle()
    file = publish(given, "G_A", tmp_path / "horse2zebra.pth")
    published = torch.load(file, weights_only=True)
    weights = {f"module.{name}": weight for name, weight in published.items()}
    for name in ("running_mean", "running_var"):
        weights[f"module.model.2.{name}"] = torch.zeros(2)
    torch.save(weights, file)
    assert adopt_originals(gan, file) == ["G_A"]
    assert adopt_originals(gan, file, "G_B") == ["G_B"]
    for name in ("G_A", "G_B"):
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                gan.nets[name].state_dict().values(),
                given.nets["G_A"].state_dict().values(),
                strict=True,
            )
        )


def unet() -> GAN:
    generator = {"ngf": 2, "num_downsamples": 3, "dropout": 0}
    return pix2pix.Model(pix2pix.Config(generator=generator), training=False)


def full() -> GAN:
    options = dict(num_labels=3, ngf=2, num_downsamples=2, num_blocks=1, lambda_vgg=0)
    config = pix2pixhd.Config(**options, stage="full", num_local_blocks=1)
    return pix2pixhd.Model(config, training=False)


@pytest.mark.parametrize(
    ("gan", "words"),
    [
        (cycle(), "a resnet (kind=resnet, ngf=2, num_blocks=2)"),
        (unet(), "a U-Net (kind=unet, ngf=2, num_downsamples=3)"),
        (full(), "pix2pixHD's generator with a local enhancer (stage=full)"),
    ],
)
def test_a_file_tells_what_it_is_of(gan: GAN, words: str, tmp_path: Path) -> None:
    file = publish(gan, gan.ema[0], tmp_path / "x.pth")
    assert described(torch.load(file, weights_only=True)) == words
    assert adopt_originals(gan, file) == [gan.ema[0]]


@pytest.mark.parametrize(
    ("file_of", "message"),
    [
        (lambda p: publish(cycle(num_blocks=3), "G_A", p), "has model.12.conv_block.1.bias too|it"),
        (lambda p: publish(cycle(ngf=4), "G_A", p), r"is \[4, 3, 7, 7\] there and \[2, 3, 7, 7\]"),
        (lambda p: publish(unet(), "G", p), "lacks model.1.weight.*holds a U-Net .kind=unet"),
        (lambda p: torch.save([1], p), "holds a list, not a state dict"),
        (lambda p: torch.save({"epoch": 3}, p), "holds 'epoch', which is no tensor with a name"),
        (lambda p: p.write_bytes(b"weights"), "is neither safetensors nor a state dict"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_it_holds(
    tmp_path: Path, file_of, message: str
) -> None:
    file, gan = tmp_path / "latest_net_G_A.pth", cycle()
    file_of(file)
    with pytest.raises(ValueError, match=f"latest_net_G_A.pth .*{message}"):
        adopt_originals(gan, file)
    file.rename(tmp_path / "latest_net_G.pth")
    with pytest.raises(ValueError, match="is of a network G, but there are G_A, G_B"):
        adopt_originals(gan, tmp_path / "latest_net_G.pth")
