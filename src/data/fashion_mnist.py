"""FashionMNIST: 60,000 + 10,000 grey images of clothing, 28 x 28, in ten classes (arXiv
1708.07747)."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.transforms.v2.functional import resize as resize_images

from src.data import sources
from src.data.batches import Examples
from src.data.module import SplitDataModule
from src.errors import UserError
from src.files import expand

# by label
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
]
SPLIT_SEED = (
    2017  # of the validation split: the same images are held out whatever the seed of the run
)


class FashionMNIST(SplitDataModule):
    """Minibatches (X, y): X float32 (n, 1, resize, resize) in [0, 1], y int64 (n,) in [0, 10).

    `val_size` of the 60,000 training images are held out for validation; the 10,000 official test
    images are left alone until the end, unless val_size is 0. The images stay uint8 in memory and
    are scaled on the device, one minibatch at a time: that is several times faster. Other sides
    than 28 are interpolated (bilinear, antialiased). conf/data/fashion_mnist.yaml says what the
    arguments mean.
    """

    checksums: ClassVar = sources.FILES
    classes, num_outputs = CLASSES, len(CLASSES)

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
        debian_package: Annotated[str, Field(pattern=sources.DEBIAN_NAME)] | None = None,
    ):
        super().__init__(batch_size, val_size, seed, num_workers)
        most = 60_000 - val_size
        if train_size is not None and train_size > most:
            raise UserError(
                f"data.train_size must be at most {most} beside data.{val_size=}, got {train_size}"
            )
        self.train_size = train_size or most
        self.root, self.resize, self.num_inputs = expand(root), resize, resize**2
        self.origin = {
            "system_copies": system_copies,
            "mirrors": mirrors,
            "debian_package": debian_package,
        }

    def prepare_data(self) -> None:
        if not self.splits:  # Lightning asks again before the test
            sources.provide(self.root / "FashionMNIST" / "raw", **self.origin)

    def setup(self, stage: str | None = None) -> None:
        needed = self.needed(stage)
        if needed & {"train", "val"}:
            train = load(self.root, "train", self.resize)
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED))
            self.splits["train"] = train, order[self.val_size :][: self.train_size]
            self.splits["val"] = train, order[: self.val_size]
        if "test" in needed:
            test = load(self.root, "t10k", self.resize)
            self.splits["test"] = test, torch.arange(len(test))

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        X, y = batch
        return [X.float().div_(255), y]


@functools.lru_cache(maxsize=2)
def load(root: Path, part: str, side: int) -> Examples:
    """Images (n, 1, side, side) uint8 and labels (n,) int64 of one official part; a sweep's jobs
    share them."""
    # the very files that were verified; torchvision prefers what old versions of it left in another
    # folder
    start = f"{root}/FashionMNIST/raw/{part}"
    images = read_image_file(f"{start}-images-idx3-ubyte")[:, None]
    if side != images.shape[-1]:
        resized = images.new_empty(len(images), 1, side, side)
        for chunk, place in zip(images.split(100), resized.split(100), strict=True):
            place.copy_(resize_images(chunk, [side, side]))  # its float copies are small
        images = resized
    return Examples(images, read_label_file(f"{start}-labels-idx1-ubyte"))
