"""The bar that shows how far the training is."""

import time

import lightning as L
import rich
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from src.training.history import history

REFRESH = 0.1  # seconds between updates: a bar that is redrawn every minibatch slows the training
WATCHED = (
    "val/acc",
    "test/acc",
    "val/loss",
    "test/loss",
)  # the first of these that the last epoch has is shown


class FitProgress(ProgressBar):
    """A bar over the whole fit, on a terminal only: epoch, minibatches, examples/s, last result, time left."""

    def __init__(self):
        super().__init__()
        self.enabled = rich.get_console().is_terminal
        self.bar = Progress(disable=True)

    def disable(self) -> None:
        """Lightning calls this on every process but the first."""
        self.enabled = False

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        fields = (TextColumn(f"{{task.fields[{name}]}}") for name in ("epoch", "rate", "result"))
        epoch, rate, result = fields
        columns = epoch, BarColumn(), MofNCompleteColumn(), rate, result, TimeRemainingColumn()
        self.bar = Progress(*columns, TextColumn("left"), transient=True, disable=not self.enabled)
        total = trainer.max_epochs * trainer.num_training_batches
        self.task = self.bar.add_task(
            "", total=total, completed=trainer.global_step, epoch="", rate="", result=""
        )
        self.bar.start()
        self.drawn, self.examples, self.started = 0.0, 0, time.monotonic()

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        now = time.monotonic()
        self.examples += len(batch[1]) * trainer.world_size
        if now - self.drawn < REFRESH:
            return
        self.drawn = now
        last = history(trainer).rows[-1:]
        self.bar.update(
            self.task,
            completed=trainer.current_epoch * trainer.num_training_batches + batch_idx + 1,
            epoch=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            rate=f"{self.examples / (now - self.started):,.0f} examples/s",
            result=next((f"{name} {row[name]:.4f}" for row in last for name in WATCHED if name in row), ""),
        )

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()
