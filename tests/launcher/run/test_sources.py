"""What a GAN asks of its data reaches the stream: classes, attributes, channels."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.estimate.step_costs import raw_batch
from launcher.recipe.config import Config, load
from launcher.recipe.data_fit import check_data, preprocess_of
from launcher.run.sources import sources_of
from shards.pack.packing import pack
from shards.read.stream import batches
from shards.records import DataError
from tests.shards.sources import domain_source
from trainers.settings import GANSettings, Needs


class Settings(GANSettings):
    """Of a GAN that reads what it is told to."""

    asked: Needs

    @property
    def needs(self) -> Needs:
        return self.asked


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FOLDER/classes: two cats and two dogs; FOLDER/attributes: four pictures with two."""
    folder = tmp_path_factory.mktemp("labelled")
    source = domain_source(folder / "source", cat=2, dog=2)
    pack(source, folder / "classes", layout="labelled", workers=1)
    rows = ("cat/cat-0.png,hat", "cat/cat-1.png,old", "dog/dog-0.png,", "dog/dog-1.png,hat old")
    (source / "list.csv").write_text("\n".join(["image,attributes", *rows]))
    pack(source / "list.csv", folder / "attributes", workers=1)
    return folder


def config_of(shards: Path, **needs: object) -> Config:
    """Of a run that reads pictures, as they are, and what `needs` says."""
    options = {"data.shards": str(shards), "data.preprocess.mode": "none"}
    settings = Settings(asked=Needs("images", **needs))
    return load("cyclegan", options).model_copy(update={"model": settings})


@pytest.mark.parametrize(
    "name, needs, given",
    [
        ("classes", {}, set()),
        ("classes", {"classes": 2}, {"class"}),
        ("classes", {"classes": 2, "unlabelled": 1.0}, {"class"}),
        ("attributes", {"attributes": ("old",)}, {"attributes"}),
        ("attributes", {"attributes": ("old", "hat"), "channels": {"image": 1}}, {"attributes"}),
    ],
)
def test_batches_are_what_the_gan_needs_and_plans_expect(packed, name, needs, given):
    config = config_of(packed / name, **needs)
    sources = sources_of(config)
    check_data(config, sources, 4)
    batch = next(
        batches(
            sources,
            preprocess_of(config),
            global_batch=4,
            micro_batch=4,
            rank=0,
            world=1,
            workers=0,
            seed=config.seed,
        )
    )
    assert batch.keys() == {"image", "keys"} | given
    planned = raw_batch(config.model.needs, 4, (8, 10))
    assert planned.keys() == batch.keys() - {"keys"}
    for member, zeros in planned.items():
        assert (zeros.shape, zeros.dtype) == (batch[member].shape, batch[member].dtype)
    if "class" in given:
        shown = dict(zip(batch["keys"], batch["class"].tolist(), strict=True))
        hidden = needs.get("unlabelled") == 1
        assert shown == {key: -1 if hidden else ["cat", "dog"].index(key[:3]) for key in shown}
    elif needs.get("attributes") == ("old",):
        shown = dict(zip(batch["keys"], batch["attributes"].tolist(), strict=True))
        assert [shown[key] for key in sorted(shown)] == [[0], [1], [0], [1]]


def test_sets_without_what_is_needed_are_refused(packed):
    with pytest.raises(DataError, match="holds 2 classes, .* reads 10: set model.num_classes=2"):
        sources_of(config_of(packed / "classes", classes=10))
    with pytest.raises(DataError, match="holds no attribute 'cat', but hat, old"):
        sources_of(config_of(packed / "attributes", attributes=("hat", "cat")))
