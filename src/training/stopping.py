"""How a run ends: after all its epochs, or early, and whether a resumed one goes on."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, Timer

from src.runs import ALL_EPOCHS
from src.training.history import only


class Ending(L.Callback):
    """Lets early stopping follow the present settings of the run, and knows how the run ended.

    A run that early stopping had ended, and whose test was interrupted, only tests when it is
    resumed. One that `goes_on`, because its epochs or its stoppers have been changed, trains on.
    Lightning takes neither from the settings: it forgets that a run was stopped, and restores the
    patience of the checkpoint.
    """

    def __init__(self, goes_on: bool = False):
        self.goes_on = goes_on
        self.stopped = False  # True if the run had been stopped when the checkpoint was saved
        self.patience: dict[EarlyStopping, int] = {}  # as in the settings
        self.how = ALL_EPOCHS

    def setup(self, trainer: L.Trainer, model: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.patience = {}
            for stopper in trainer.early_stopping_callbacks:
                self.patience[stopper] = stopper.patience

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        for stopper, patience in self.patience.items():
            stopper.patience = patience
        trainer.should_stop = self.stopped and not self.goes_on

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if trainer.should_stop:
            self.how = f"a callback at epoch {trainer.current_epoch}"
            left = only(trainer, Timer).time_remaining()
            if trainer.current_epoch == trainer.max_epochs:
                self.how = ALL_EPOCHS
            elif left is not None and left <= 0:
                self.how = f"max_time at epoch {trainer.current_epoch}"
        for stopper in trainer.early_stopping_callbacks:
            if trainer.should_stop and stopper.stopping_reason_message:
                reason = stopper.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
                self.how = f"early stopping at epoch {stopper.stopped_epoch + 1}: {reason}"

    def on_save_checkpoint(
        self, trainer: L.Trainer, model: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["stopped"] = trainer.should_stop

    def on_load_checkpoint(
        self, trainer: L.Trainer, model: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.stopped = checkpoint.get("stopped", False)
