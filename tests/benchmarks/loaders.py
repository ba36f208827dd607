"""The loaders that reading.py compares: ours, and those of others as their users write them.

All give the same: label uint8 [H, W], inst int32 [H, W] and image uint8 [H, W, 3] a sample, and
batches {"label": [N, 1, H, W], "inst": [N, 1, H, W], "image": [N, 3, H, W]}. Each stands on a
folder made by `material`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from shards.pixels.augment import Preprocess
from shards.pixels.images import decode_sample
from shards.read.sources import open_sources
from shards.read.stream import PREFETCH, batches
from shards.sets.reader import Reader

Sample = dict[str, Any]
FOLDERS = {"label": "train_label", "inst": "train_inst", "image": "train_img"}
SEED = 0


class Loader:
    """One way to read the triplets."""

    name: str
    package: str | None = None
    """What must be importable for it."""

    def __init__(self, material: Path) -> None:
        raise NotImplementedError

    def files(self) -> Iterator[Any]:
        """One epoch of samples, as bytes."""
        raise NotImplementedError

    def pixels(self) -> Iterator[Sample]:
        """One epoch of decoded samples."""
        raise NotImplementedError

    def batches(self, size: int, workers: int) -> Iterator[Sample]:
        """Shuffled batches of tensors, without end."""
        raise NotImplementedError


class Ours(Loader):
    name = "organza"

    def __init__(self, material: Path) -> None:
        self.sources = open_sources(material / "shards", "labels", SEED)
        self.shard_set, self.order = self.sources[0].shard_set, self.sources[0].order
        self.reader = Reader(self.shard_set)

    def files(self) -> Iterator[dict[str, bytes]]:
        for position in range(self.order.num_samples):
            yield self.reader.read(self.order.locate(position)[1])

    def pixels(self) -> Iterator[Sample]:
        for position in range(self.order.num_samples):
            number = self.order.locate(position)[1]
            yield decode_sample(self.reader.read(number), self.shard_set.names(number))

    def batches(self, size: int, workers: int) -> Iterator[Sample]:
        return batches(
            self.sources,
            Preprocess(flip=False),
            global_batch=size,
            micro_batch=size,
            rank=0,
            world=1,
            workers=workers,
            pin=torch.cuda.is_available(),
            seed=SEED,
        )


class Webdataset(Loader):
    """The same tars, by its pipeline with its own image handler."""

    name = package = "webdataset"

    def __init__(self, material: Path) -> None:
        self.shards = [str(path) for path in sorted((material / "shards").glob("*.tar"))]

    def files(self) -> Iterator[Sample]:
        import webdataset

        return iter(webdataset.WebDataset(self.shards, shardshuffle=False))

    def pixels(self) -> Iterator[Sample]:
        import webdataset

        return iter(self._decoded(webdataset.WebDataset(self.shards, shardshuffle=False)))

    def batches(self, size: int, workers: int) -> Iterator[Sample]:
        import webdataset

        # Each worker reads shards of its own: give it at least as many as there are workers.
        dataset = webdataset.WebDataset(self.shards, shardshuffle=len(self.shards))
        return torch_batches(self._decoded(dataset).map(planes).repeat(), size, workers)

    def _decoded(self, dataset: Any) -> Any:
        import webdataset

        dataset = dataset.decode(
            webdataset.handle_extension("label.png", label_ids),
            webdataset.handle_extension("inst.png", instance_ids),
            webdataset.imagehandler("rgb8"),
        )
        return dataset.rename(label="label.png", inst="inst.png", image="image.jpg;image.png")


class PlainFolder(Loader):
    """Three files a sample in three folders."""

    name = "torchdata, a folder"
    package = "torchdata"

    def __init__(self, material: Path) -> None:
        folders = {m: material / "source" / folder for m, folder in FOLDERS.items()}
        listed = (sorted(folder.iterdir()) for folder in folders.values())
        self.paths = [dict(zip(folders, each, strict=True)) for each in zip(*listed, strict=True)]

    def files(self) -> Iterator[dict[str, bytes]]:
        for paths in self.paths:
            yield {member: path.read_bytes() for member, path in paths.items()}

    def pixels(self) -> Iterator[Sample]:
        return map(decoded, self.files())

    def batches(self, size: int, workers: int) -> Iterator[Sample]:
        from torchdata.stateful_dataloader import StatefulDataLoader

        dataset = FolderDataset(self.paths)
        return torch_batches(dataset, size, workers, StatefulDataLoader, shuffle=True)


class FolderDataset(Dataset):
    def __init__(self, paths: list[dict[str, Path]]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Sample:
        paths = self.paths[number]
        return planes(decoded({member: path.read_bytes() for member, path in paths.items()}))


class Mosaic(Loader):
    """The same files as bytes in MDS shards."""

    name = "mosaicml-streaming"
    package = "streaming"

    def __init__(self, material: Path) -> None:
        from streaming import MDSWriter, StreamingDataset

        class Triplets(StreamingDataset):
            change: Callable[[Sample], Sample] = staticmethod(dict)

            def __getitem__(self, at: int) -> Sample:
                return self.change(super().__getitem__(at))

        local = material / "mds"
        if not local.exists():
            with MDSWriter(out=str(local), columns=dict.fromkeys(FOLDERS, "bytes")) as writer:
                for files in PlainFolder(material).files():
                    writer.write(files)
        self.dataset = Triplets(local=str(local), batch_size=1, shuffle=True)

    def files(self) -> Iterator[Sample]:
        self.dataset.change = dict
        return iter(self.dataset)

    def pixels(self) -> Iterator[Sample]:
        self.dataset.change = decoded
        return iter(self.dataset)

    def batches(self, size: int, workers: int) -> Iterator[Sample]:
        self.dataset.change = lambda files: planes(decoded(files))
        return torch_batches(self.dataset, size, workers)


LOADERS: tuple[type[Loader], ...] = (Ours, Webdataset, PlainFolder, Mosaic)


def installed(loader: type[Loader]) -> bool:
    return loader.package is None or find_spec(loader.package) is not None


def torch_batches(
    dataset: Any, size: int, workers: int, kind: type[DataLoader] = DataLoader, **options: Any
) -> Iterator[Sample]:
    """Epoch after epoch, with as much read ahead as ours does."""
    loader = kind(
        dataset,
        batch_size=size,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,  # the default on Linux
        pin_memory=torch.cuda.is_available(),
        drop_last=True,
        **options,
    )
    while True:
        yield from loader


def label_ids(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def instance_ids(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int32)


def decoded(files: dict[str, bytes]) -> Sample:
    photo = Image.open(io.BytesIO(files["image"])).convert("RGB")
    return {
        "label": label_ids(files["label"]),
        "inst": instance_ids(files["inst"]),
        "image": np.asarray(photo),
    }


def planes(sample: Sample) -> Sample:
    """Tensors as torch collates them: [1, H, W] and [3, H, W]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are read-only; a copy would cost the others
        tensors = {member: torch.from_numpy(sample[member]) for member in FOLDERS}
    return {m: t[None] if t.ndim == 2 else t.permute(2, 0, 1) for m, t in tensors.items()}
