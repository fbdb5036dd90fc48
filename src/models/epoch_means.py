"""Exact means over an epoch, and their state for a run that stops within it."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

State = dict[str, dict[str, Tensor]]  # stage -> metric -> sum over the epoch so far


class EpochMeans:
    """Sums of metrics over the examples of this process in an epoch so far, by stage.

    Each stage has "n", the number of its examples, beside the sums of its metrics.
    """

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, Tensor | int]] = {}  # stage -> metric -> sum

    def add(self, stage: str, n: int, sums: dict[str, Tensor]) -> None:
        """Add a minibatch of n examples; of several models, a sum has an entry for each."""
        so_far = self.sums.setdefault(stage, {"n": 0})
        so_far["n"] += n  # a number: no device has to be asked
        for name, value in sums.items():
            so_far[name] = so_far.get(name, 0) + value.double()

    def over_processes(self, stage: str, strategy: Strategy) -> dict[str, Tensor]:
        """The sums of all processes; the strategy leaves those of a single one alone."""
        sums = dict(self.sums[stage])
        like = torch.as_tensor(sums["loss"])
        values = [torch.zeros_like(like) + value for value in sums.values()]
        total = strategy.reduce(torch.stack(values), reduce_op="sum")
        return dict(zip(sums, total, strict=True))

    def finish(self, stage: str, strategy: Strategy) -> dict[str, Tensor]:
        """The means over the epoch that ends; the next one begins with nothing."""
        sums = self.over_processes(stage, strategy)
        del self.sums[stage]
        n = sums.pop("n")
        return {name: value / n for name, value in sums.items()}

    def state_dict(self, strategy: Strategy) -> State:
        return {stage: self.over_processes(stage, strategy) for stage in self.sums}

    def load_state_dict(self, state: State, strategy: Strategy) -> None:
        """Go on within an epoch: the first process has all sums, the others begin with zeros."""
        self.sums.clear()
        share = int(strategy.is_global_zero)
        for stage, sums in state.items():
            device = strategy.root_device
            self.sums[stage] = {name: share * value.to(device) for name, value in sums.items()}
