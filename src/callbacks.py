"""When to write, save, draw and print: the history of the metrics, checkpoints, figures, a progress bar."""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import lightning as L
import rich
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from pydantic import Field, PositiveFloat, PositiveInt, validate_call
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torchmetrics.functional import confusion_matrix

from src import plots
from src.runs import write_csv

log = logging.getLogger(__name__)


class History(Checkpoint):
    """One row of metrics per epoch: in every checkpoint, in `path` (CSV), in the log, and told to the logger.

    A resumed run goes on from the rows of its checkpoint, whatever the file said; the test, which begins from
    the checkpoint of the best epoch, changes none. The class derives from Checkpoint because Lightning calls
    those last at the end of an epoch, when the training metrics are known, and in order: listed before the
    checkpoints, it is saved with the row of the epoch that ends, and no checkpoint exists whose rows are not
    in the file and in the logger.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self.tested: dict[str, float] = {}  # that of `rows` whose checkpoint is tested
        self.testing = False
        self.seconds = 0.0  # of training before this process
        self.started: float | None = None

    def setup(self, trainer: L.Trainer, model: L.LightningModule, stage: str) -> None:
        self.testing = stage == "test"

    def on_fit_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if self.rows and trainer.is_global_zero:  # resumed: file and logger may be ahead of the checkpoint
            self.write(trainer)

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        metrics = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **metrics})
        if trainer.is_global_zero:
            self.write(trainer)
            said = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            log.info("epoch %d/%d  %s", trainer.current_epoch + 1, trainer.max_epochs, said)

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.tell(trainer, {name: value for name, value in metrics.items() if name not in self.rows[-1]})

    def write(self, trainer: L.Trainer) -> None:
        """Bring the file and the logger to where the rows are."""
        write_csv(self.path, self.rows)
        row = self.rows[-1]
        self.tell(trainer, {name: value for name, value in row.items() if name not in ("epoch", "step")})

    def tell(self, trainer: L.Trainer, metrics: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, self.rows[-1]["step"])
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()

    def trained(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.seconds + (time.monotonic() - self.started if self.started else 0)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.trained()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.testing:
            self.tested = state["rows"][-1]
        else:
            self.rows, self.seconds = state["rows"], state["seconds"]


class Best(ModelCheckpoint):
    """ModelCheckpoint that keeps track of the best epoch even if the run folder has moved since."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        def moved(path: str) -> str:
            return os.path.join(self.dirpath, os.path.basename(path))

        paths = {name: moved(state[name]) for name in ("best_model_path", "kth_best_model_path")}
        scores = {moved(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict({**state, **paths, "best_k_models": scores, "dirpath": self.dirpath})


class Last(Checkpoint):
    """The state to resume from, in `path`: saved after every epoch, and within epochs as often as asked.

    SIGTERM and Ctrl-C save it too and end the run, with status 143 or 130, as soon as the minibatch or the
    validation under way is done: an exception in the middle of an update would leave half of it in the
    weights. A second Ctrl-C ends the run at once, without saving. Other errors save nothing, for the same
    reason. (ModelCheckpoint saves then, and knows no time interval under manual optimization.)

    Args:
        every_n_train_steps: updates between saves within an epoch; None saves at its end only.
        every_n_seconds: likewise, by the clock.
    """

    @validate_call
    def __init__(
        self,
        path: Path,
        every_n_train_steps: PositiveInt | None = None,
        every_n_seconds: PositiveFloat | None = None,
    ):
        self.path, self.every_n_train_steps, self.every_n_seconds = path, every_n_train_steps, every_n_seconds
        self.received: int | None = None  # a signal to stop

    def on_fit_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():  # Lightning restores the old ones
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, self.on_signal)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.received == signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            return  # the end of the epoch is near, and saves
        steps, seconds = self.every_n_train_steps, self.every_n_seconds
        if (
            self.received
            or (steps and trainer.global_step % steps == 0)
            or (seconds and time.monotonic() - self.saved >= seconds)
        ):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved = time.monotonic()
        if self.received:
            raise SystemExit(128 + self.received)


class Figures(Checkpoint):
    """PNG files in `folder`: curves.png while the model trains; after the test, pictures of the tested model.

    The curves are redrawn after an epoch as long as drawing takes at most `share` of the time since the start,
    and at the end. In a Jupyter notebook they are redrawn in place after every epoch.

    Args:
        folder: made when first needed.
        draw: false draws nothing.
        scale: of the loss axis, "linear" or "log".
        share: of the time, in [0, 1]; 1 draws after every epoch.
    """

    @validate_call
    def __init__(
        self,
        folder: Path,
        draw: bool = True,
        scale: Literal["linear", "log"] = "linear",
        share: Annotated[float, Field(ge=0, le=1)] = 0.03,
    ):
        self.folder, self.draw, self.scale, self.share = folder, draw, scale, share
        self.drawing = 0.0  # seconds spent
        self.drawn = 0  # epochs in the last picture
        self.display = None  # of the notebook

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        affordable = self.drawing <= self.share * (time.monotonic() - self.started)
        if affordable or in_notebook():
            self.draw_curves(trainer)

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.draw_curves(trainer)

    def draw_curves(self, trainer: L.Trainer) -> None:
        rows = history(trainer).rows
        if not self.draw or not trainer.is_global_zero or len(rows) == self.drawn:
            return
        started = time.monotonic()
        path = self.folder / "curves.png"
        plots.save(plots.curves(rows, self.scale), path)
        if in_notebook():
            self.show(path)
        self.drawing += time.monotonic() - started
        self.drawn = len(rows)

    def show(self, picture: Path) -> None:
        """Show the picture in the notebook, in the place of the last one."""
        from IPython.display import Image, display

        image = Image(picture.read_bytes())
        if self.display is None:
            self.display = display(image, display_id=True)
        else:
            self.display.update(image)

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if self.draw and trainer.is_global_zero:
            for name, picture in pictures(model, trainer.datamodule).items():
                plots.save(picture, self.folder / f"{name}.png")


def history(trainer: L.Trainer) -> History:
    return next(callback for callback in trainer.callbacks if isinstance(callback, History))


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@torch.inference_mode()
def pictures(model: L.LightningModule, data: L.LightningDataModule, most: int = 18) -> dict[str, Figure]:
    """What there is to see of a trained model on its test split, by file name.

    Of a classifier of images: its weights as images, the confusion matrix, the first `most` test images and
    the first `most` misclassified ones. Of a linear regression with known parameters: the fit.
    """
    X, y = data.whole("test")
    W, b = (parameter.cpu() for parameter in model.weights())
    if data.classes is None:
        return {"fit": plots.fit(X, y, W, b, data.truth)}
    y_hat = (X.flatten(1) @ W + b).argmax(dim=1)
    matrix = confusion_matrix(y_hat, y, task="multiclass", num_classes=len(data.classes))
    grids = plots.first_and_misclassified(X[:, 0], y, y_hat, data.classes, most)
    return {
        "weights": plots.weight_images(W, data.classes),
        "confusion": plots.confusion(matrix, data.classes),
        **{f"predictions_{name}": grid for name, grid in grids.items()},
    }


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
