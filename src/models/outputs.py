"""The outputs of a model for the test split, kept while the model is tested."""

import lightning as L
import torch
from torch import Tensor


class Outputs(L.Callback):
    """Keeps what the model gives for each tested example, so that none passes through it twice."""

    def __init__(self) -> None:
        self.minibatches: list[tuple[Tensor, Tensor]] = []  # those that this process has tested

    def on_test_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.minibatches.clear()

    def on_test_batch_end(self, trainer, model, outputs, batch, batch_idx, *_) -> None:
        _, y = batch
        self.minibatches.append((outputs.detach().cpu(), y.cpu()))

    def whole(self, trainer: L.Trainer) -> tuple[Tensor, Tensor]:
        """The outputs (n, q) and the targets of all tested examples, in the order of the split.

        Every process of the run has to ask for them, as each has tested its part.
        """
        outputs, targets = [], []
        for output, y in self.minibatches:
            outputs.append(output)
            targets.append(y)
        output, y = torch.cat(outputs), torch.cat(targets)
        if trainer.world_size == 1:
            return output, y

        parts: list = [None] * trainer.world_size
        torch.distributed.all_gather_object(parts, (output, y))
        n = sum(len(targets) for _, targets in parts)
        whole_output = output.new_empty(n, *output.shape[1:])
        whole_y = y.new_empty(n, *y.shape[1:])
        for rank, (output, y) in enumerate(parts):
            # src.data.batches gives a process each world_size-th example.
            whole_output[rank :: trainer.world_size] = output
            whole_y[rank :: trainer.world_size] = y
        return whole_output, whole_y
