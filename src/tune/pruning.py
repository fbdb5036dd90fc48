"""The end of a trial that others were better than, epoch for epoch."""

import lightning as L
import optuna
from optuna.trial import BaseTrial

from src.training.history import history
from src.training.late import Late


class Pruned(optuna.TrialPruned):
    status = "pruned"  # the run's, in its record


class Prune(Late):
    """Reports val/loss to the trial after each epoch.

    It ends the run if others were better by then.
    """

    def __init__(self, trial: BaseTrial):
        self.trial = trial

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        row = history(trainer).rows[-1]
        if "val/loss" not in row:  # an epoch without validation
            return
        epoch = int(row["epoch"])
        self.trial.report(row["val/loss"], epoch)
        if self.trial.should_prune():
            raise Pruned(f"pruned after epoch {epoch}")
