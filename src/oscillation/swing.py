"""How much the loss of a run moves, and how much of that is noise."""

from typing import Any

import lightning as L
import torch

from src.errors import UserError
from src.oscillation import mean_change


class Swing(L.Callback):
    """Mean |change| of the loss between minibatches: train/swing; under weights held still:
    train/rest."""

    def __init__(self):
        self.sums = [
            (0.0, 0.0)
        ]  # of the losses and the examples of the epoch, after each minibatch

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        sums = model.means.sums["train"]
        if sums["loss"].ndim:
            raise UserError(
                "model=grid has a loss of each member for a minibatch; leave out callbacks.swing"
            )
        self.sums.append((float(sums["loss"]), float(sums["n"])))

    def on_validation_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        # here the model only evaluates: nothing in it, as a layer that normalizes, changes with
        # what it sees
        data = trainer.datamodule
        loader = data.train_dataloader()  # a new one: the run's own knows how far the run is
        loader.sampler.set_epoch(trainer.current_epoch)
        batches = (data.on_after_batch_transfer(batch, 0) for batch in loader)
        losses = [
            model.loss(model(X.to(model.device)), y.to(model.device)).item() for X, y in batches
        ]
        self.log("train/rest", mean_change(losses), logger=False)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        losses, examples = torch.tensor(self.sums, dtype=torch.float64).diff(dim=0).T
        self.log("train/swing", mean_change((losses / examples).tolist()), logger=False)
        self.sums = [(0.0, 0.0)]

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = state["sums"]
