"""The bar that shows how far the training is."""

import time

import lightning as L
import rich
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from src.training.history import history


class FitProgress(ProgressBar):
    """A bar over the whole fit, on a terminal only: epoch, minibatches, examples/s, last result, time left."""

    REFRESH = 0.1  # seconds between updates: a bar that is redrawn every minibatch slows the training

    def __init__(self):
        super().__init__()
        self.enabled = rich.get_console().is_terminal
        self.bar: Progress | None = None

    def disable(self) -> None:
        """Called by Lightning on every process but the first."""
        self.enabled = False

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if not self.enabled:
            return
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[result]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            transient=True,
        )
        total = trainer.max_epochs * trainer.num_training_batches
        empty = {"epoch": "", "rate": "", "result": ""}
        self.task = self.bar.add_task("fit", total=total, completed=trainer.global_step, **empty)
        self.bar.start()
        self.drawn, self.examples, self.started = 0.0, 0, time.monotonic()

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        if self.bar is None:
            return
        now = time.monotonic()
        self.examples += len(batch[1]) * trainer.world_size
        if now - self.drawn >= self.REFRESH:
            self.drawn = now
            self.bar.update(
                self.task,
                completed=trainer.current_epoch * trainer.num_training_batches + batch_idx + 1,
                epoch=f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
                rate=f"{self.examples / (now - self.started):,.0f} examples/s",
                result=self.result(history(trainer).rows),
            )

    def result(self, rows: list[dict[str, float]]) -> str:
        """val/acc of the last epoch, or what there is in its place."""
        watched = ("val/acc", "test/acc", "val/loss", "test/loss")
        return next((f"{name} {rows[-1][name]:.4f}" for name in watched if rows and name in rows[-1]), "")

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_exception(self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, model)
