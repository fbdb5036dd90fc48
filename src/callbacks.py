"""What is written and shown while a model trains: the history of its metrics, and a progress bar."""

import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import rich
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from src.runs import write_csv

log = logging.getLogger(__name__)


class History(Checkpoint):
    """One row of metrics per epoch: kept in every checkpoint, written to `path` (CSV), said in the log.

    A resumed run thus goes on from the rows of its checkpoint, whatever the file said. It derives from
    Checkpoint because Lightning calls those last at the end of an epoch, when the training metrics are known,
    and in order: listed before the checkpoints, it is saved with the row of the epoch that ends.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        metrics = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **metrics})
        if trainer.is_global_zero:
            write_csv(self.path, self.rows)
            said = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            log.info("epoch %d/%d  %s", trainer.current_epoch + 1, trainer.max_epochs, said)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]


class FitProgress(ProgressBar):
    """A bar over the whole fit, on a terminal only: epoch, minibatches, examples/s, time left."""

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
            TimeRemainingColumn(),
            TextColumn("left"),
            transient=True,
        )
        total = trainer.max_epochs * trainer.num_training_batches
        self.task = self.bar.add_task("fit", total=total, completed=trainer.global_step, epoch="", rate="")
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
            )

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_exception(self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, model)
