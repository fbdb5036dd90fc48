"""What the rows of a run are sent to: one of Lightning's loggers, and what is peculiar to it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.loggers import Logger

from src.runs import Run


class Origin(NamedTuple):
    """The run that the rows are of."""

    run: Run
    epochs: int  # those of its checkpoint, if it goes on, else 0
    identity: str  # the same at every server, for as long as the folder lives
    job: str  # its name in a sweep, as in "lr=0.3 seed=1", else ""
    settings: dict[str, Any]  # dotted key -> value


class Destination:
    """A logger of Lightning's without peculiarities, as CSVLogger is.

    A row is sent with the epoch as its step. A `remote` one is a server, which may fail: what it
    has not taken waits until it answers again.
    """

    remote = False
    advice = "start its server, give it another address"  # when it cannot be begun with
    tested_epoch = 0  # the epoch with which it has results already
    # Arguments of the logger that are not settings, because the run decides them.
    decided: tuple[str, ...] = ()

    def __init__(self, name: str, logger: Logger, origin: Origin):
        self.name, self.logger, self.origin = name, logger, origin

    @classmethod
    def arguments(cls, settings: dict[str, Any], origin: Origin) -> dict[str, Any]:
        """The arguments of the logger that the run decides, and settings that depend on it."""
        return {}

    def open(self) -> int | None:
        """Begin, or go on.

        Returns the last epoch that the logger has already, None if it cannot say.
        """
        self.logger.log_hyperparams(self.origin.settings)
        self.logger.save()
        return 0

    def log_row(self, row: dict[str, float]) -> None:
        metrics = dict(row)
        epoch = int(metrics.pop("epoch"))
        self.logger.log_metrics(metrics, step=epoch)
        self.logger.save()

    def log_results(self, results: dict[str, float], epoch: int) -> None:
        """Log the metrics of the tested model, after the last epoch, as tested/NAME."""
        metrics = {}
        for name, value in results.items():
            metrics[f"tested/{name.replace('/', '_')}"] = value
        self.logger.log_metrics(metrics, step=epoch)
        self.logger.save()

    def log_picture(self, path: Path, pixels: np.ndarray, epoch: int) -> None:
        """Log a picture of the tested model, (height, width, 3) pixels, if pictures are taken."""

    def log_steps(self, metrics: dict[str, float], step: int | None) -> None:
        """Log what a callback of Lightning's measures within epochs, as steps/NAME."""
        named = {f"steps/{name}": value for name, value in metrics.items()}
        self.logger.log_metrics(named, step)

    def address(self) -> str:
        """The server of a remote one."""
        return self.name

    def close(self, finished: bool) -> None:
        """End: the run has finished, or is interrupted and may go on."""


class CSV(Destination):
    """Lightning's CSVLogger, in the folder csv/ of the run; a run that goes on writes it anew."""

    decided = ("save_dir", "name", "version")

    @classmethod
    def arguments(cls, settings: dict[str, Any], origin: Origin) -> dict[str, Any]:
        return {"save_dir": str(origin.run.path), "name": "csv", "version": ""}
