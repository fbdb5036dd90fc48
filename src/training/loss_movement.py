"""How much the loss of a run moves, and how much of that is noise."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

import lightning as L
import torch

from src.errors import UserError


def mean_change(values: Sequence[float]) -> float:
    """Mean |change| from each value to the next.

    It is 0 for one value alone.
    """
    if len(values) < 2:
        return 0.0
    return fmean(abs(after - before) for before, after in pairwise(values))


class LossMovement(L.Callback):
    """Logs how much the training loss moves from minibatch to minibatch, in mean |change|.

    train/swing is measured while the model trains. train/rest is measured over the same minibatches
    under weights that are held still: what is left of it is the noise of the minibatches.
    """

    def __init__(self):
        # After each minibatch: the losses and the examples of the epoch so far, summed.
        self.sums = [(0.0, 0.0)]

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        sums = model.means.sums["train"]
        if sums["loss"].ndim:
            raise UserError(
                "model=grid has a loss of each member for a minibatch; "
                "leave out callbacks.loss_movement"
            )
        self.sums.append((float(sums["loss"]), float(sums["n"])))

    def on_validation_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        # During validation the model only evaluates: no layer changes with what it sees.
        data = trainer.datamodule
        loader = data.train_dataloader()  # a new one: the run's own knows how far the run is
        loader.sampler.set_epoch(trainer.current_epoch)
        losses = []
        for X, y in loader:
            X, y = data.on_after_batch_transfer([X.to(model.device), y.to(model.device)], 0)
            losses.append(model.loss(model(X), y).item())
        self.log("train/rest", mean_change(losses), logger=False)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        # The differences of the sums are the loss and the examples of each minibatch.
        losses, examples = torch.tensor(self.sums, dtype=torch.float64).diff(dim=0).T
        self.log("train/swing", mean_change((losses / examples).tolist()), logger=False)
        self.sums = [(0.0, 0.0)]

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = state["sums"]
