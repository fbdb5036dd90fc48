"""Exact means over an epoch, and their state for a run that stops within it."""

from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor


class EpochMeans:
    """Metrics summed over the examples of an epoch so far, by stage; on each process those of its examples.

    The strategy adds the processes up, and leaves a single process alone.
    """

    def __init__(self):
        self.totals: dict[str, dict[str, Tensor]] = {}  # stage -> metric -> sum
        self.counts: dict[str, int] = {}  # stage -> examples, counted where no device has to be asked

    def add(self, stage: str, n: int, sums: dict[str, Tensor]) -> None:
        """Add a minibatch of n examples; of several models at once, each sum has one entry for each."""
        totals = self.totals.setdefault(stage, {})
        self.counts[stage] = self.counts.get(stage, 0) + n
        for name, value in sums.items():
            totals[name] = totals.get(name, 0) + value.double()

    def over_processes(self, stage: str, strategy: Strategy) -> dict[str, Tensor]:
        """Sums, and "n", the number of examples, of all processes."""
        totals = {**self.totals[stage], "n": torch.full_like(self.totals[stage]["loss"], self.counts[stage])}
        sums = strategy.reduce(torch.stack(list(totals.values())), reduce_op="sum")
        return dict(zip(totals, sums, strict=True))

    def finish(self, stage: str, strategy: Strategy) -> dict[str, Tensor]:
        """The means over the epoch that ends; the next one begins with nothing."""
        sums = self.over_processes(stage, strategy)
        n = sums.pop("n")
        del self.totals[stage], self.counts[stage]
        return {name: value / n for name, value in sums.items()}

    def state_dict(self, strategy: Strategy) -> dict[str, Any]:
        return {stage: self.over_processes(stage, strategy) for stage in self.totals}

    def load_state_dict(self, state: dict[str, Any], strategy: Strategy) -> None:
        """Go on within an epoch: the first process has all the sums, the others begin with zeros."""
        share = int(strategy.is_global_zero)
        self.totals, self.counts = {}, {}
        for stage, totals in state.items():
            sums = {name: share * value.to(strategy.root_device) for name, value in totals.items()}
            self.counts[stage] = int(sums.pop("n").max())
            self.totals[stage] = sums
