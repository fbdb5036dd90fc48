"""FashionMNIST: 60,000 + 10,000 grey images of clothing, 28 x 28, in ten classes (arXiv 1708.07747)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import lightning as L
import torch
import torchvision
from pydantic import Field, PositiveInt, validate_call
from torch import Tensor
from torchvision.transforms.v2.functional import resize as resize_images

from src.data import sources
from src.data.batches import BatchLoader, BatchSampler, Examples

CLASSES = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
]  # by label
SPLIT_SEED = 2017  # of the validation split: the same images are held out whatever the seed of the run
EVAL_BATCH_SIZE = 1000  # means over a split do not depend on it


class FashionMNIST(L.LightningDataModule):
    """Minibatches (X, y): X float32 (n, 1, resize, resize) in [0, 1], y int64 (n,) in [0, 10).

    `val_size` of the 60,000 training images are held out for validation; the 10,000 official test images are
    left alone until the end. With val_size=0 the model trains on all 60,000 and the validation loop watches
    the test set, under its true name (`validates_on`): nothing may be selected on it then.

    The images stay uint8 in memory and are scaled on the device, one minibatch at a time.

    Args:
        root: folder of the data, as torchvision lays it out; provided on first use (see `sources.provide`).
        batch_size: training examples in a minibatch, on each process.
        train_size: how many of the images that are not held out to train on; None is all of them.
        resize: side of the images in pixels; other than 28, they are interpolated (bilinear, antialiased).
        num_workers: loader processes; the default 0 is the fastest for data in memory.
        seed: fixes the order of the minibatches, together with the epoch.
        system_copies, mirrors, debian_package: see `sources.provide`.
    """

    checksums = sources.SHA256  # of the files that every run was verified to use

    @validate_call
    def __init__(
        self,
        root: str = "data",
        batch_size: PositiveInt = 256,
        val_size: Annotated[int, Field(ge=0, lt=60_000)] = 5_000,
        train_size: PositiveInt | None = None,
        resize: Annotated[int, Field(ge=1, le=224)] = 28,
        num_workers: Annotated[int, Field(ge=0)] = 0,
        seed: Annotated[int, Field(ge=0)] = 0,
        system_copies: Sequence[str] = (),
        mirrors: Sequence[str] = (),
        debian_package: str | None = None,
    ):
        super().__init__()
        available = 60_000 - val_size
        if train_size is not None and train_size > available:
            raise ValueError(
                f"train_size must be at most {available} beside val_size={val_size}, got {train_size}"
            )
        self.train_size = train_size or available
        self.root, self.batch_size, self.val_size, self.resize = Path(root), batch_size, val_size, resize
        self.num_workers, self.seed = num_workers, seed
        self.origin = {"system_copies": system_copies, "mirrors": mirrors, "debian_package": debian_package}
        self.validates_on = "val" if val_size else "test"
        self.train_set: Examples | None = None  # all 60,000: train_indices and val_indices divide it

    def prepare_data(self) -> None:
        sources.provide(self.root / "FashionMNIST" / "raw", **self.origin)

    def setup(self, stage: str | None = None) -> None:
        if self.train_set is not None:
            return
        self.train_set, self.test_set = self._load(train=True), self._load(train=False)
        order = torch.randperm(len(self.train_set), generator=torch.Generator().manual_seed(SPLIT_SEED))
        self.val_indices = order[: self.val_size]
        self.train_indices = order[self.val_size : self.val_size + self.train_size]

    def _load(self, *, train: bool) -> Examples:
        """Images (n, 1, resize, resize) uint8 and labels (n,) int64 of one official part."""
        part = torchvision.datasets.FashionMNIST(str(self.root), train=train)
        images = part.data[:, None]  # (n, 1, 28, 28)
        if self.resize != images.shape[-1]:
            chunks = images.split(5_000)  # bounds the float copies that interpolation makes
            images = torch.cat([resize_images(chunk, [self.resize, self.resize]) for chunk in chunks])
        return Examples(images, part.targets)

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        X, y = batch
        return [X.float() / 255, y]

    def train_dataloader(self) -> BatchLoader:
        return self._loader(self.train_set, self.train_indices, self.batch_size, shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        if not self.val_size:
            return self.test_dataloader()
        return self._loader(self.train_set, self.val_indices, EVAL_BATCH_SIZE)

    def test_dataloader(self) -> BatchLoader:
        return self._loader(self.test_set, torch.arange(len(self.test_set)), EVAL_BATCH_SIZE)

    def _loader(
        self, dataset: Examples, indices: Tensor, batch_size: int, shuffle: bool = False
    ) -> BatchLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = BatchSampler(
            indices, batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world_size=world_size
        )
        return BatchLoader(dataset, sampler, self.num_workers)
