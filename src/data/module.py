"""What the data modules share: three splits of examples in memory, and loaders of minibatches."""

import logging
from abc import ABC, abstractmethod

import lightning as L
import torch
from torch import Tensor

from src.data.batches import BatchLoader, BatchSampler, Examples

log = logging.getLogger(__name__)
# A minibatch that is not trained on has at most so many examples, and so many numbers in them. This
# bounds its memory; means over a split do not depend on it. The numbers are 40 MB: from 32 MB on,
# malloc gives memory back at once. Smaller pieces can leave holes that no later one fits into.
EVAL_BATCH_SIZE, EVAL_NUMBERS = 1000, 10_000_000


class SplitDataModule(L.LightningDataModule, ABC):
    """Loaders over `splits`, which a subclass fills in `setup`.

    A subclass also has the width of its models: `num_inputs` features, and `num_outputs` classes or
    targets. The other attributes below say what there is beside the examples.

    With val_size=0 the validation loop watches the test set, and `validates_on` says so: its
    metrics are then logged under the name test, and nothing may be selected on them.
    """

    num_inputs: int
    num_outputs: int
    # file -> its verified SHA-256, if there are files
    checksums: dict[str, str] | None = None
    # names of the labels, if the targets are labels
    classes: list[str] | None = None
    # side in pixels of the images, grey and uint8, that pictures can be made into
    resize: int | None = None
    # (W (d, q), b (q,)) that made the targets, if they are known
    truth: tuple[Tensor, Tensor] | None = None

    def __init__(self, batch_size: int, val_size: int, seed: int, num_workers: int = 0):
        super().__init__()
        self.batch_size, self.num_workers = batch_size, num_workers
        self.val_size, self.seed = val_size, seed
        self.validates_on = "val" if val_size else "test"
        # name -> (examples, indices of the split)
        self.splits: dict[str, tuple[Examples, Tensor]] = {}
        # the examples of the splits -> their copies on the device, which minibatches are made of
        self.on_device: dict[Examples, Examples] = {}

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Fill those of the splits that are `needed` at the stage."""

    def needed(self, stage: str | None) -> set[str]:
        """The splits that Lightning's stage needs and that are not there yet.

        Without a stage, all are needed.
        """
        splits = {"train", "val", "test"}
        if stage == "fit":
            splits = {"train", self.validates_on}
        elif stage == "test":
            splits = {"test"}
        return splits - self.splits.keys()

    def scale(self, X: Tensor) -> Tensor:
        """Examples as the model sees them, made from examples as they are kept.

        Here the two are the same.
        """
        return X

    def inputs(self, X: Tensor, dtype: torch.dtype) -> Tensor:
        """Examples as a model whose parameters have that dtype sees them."""
        return self.scale(X.double() if dtype == torch.float64 else X)

    @property
    def eval_batch_size(self) -> int:
        """Examples in a minibatch that is not trained on."""
        return max(1, min(EVAL_BATCH_SIZE, EVAL_NUMBERS // self.num_inputs))

    def split_examples(
        self, split: str, which: Tensor | slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Examples of the split, or those at positions `which`, (X, y) as the model sees them."""
        examples, indices = self.splits[split]
        X, y = examples[indices[which]]
        return self.scale(X), y

    # --- what Lightning calls ---------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        return self.loader("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        return self.loader(self.validates_on, self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        return self.loader("test", self.eval_batch_size)

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        X, y = batch
        dtype = (
            torch.float64 if self.trainer and self.trainer.precision == "64-true" else torch.float32
        )
        return [self.inputs(X, dtype), y.to(dtype) if y.is_floating_point() else y]

    def loader(self, split: str, batch_size: int, shuffle: bool = False) -> BatchLoader:
        """Minibatches of the split, for this process of the run.

        Without a trainer there is one process.
        """
        examples, indices = self.splits[split]
        rank, world_size, pin_memory = 0, 1, False
        if self.trainer:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            device = self.trainer.strategy.root_device
            if examples not in self.on_device:
                self.on_device[examples] = to_device(examples, device)
            examples = self.on_device[examples]
            pin_memory = examples.y.device.type != device.type  # a GPU copies while it computes
        indices = indices.to(examples.y.device)
        sampler = BatchSampler(indices, batch_size, shuffle, self.seed, rank, world_size)
        return BatchLoader(examples, sampler, self.num_workers, pin_memory)


def to_device(examples: Examples, device: torch.device) -> Examples:
    """The examples, copied to the device if they fit there, so that no step copies any."""
    if device.type == "cpu":
        return examples
    size = examples.X.nbytes + examples.y.nbytes
    free, _ = torch.cuda.mem_get_info(device)
    if 2 * size > free:  # half is left for the model
        text = "%.0f MB of examples stay on the host; minibatches are copied to %s"
        log.info(text, size / 1e6, device)
        return examples
    log.info("%.0f MB of examples are on %s", size / 1e6, device)
    return Examples(examples.X.to(device), examples.y.to(device))
