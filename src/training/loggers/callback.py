"""The loggers of a run among the callbacks, and as Lightning sees them."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from src.runs import Run
from src.training.history import history, logged, measures
from src.training.late import Late
from src.training.loggers.destination import Destination
from src.training.loggers.sender import Sender


class Loggers(Late):
    """Gives the sender what is measured, as soon as it is.

    `seen` has what Lightning sees of each logger, by name.
    """

    def __init__(self, sender: Sender, seen: dict[str, "Forwarding"]):
        self.sender, self.seen = sender, seen

    def on_fit_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.sender.open()
        for destination in self.sender.destinations:
            self.seen[destination.name].destination = destination
        for row in history(trainer).rows:
            self.sender.row(row)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.sender.row(history(trainer).rows[-1])

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        epochs = history(trainer)
        epoch = int(epochs.rows[-1]["epoch"])
        self.sender.results(measures(epochs.tested) | logged(trainer), epoch)

    def picture(self, trainer: L.Trainer, path: Path, pixels: np.ndarray) -> None:
        epoch = int(history(trainer).rows[-1]["epoch"])
        self.sender.picture(path, pixels, epoch)

    def teardown(self, trainer: L.Trainer, model: L.LightningModule, stage: str) -> None:
        if stage == "test":
            self.sender.close(finished=True)

    def on_exception(
        self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException
    ) -> None:
        self.sender.close(finished=False)


class Forwarding(Logger):
    """What the Trainer and the callbacks of Lightning's see of a destination.

    It forwards what they log within epochs. Lightning begins and ends nothing of a run's loggers.
    """

    def __init__(self, name: str, run: Run):
        super().__init__()
        self.key, self.run = name, run
        # The main process of the run has one, from the start of the fit on.
        self.destination: Destination | None = None

    @property
    def name(self) -> str:
        return self.key

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.run.path)

    @property
    def experiment(self) -> Any:
        return self.destination.logger.experiment if self.destination else None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.destination:
            self.destination.log_steps(metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings of the run have been logged already."""
