"""The metrics of a run, epoch by epoch."""

import logging
from operator import itemgetter
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from src.runs import Run, write_csv

MEASURES = ("train", "val", "test", "error")  # stages of a metric
log = logging.getLogger(__name__)


class History(Checkpoint):
    """One row of metrics per epoch: in every checkpoint, in metrics.csv, in the log and in the logger.

    Saves checkpoints/best.ckpt: the epoch with the lowest validation loss; without validation split, the last.
    A resumed run goes on from the rows of its checkpoint. Lightning calls what derives from Checkpoint last,
    when the training metrics are known, and in order: `assemble` puts the history first, so that no checkpoint
    exists whose rows are not in the file and in the logger.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.tested: dict[str, float] = {}  # that of `rows` whose checkpoint is tested

    def on_fit_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if self.rows and trainer.is_global_zero:  # resumed: file and logger may be ahead of the checkpoint
            self.write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        found = dict(sorted(logged(trainer).items()))
        first, epoch = measures(found, "lr"), trainer.current_epoch + 1
        row = {"epoch": epoch, "step": trainer.global_step, **first, **found}
        self.rows.append(row)
        if trainer.is_global_zero:
            self.write(trainer)
            text = "  ".join(f"{name} {value:.4f}" for name, value in first.items())
            log.info("epoch %d/%d  %s", epoch, trainer.max_epochs, text)
        if "val/loss" not in row or row is min(self.rows, key=itemgetter("val/loss")):
            trainer.save_checkpoint(Run(trainer.default_root_dir).best)

    def write(self, trainer: L.Trainer) -> None:
        """Bring the file and the logger to where the rows are."""
        write_csv(Run(trainer.default_root_dir).metrics_csv, self.rows)
        metrics = dict(self.rows[-1])
        epoch = metrics.pop("epoch")
        for logger in trainer.loggers:
            logger.log_metrics(metrics, epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def on_load_checkpoint(self, trainer: L.Trainer, model: L.LightningModule, checkpoint: dict) -> None:
        rows = checkpoint["callbacks"][self.state_key]["rows"]
        if trainer.testing:
            self.tested = rows[-1]
        else:
            self.rows = rows


def history(trainer: L.Trainer) -> History:
    return next(callback for callback in trainer.callbacks if isinstance(callback, History))


def logged(trainer: L.Trainer) -> dict[str, float]:
    """The metrics of the epoch, or of the test, that has ended."""
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def measures(row: dict[str, float], *also: str) -> dict[str, float]:
    """The metrics of the row, not what a callback adds."""
    return {name: value for name, value in row.items() if name.partition("/")[0] in (*MEASURES, *also)}
