"""FashionMNIST: 60,000 + 10,000 grey images of clothing in ten classes, arXiv 1708.07747."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.transforms.v2.functional import resize as resize_images

from src.data import sources
from src.data.batches import Examples
from src.data.module import SplitDataModule
from src.errors import UserError
from src.files import expanded

FILES = {  # name -> SHA-256 of the decompressed bytes
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat"]  # by label
CLASSES += ["sandal", "shirt", "sneaker", "bag", "ankle boot"]
# The same images are held out for validation whatever the seed of the run.
SPLIT_SEED = 2017


class FashionMNIST(SplitDataModule):
    """Minibatches (X, y): X float32 (n, 1, resize, resize) in [0, 1], y int64 (n,) in [0, 10).

    `val_size` of the 60,000 training images are held out for validation; the 10,000 official test
    images are left alone until the end, unless val_size is 0. The images stay uint8 in memory and
    are scaled on the device, one minibatch at a time: that is several times faster. Other sides
    than 28 are interpolated (bilinear, antialiased). conf/data/fashion_mnist.yaml says what the
    arguments mean.
    """

    checksums = FILES
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
        self.root, self.resize, self.num_inputs = expanded(root), resize, resize**2
        self.origin: dict[str, Any] = {
            "system_copies": system_copies,
            "mirrors": mirrors,
            "debian_package": debian_package,
        }

    def prepare_data(self) -> None:
        if not self.splits:  # Lightning asks again before the test
            folder = self.root / "FashionMNIST" / "raw"
            sources.provide(folder, "FashionMNIST", FILES, **self.origin)

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

    def scale(self, X: Tensor) -> Tensor:
        if X.is_floating_point():
            return X.div(255)
        return X.float().div_(255)  # in place: the copy is ours


@functools.lru_cache(maxsize=2)
def load(root: Path, part: str, side: int) -> Examples:
    """Images (n, 1, side, side) uint8 and labels (n,) int64 of one official part.

    The jobs of a sweep share them.
    """
    # These are the very files that were verified; torchvision's own class prefers those that its
    # old versions left in another folder.
    start = f"{root}/FashionMNIST/raw/{part}"
    images = read_image_file(f"{start}-images-idx3-ubyte")[:, None]
    if side != images.shape[-1]:
        resized = images.new_empty(len(images), 1, side, side)
        # A hundred at a time: resize_images makes float copies.
        for chunk, result in zip(images.split(100), resized.split(100), strict=True):
            result.copy_(resize_images(chunk, [side, side]))
        images = resized
    return Examples(images, read_label_file(f"{start}-labels-idx1-ubyte"))
