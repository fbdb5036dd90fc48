"""The progress bar of a run, on a terminal."""

import lightning as L
import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from src.processes import main_process


class ProgressBar(L.Callback):
    """A bar over the whole fit, below the log lines of a terminal.

    It shows the epoch, the minibatches and the time left.
    """

    def __init__(self):
        columns = (
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            "left",
        )
        visible = rich.get_console().is_terminal and main_process()
        self.bar = Progress(*columns, transient=True, disable=not visible)
        self.task = self.bar.add_task("")

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        self.bar.start()
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        batches = trainer.num_training_batches
        done = trainer.current_epoch * batches + batch_idx + 1
        total = trainer.max_epochs * batches
        self.bar.update(self.task, completed=done, total=total, description=epoch)

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(
        self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException
    ) -> None:
        self.bar.stop()
