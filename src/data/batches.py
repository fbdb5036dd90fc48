"""Minibatches in an order that (seed, epoch) decides, and a loader that can stop and go on."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler


def generator(*numbers: int) -> torch.Generator:
    """A random generator that the numbers and their order alone decide."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class BatchSampler(Sampler[Tensor]):
    """Minibatches of `indices` (n,) for one epoch.

    The last one is smaller where batch_size does not divide n.

    With `shuffle`, the order is a permutation drawn from (seed, epoch) alone, so that a resumed run
    has the epochs of the uninterrupted one. Lightning calls `set_epoch` before each epoch.

    Of several processes, process `rank` takes positions rank, rank + world_size, ... of that order:
    their k-th minibatches together are the k-th one of a single process with `world_size` times the
    batch size. Without shuffling nothing is left out or repeated; with it, what would give the
    processes unequal counts, and deadlock their gradient exchange, is left out at the end.
    """

    def __init__(
        self,
        indices: Tensor,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.indices, self.batch_size, self.shuffle, self.seed = indices, batch_size, shuffle, seed
        end = len(indices)
        if shuffle:
            end -= end % world_size
        self.positions = slice(rank, end, world_size)  # this process takes these
        self.epoch = 0
        self.skip = 0  # minibatches at the start of the epoch that were used before a resume

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        order = self.indices
        if self.shuffle:
            permutation = torch.randperm(len(order), generator=generator(self.seed, self.epoch))
            order = order[permutation.to(order.device)]
        yield from order[self.positions][self.skip * self.batch_size :].split(self.batch_size)

    def __len__(self) -> int:
        """Minibatches of a whole epoch, whatever is skipped."""
        return len(range(len(self.indices))[self.positions][:: self.batch_size])


class Examples(Dataset):
    """Inputs X (n, ...) and targets y (n, ...) in memory, and so are their minibatches.

    The memory is the host's or a device's.
    """

    def __init__(self, X: Tensor, y: Tensor):
        self.X, self.y = X, y

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        # index_select copies whole rows: four times faster than X[indices] on images
        return self.X.index_select(0, indices), self.y.index_select(0, indices)

    def __len__(self) -> int:
        return len(self.y)


class BatchLoader:
    """Minibatches of the examples as the sampler orders them.

    The loader knows how far into the epoch it is.
    Lightning saves `state_dict()` in every checkpoint; after `load_state_dict` the epoch it was
    taken in goes on behind the minibatches that were used, without loading them again. Other epochs
    are whole.

    Up to `num_workers` minibatches are made ahead, by as many threads: index operations run outside
    of Python's lock. With `pin_memory` a GPU can copy a minibatch while it computes.
    """

    batch_sampler = None  # Lightning asks every loader that has a sampler for it

    def __init__(
        self,
        dataset: Dataset,
        sampler: BatchSampler,
        num_workers: int = 0,
        pin_memory: bool = False,
    ):
        self.dataset, self.sampler = dataset, sampler
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.state = {"epoch": -1, "handed_out": 0}

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Sequence[Tensor]]:
        # This is a generator: nothing is drawn before the first next(), when Lightning has set the
        # sampler's epoch.
        epoch, used = self.sampler.epoch, 0
        if self.state["epoch"] == epoch:
            used = self.state["handed_out"]
        self.sampler.skip = used
        batches = self.made_ahead() if self.num_workers else map(self.batch, self.sampler)
        for handed_out, batch in enumerate(batches, start=used + 1):
            self.state = {"epoch": epoch, "handed_out": handed_out}
            yield batch

    def batch(self, indices: Tensor) -> Sequence[Tensor]:
        batch = self.dataset[indices]
        if self.pin_memory:
            return [tensor.pin_memory() for tensor in batch]
        return batch

    def made_ahead(self) -> Iterator[Sequence[Tensor]]:
        ahead: deque[Future[Sequence[Tensor]]] = deque()
        with ThreadPoolExecutor(self.num_workers) as threads:
            for indices in self.sampler:
                ahead.append(threads.submit(self.batch, indices))
                if len(ahead) > self.num_workers:
                    yield ahead.popleft().result()
            yield from (future.result() for future in ahead)

    def state_dict(self) -> dict[str, int]:
        return self.state

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state = state
