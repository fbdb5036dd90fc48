"""Exact means over an epoch, and their state for a run that stops within it."""

from collections import Counter, defaultdict
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor


class EpochMeans:
    """Sums of metrics over the examples of this process in an epoch so far, and "n", how many, by
    stage."""

    def __init__(self):
        self.sums: dict[str, dict[str, Tensor | int]] = defaultdict(
            Counter
        )  # stage -> metric -> sum

    def add(self, stage: str, n: int, sums: dict[str, Tensor]) -> None:
        """Add a minibatch of n examples; of several models at once, each sum has one entry for
        each."""
        self.sums[stage]["n"] += n  # a number: no device has to be asked
        for name, value in sums.items():
            self.sums[stage][name] += value.double()

    def over_processes(self, stage: str, strategy: Strategy) -> dict[str, Tensor]:
        """The sums of all processes; the strategy leaves those of a single one alone."""
        sums = dict(self.sums[stage])
        sums["n"] = torch.zeros_like(sums["loss"]) + sums["n"]
        return dict(
            zip(sums, strategy.reduce(torch.stack([*sums.values()]), reduce_op="sum"), strict=True)
        )

    def finish(self, stage: str, strategy: Strategy) -> dict[str, Tensor]:
        """The means over the epoch that ends; the next one begins with nothing."""
        sums = self.over_processes(stage, strategy)
        del self.sums[stage]
        n = sums.pop("n")
        return {name: value / n for name, value in sums.items()}

    def state_dict(self, strategy: Strategy) -> dict[str, Any]:
        return {stage: self.over_processes(stage, strategy) for stage in self.sums}

    def load_state_dict(self, state: dict[str, Any], strategy: Strategy) -> None:
        """Go on within an epoch: the first process has all the sums, the others begin with
        zeros."""
        self.sums.clear()
        for stage, sums in state.items():
            share = int(strategy.is_global_zero)
            self.sums[stage] = {
                name: share * value.to(strategy.root_device) for name, value in sums.items()
            }
