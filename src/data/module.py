"""What the data modules share: three splits of examples in memory, and the loaders of their
minibatches."""

import logging
from abc import ABC, abstractmethod

import lightning as L
import torch
from torch import Tensor

from src.data.batches import BatchLoader, BatchSampler, Examples

log = logging.getLogger(__name__)
# Examples in a minibatch that is not trained on, and numbers in all of them, which bound its memory;
# means over a split do not depend on it. The numbers are 40 MB: from 32 MB on, malloc gives memory
# back at once, while smaller pieces can leave holes that no later one fits into.
EVAL_BATCH_SIZE, EVAL_NUMBERS = 1000, 10_000_000


class SplitDataModule(L.LightningDataModule, ABC):
    """Loaders over `splits`, which a subclass fills in `setup`: name -> (examples, indices of the
    split).

    A subclass also has the width of its models: `num_inputs` features, `num_outputs` classes or
    targets.

    With val_size=0 the validation loop watches the test set, and `validates_on` says so: its
    metrics are then logged under the name test, and nothing may be selected on them.
    """

    checksums: dict[str, str] | None = (
        None  # SHA-256 of the files that were verified, if there are files
    )
    classes: list[str] | None = None  # names of the labels, if the targets are labels
    resize: int | None = (
        None  # side in pixels of grey images, uint8, that files of pictures can be made into
    )
    truth: tuple[Tensor, Tensor] | None = (
        None  # (W (d, q), b (q,)) that made the targets, if they are known
    )

    def __init__(self, batch_size: int, val_size: int, seed: int, num_workers: int = 0):
        super().__init__()
        self.batch_size, self.val_size, self.seed, self.num_workers = (
            batch_size,
            val_size,
            seed,
            num_workers,
        )
        self.validates_on = "val" if val_size else "test"
        self.splits: dict[str, tuple[Examples, Tensor]] = {}
        self.placed: dict[
            Examples, Examples
        ] = {}  # of the splits -> those that minibatches are made of

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Fill those of the splits that are `needed` at the stage."""

    def needed(self, stage: str | None) -> set[str]:
        """The splits that Lightning's stage needs and that are not there yet; without a stage, all
        of them."""
        splits = {"test": {"test"}, "fit": {"train", self.validates_on}}.get(
            stage, {"train", "val", "test"}
        )
        return splits - self.splits.keys()

    @property
    def eval_batch_size(self) -> int:
        return max(1, min(EVAL_BATCH_SIZE, EVAL_NUMBERS // self.num_inputs))

    def train_dataloader(self) -> BatchLoader:
        return self.loader("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        return self.loader(self.validates_on, self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        return self.loader("test", self.eval_batch_size)

    def split_examples(
        self, split: str, which: Tensor | slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """All examples of the split, or those at the positions `which` in it, (X, y) as the model
        sees them."""
        examples, indices = self.splits[split]
        return tuple(self.on_after_batch_transfer(list(examples[indices[which]]), 0))

    def loader(self, split: str, batch_size: int, shuffle: bool = False) -> BatchLoader:
        examples, indices = self.splits[split]
        trainer, process, pin_memory = self.trainer, {}, False
        if trainer:
            process = {"rank": trainer.global_rank, "world_size": trainer.world_size}
            device = trainer.strategy.root_device
            if examples not in self.placed:
                self.placed[examples] = self.place(examples, device)
            examples = self.placed[examples]
            pin_memory = (
                examples.y.device.type != device.type
            )  # copied from there while a GPU computes
        sampler = BatchSampler(
            indices.to(examples.y.device), batch_size, shuffle, self.seed, **process
        )
        return BatchLoader(examples, sampler, self.num_workers, pin_memory)

    def place(self, examples: Examples, device: torch.device) -> Examples:
        """The examples on the device, as they are (uint8), if they fit there: no step has to copy
        any then."""
        if device.type == "cpu":
            return examples
        size = examples.X.nbytes + examples.y.nbytes
        free, _ = torch.cuda.mem_get_info(device)
        if 2 * size > free:  # half is left for the model
            log.info(
                "%.0f MB of examples stay on the host; minibatches are copied to %s",
                size / 1e6,
                device,
            )
            return examples
        log.info("%.0f MB of examples are on %s", size / 1e6, device)
        return Examples(examples.X.to(device), examples.y.to(device))
