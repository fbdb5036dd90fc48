"""When to write, save, draw and print: the history of the metrics, checkpoints, figures, a progress bar.

What else TensorBoard shows is in board.py.
"""

import io
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
from PIL import Image
from pydantic import Field, PositiveFloat, PositiveInt, validate_call
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.functional import confusion_matrix

from src import plots, sheets
from src.maths import functional as F
from src.runs import write_csv
from src.sheets import Sheet

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
        metrics = dict(sorted(logged(trainer).items()))
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **metrics})
        if trainer.is_global_zero:
            self.write(trainer)
            said = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            log.info("epoch %d/%d  %s", trainer.current_epoch + 1, trainer.max_epochs, said)

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        metrics = logged(trainer).items()
        self.tell(trainer, {name: value for name, value in metrics if name not in self.rows[-1]})

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


class Swing(L.Callback):
    """train/swing: mean |change| of the loss from one minibatch of an epoch to the next."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.last: float | None = None
        self.seen, self.changes, self.total = (0.0, 0.0), 0, 0.0

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        loss_sum, n = model.so_far("train")
        loss = (loss_sum - self.seen[0]) / (n - self.seen[1])
        if self.last is not None:
            self.changes, self.total = self.changes + 1, self.total + abs(loss - self.last)
        self.last, self.seen = loss, (loss_sum, n)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.log("train/swing", self.total / max(self.changes, 1), logger=False)
        self.restart()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("last", "seen", "changes", "total")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


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
        self.received = 0  # signal to stop, if any

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.saved = time.monotonic()
        # in place of Lightning's handlers, which it sets before this hook and takes away after the fit
        if threading.current_thread() is threading.main_thread():
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
        due = (steps and trainer.global_step % steps == 0) or (
            seconds and time.monotonic() - self.saved >= seconds
        )
        if wanted := self.agreed(trainer, self.received or int(bool(due))):
            self.save(trainer, wanted)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.save(trainer, self.agreed(trainer, self.received or 1))

    def agreed(self, trainer: L.Trainer, wanted: int) -> int:
        """What the processes of the run want together: nothing (0), a save (1), or to heed a signal."""
        if trainer.world_size == 1:
            return wanted
        return int(trainer.strategy.reduce(torch.tensor(float(wanted)), reduce_op="max"))

    def save(self, trainer: L.Trainer, wanted: int) -> None:
        trainer.save_checkpoint(self.path)
        self.saved = time.monotonic()
        if wanted > 1:
            raise SystemExit(128 + wanted)


class Figures(Checkpoint):
    """PNG files in `folder`: curves.png while the model trains; after the test, pictures of the tested model.

    The curves are redrawn after an epoch if all redrawing so far and this one take at most `share` of the time
    since the start, and at the end. In a Jupyter notebook they are redrawn in place after every epoch.
    TensorBoard shows the pictures of the tested model too, as best/NAME, and of a classifier the accuracy and
    the precision-recall curve of each class.

    Args:
        folder: made when first needed.
        draw: false draws nothing.
        scale: of the loss axis, "linear" or "log".
        share: of the time, in [0, 1]; 1 draws after every epoch, 0 at the end only.
        embed: how many test images TensorBoard's projector is to place by their logits, 0 to 1000.
    """

    @validate_call
    def __init__(
        self,
        folder: Path,
        draw: bool = True,
        scale: Literal["linear", "log"] = "linear",
        share: Annotated[float, Field(ge=0, le=1)] = 0.01,
        embed: Annotated[int, Field(ge=0, le=1000)] = 0,
    ):
        self.folder, self.draw, self.scale, self.share, self.embed = folder, draw, scale, share, embed
        self.drawing = 0.0  # seconds spent
        self.cost = 0.2  # seconds for one more: a guess, until one is drawn
        self.display = None  # of the notebook

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if not self.draws(trainer) or trainer.current_epoch + 1 == trainer.max_epochs:
            return  # the last one is drawn after the test, with its results
        affordable = self.drawing + self.cost <= self.share * (time.monotonic() - self.started)
        if self.share == 1 or affordable or in_notebook():
            started = time.monotonic()
            self.draw_curves(history(trainer).rows)
            self.cost = time.monotonic() - started
            self.drawing += self.cost

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if not self.draws(trainer):
            return
        told, data = history(trainer), trainer.datamodule
        step = told.rows[-1]["step"]
        self.draw_curves([row | logged(trainer) if row == told.tested else row for row in told.rows])
        output, y = outputs(model, data)
        for name, picture in pictures(model, data, output, y).items():
            png = plots.png(picture)
            plots.save(png, self.folder / f"{name}.png")
            for writer in writers(trainer):
                add_picture(writer, f"best/{name}", png, step)
        for writer in writers(trainer) if model.classifies else []:
            add_classes(writer, output, y, data.classes, step)
            if self.embed:
                images, labels = data.whole("test", slice(self.embed))
                names = [data.classes[k] for k in labels.tolist()]
                writer.add_embedding(output[: self.embed], names, 1 - images, step, "logits")

    def draws(self, trainer: L.Trainer) -> bool:
        return self.draw and trainer.is_global_zero

    def draw_curves(self, rows: list[dict[str, float]]) -> None:
        path = self.folder / "curves.png"
        plots.save(plots.curves(rows, self.scale), path)
        if in_notebook():
            self.show(path)

    def show(self, picture: Path) -> None:
        """Show the picture in the notebook, in the place of the last one."""
        from IPython.display import Image, display

        image = Image(picture.read_bytes())
        if self.display is None:
            self.display = display(image, display_id=True)
        else:
            self.display.update(image)


def history(trainer: L.Trainer) -> History:
    return next(callback for callback in trainer.callbacks if isinstance(callback, History))


def logged(trainer: L.Trainer) -> dict[str, float]:
    """The metrics of the epoch, or of the test, that has ended."""
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def writers(trainer: L.Trainer) -> list[SummaryWriter]:
    """What writes for TensorBoard, if it is to be written for."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def add_picture(writer: SummaryWriter, name: str, png: bytes, step: int) -> None:
    """SummaryWriter.add_image for a picture that is encoded already, which is most of the work."""
    width, height = Image.open(io.BytesIO(png)).size
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@torch.inference_mode()
def outputs(model: L.LightningModule, data: L.LightningDataModule) -> tuple[Tensor, Tensor]:
    """What the model makes of the test split (n, q), and its targets, both on the CPU.

    A part at a time: to allocate the whole split as float32 can take longer than to compute with it.
    """
    parts = torch.arange(len(data.splits["test"][1])).split(1000)
    found = [(model(X.to(model.device)).cpu(), y) for X, y in (data.whole("test", part) for part in parts)]
    return torch.cat([output for output, _ in found]), torch.cat([y for _, y in found])


