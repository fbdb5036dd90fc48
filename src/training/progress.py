"""The bar that shows how far the training is."""

import lightning as L
import rich
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn


class FitProgress(ProgressBar):
    """A bar over the whole fit, below the log lines of a terminal: epoch, minibatches, time left."""

    def __init__(self):
        super().__init__()
        columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "left"
        self.bar = Progress(*columns, transient=True, disable=not rich.get_console().is_terminal)

    def disable(self) -> None:
        """Lightning calls this on every process but the first."""
        self.bar.disable = True

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        total = trainer.max_epochs * trainer.num_training_batches
        self.task = self.bar.add_task("", total=total, completed=trainer.global_step)
        self.bar.start()

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.bar.update(self.task, advance=1, description=epoch)

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()
