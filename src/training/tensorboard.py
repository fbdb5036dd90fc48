"""What TensorBoard shows of a run beside its metrics and the pictures of the tested model (figures.py)."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from pydantic import PositiveInt, validate_call
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from src.charts import png
from src.charts.images import weights
from src.maths import functional as F
from src.runs import Run
from src.training.history import history, logged

# What makes up a recipe, of the model and of the data, where they have it.
MODEL = ("lr", "gamma", "weight_decay", "sigma", "numerics", "loss")
DATA = ("batch_size", "train_size", "val_size", "resize", "noise", "resample")
ESTIMATES = 8  # weights of a linear regression that get a curve each


class OneFile(TensorBoardLogger):
    """Lightning's logger, with one event file for fit and test; `Diagnostics` closes it.

    Lightning closes it after the fit, and the test makes another one. If both are made within a second,
    TensorBoard orders them by their numbers as text, 10 before 9, and drops what it reads last as out of date.
    """

    def __init__(self, *, folder: Path, purge_step: int = 0):
        super().__init__(folder, name="", version="tensorboard", default_hp_metric=False, purge_step=purge_step)

    def finalize(self, status: str) -> None:
        if self._experiment is not None:
            self.experiment.flush()
        if status == "success":
            self.save()


class Diagnostics(Checkpoint):
    """Norms and weights while a model trains, then its settings and results, which HPARAMS sorts by.

    Each epoch it logs the norms of W and b (of a model without `weights`: of every parameter), those of the
    gradient of the last minibatch, and of a linear regression the estimates. The results are those of
    metrics.json, as best/NAME.

    The checkpoint holds what was logged last. A resumed run logs it again: the logger drops it, with all that
    a killed process may have logged after it.

    Args:
        every: epochs between pictures of a classifier's weights, none in a sweep; None draws none.
    """

    @validate_call
    def __init__(self, every: PositiveInt | None = 10):
        self.every = every
        self.scalars: dict[str, float] = {}
        self.W: Tensor | None = None  # (d, q), if the last epoch was one of those with a picture

    def on_fit_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if rows := history(trainer).rows:  # resumed
            self.write(trainer, rows[-1]["step"])

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        W, b = model.weights() or (None, None)
        named = dict(model.named_parameters() if W is None else zip("Wb", model.parameters(), strict=True))
        self.scalars = {f"norm/{name}": parameter.norm().item() for name, parameter in named.items()}
        for name, parameter in named.items():
            if parameter.grad is not None:
                self.scalars[f"gradient/{name}"] = parameter.grad.norm().item()
        if W is not None and not model.classifies:
            self.scalars |= {f"estimate/w{j}": w for j, w in enumerate(W[:ESTIMATES, 0].tolist())}
            self.scalars["estimate/b"] = b[0].item()
        due = (
            self.every
            and (trainer.current_epoch + 1) % self.every == 0
            and not Run(trainer.default_root_dir).in_sweep()
        )
        self.W = W.cpu().clone() if due and W is not None and model.classifies else None
        self.write(trainer, trainer.global_step)

    def write(self, trainer: L.Trainer, step: int) -> None:
        for writer in self.writers(trainer):
            for name, value in self.scalars.items():
                writer.add_scalar(name, value, step)
            if self.W is not None:
                add_picture(writer, "weights", png(weights({"": self.W}, trainer.datamodule.classes)), step)
            writer.flush()

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        epochs = history(trainer)
        step = epochs.rows[-1]["step"]
        results = {name: value for name, value in epochs.tested.items() if "/" in name} | logged(trainer)
        # without the first of the three summaries, a list of hyperparameters and metrics, TensorBoard finds
        # those of all runs; with it, it would take the list of one of them for that of all
        _, *session = hparams(recipe(trainer, model), {})
        for writer in self.writers(trainer):
            for name, value in results.items():
                writer.add_scalar(f"best/{name}", value, step)
            for summary in session:
                writer.file_writer.add_summary(summary, step)
            writer.flush()

    def teardown(self, trainer: L.Trainer, model: L.LightningModule, stage: str) -> None:
        if stage == "test":
            self.close(trainer)

    def on_exception(self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException) -> None:
        self.close(trainer)

    def close(self, trainer: L.Trainer) -> None:
        for writer in self.writers(trainer):
            writer.close()

    def writers(self, trainer: L.Trainer) -> list[SummaryWriter]:
        return writers(trainer) if trainer.is_global_zero else []

    def state_dict(self) -> dict[str, Any]:
        return {"scalars": self.scalars, "W": self.W}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scalars, self.W = state["scalars"], state["W"]


def writers(trainer: L.Trainer) -> list[SummaryWriter]:
    """What writes for TensorBoard, if it is to be written for."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def add_picture(writer: SummaryWriter, name: str, png: bytes, step: int) -> None:
    writer.add_image(name, np.asarray(Image.open(io.BytesIO(png))), step, dataformats="HWC")


def add_classes(writer: SummaryWriter, logits: Tensor, y: Tensor, classes: list[str], step: int) -> None:
    """Of each class: the share of its examples that are recognized, and precision against recall."""
    p, right = F.softmax(logits), logits.argmax(dim=1) == y
    for k, name in enumerate(classes):
        writer.add_scalar(f"class_accuracy/{name}", right[y == k].double().mean(), step)
        writer.add_pr_curve(f"precision_recall/{name}", y == k, p[:, k], step)


def recipe(trainer: L.Trainer, model: L.LightningModule) -> dict[str, Any]:
    """What makes the run what it is, as plain values: the model, its and the data's settings, seed, epochs."""
    data = trainer.datamodule
    form = type(model).__module__.rpartition(".")[2]
    return {
        "model": f"{form}.{type(model).__name__}",
        **{name: model.hparams[name] for name in MODEL if name in model.hparams},
        **{name: getattr(data, name) for name in DATA if hasattr(data, name)},
        "seed": data.seed,
        "max_epochs": trainer.max_epochs,
    }