def pictures(
    model: L.LightningModule, data: L.LightningDataModule, output: Tensor, y: Tensor, most: int = 18
) -> dict[str, Figure | Sheet]:
    """What there is to see of a trained model and its `outputs`, by file name.

    Of a classifier of images: its weights, if it has `weights`, as images, the confusion matrix, the first
    `most` test images and the first `most` misclassified ones. Of a linear regression with known parameters:
    the fit.
    """
    weights = [parameter.cpu() for parameter in model.weights() or ()]
    if not model.classifies:
        return {"fit": plots.fit(*data.whole("test"), *weights, data.truth)} if weights else {}
    y_hat = output.argmax(dim=1)
    matrix = confusion_matrix(y_hat, y, task="multiclass", num_classes=len(data.classes))
    drawn = {"weights": sheets.weight_images(weights[0], data.classes)} if weights else {}
    drawn["confusion"] = sheets.confusion(matrix, data.classes)
    for name, which in sheets.first_and_misclassified(y, y_hat, most).items():
        X, _ = data.whole("test", which)
        title = f"{name} test images"
        drawn[f"predictions_{name}"] = sheets.predictions(X[:, 0], y[which], y_hat[which], data.classes, title)
    return drawn


def add_classes(writer: SummaryWriter, logits: Tensor, y: Tensor, classes: list[str], step: int) -> None:
    """Of each class: the share of its examples that are recognized, and precision against recall."""
    p, right = F.softmax(logits), logits.argmax(dim=1) == y
    for k, name in enumerate(classes):
        writer.add_scalar(f"class_accuracy/{name}", right[y == k].double().mean(), step)
        writer.add_pr_curve(f"precision_recall/{name}", y == k, p[:, k], step)


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
