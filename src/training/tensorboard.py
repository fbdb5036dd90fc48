"""What TensorBoard shows of a run beside its metrics and the pictures of the tested model (figures.py)."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from src.maths import functional as F
from src.training.history import history, logged, measures

# What makes up a recipe, of the model and of the data, where they have it.
MODEL = ("lr", "gamma", "weight_decay", "sigma", "numerics", "loss")
DATA = ("batch_size", "train_size", "val_size", "resize", "noise")
ESTIMATES = 8  # weights of a linear regression that get a curve each


class OneFile(TensorBoardLogger):
    """Lightning's logger, with one event file for fit and test; `src.training.experiment.fit` closes it.

    Lightning closes it after the fit, and the test makes another one. If both are made within a second,
    TensorBoard orders them by their numbers as text, 10 before 9, and drops what it reads last as out of date.
    """

    def __init__(self, *, folder: Path, purge_step: int = 0):
        super().__init__(folder, name="", version="tensorboard", default_hp_metric=False, purge_step=purge_step)

    def finalize(self, status: str) -> None:
        self.experiment.flush()


class Diagnostics(Callback):
    """Norms and estimates of each epoch, in its row; at the end the settings and results that HPARAMS sorts by.

    The norms are those of W and b (of a model without `weights`: of every parameter) and of the gradient of
    the last minibatch; a linear regression adds its first estimates. The results are those of metrics.json, as
    best/NAME.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        W, b = model.weights() or (None, None)
        named = dict(model.named_parameters() if W is None else zip("Wb", model.parameters(), strict=True))
        found = {f"norm/{name}": parameter for name, parameter in named.items()}
        found |= {f"gradient/{name}": each.grad for name, each in named.items() if each.grad is not None}
        if W is not None and not model.classifies:
            found |= {f"estimate/w{j}": w for j, w in enumerate(W[:ESTIMATES, 0])} | {"estimate/b": b[0]}
        for name, tensor in found.items():
            value = tensor if name.startswith("estimate") else tensor.norm()
            self.log(name, value, logger=False)  # History logs it

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        epochs = history(trainer)
        step = epochs.rows[-1]["step"]
        # without the first of the three summaries, a list of hyperparameters and metrics, TensorBoard finds
        # those of all runs; with it, it would take the list of one of them for that of all
        _, *session = hparams(recipe(trainer, model), {})
        for writer in writers(trainer):
            for name, value in (measures(epochs.tested) | logged(trainer)).items():
                writer.add_scalar(f"best/{name}", value, step)
            for summary in session:
                writer.file_writer.add_summary(summary, step)


def writers(trainer: L.Trainer) -> list[SummaryWriter]:
    """What writes for TensorBoard: on the main process, if it is to be written for."""
    loggers = (each for each in trainer.loggers if isinstance(each, TensorBoardLogger))
    return [logger.experiment for logger in loggers if trainer.is_global_zero]


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
