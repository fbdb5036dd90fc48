"""Exact means over an epoch, and their state for a run that stops within it."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

# stage -> metric -> sum over the epoch so far
State = dict[str, dict[str, Tensor]]


class EpochMeans:
    """Sums of metrics over the examples of this process in an epoch so far, by stage.

    Each stage has "n", the number of its examples, beside the sums of its metrics.
    """

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, Tensor | int]] = {}  # stage -> metric -> sum

    def add(self, stage: str, n: int, sums: dict[str, Tensor]) -> None:
        """Add a minibatch of n examples.

        A sum has one entry for each model if there are several.
        """
        so_far = self.sums.setdefault(stage, {"n": 0})
        so_far["n"] += n  # a number: no device has to be asked
        for name, value in sums.items():
            if value.device.type == "mps":  # it has no 64 bit
                value = value.cpu()
            so_far[name] = so_far.get(name, 0) + value.double()

    def over_processes(self, stage: str, strategy: Strategy) -> dict[str, Tensor]:
        """The sums of all processes.

        The strategy leaves those of a single process alone.
        """
        sums = dict(self.sums[stage])
        zeros = torch.zeros_like(torch.as_tensor(sums["loss"]))
        values = []
        for value in sums.values():
            values.append(zeros + value)
        total = strategy.reduce(torch.stack(values), reduce_op="sum")
        return dict(zip(sums, total, strict=True))

    def finish(self, stage: str, strategy: Strategy) -> dict[str, Tensor]:
        """The means over the epoch that ends.

        The next epoch begins without sums.
        """
        sums = self.over_processes(stage, strategy)
        del self.sums[stage]
        n = sums.pop("n")
        means = {}
        for name, value in sums.items():
            means[name] = value / n
        return means

    def state_dict(self, strategy: Strategy) -> State:
        state = {}
        for stage in self.sums:
            state[stage] = self.over_processes(stage, strategy)
        return state

    def load_state_dict(self, state: State, strategy: Strategy) -> None:
        """Go on within an epoch: the first process has all sums, the others begin with zeros."""
        self.sums.clear()
        device, share = strategy.root_device, int(strategy.is_global_zero)
        for stage, sums in state.items():
            self.sums[stage] = {}
            for name, value in sums.items():
                self.sums[stage][name] = share * value.to(device)
