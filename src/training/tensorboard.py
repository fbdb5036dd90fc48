"""What TensorBoard shows of a run beside its metrics and the pictures of the tested model (figures.py)."""

import re
from typing import Annotated, Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from pydantic import Field, validate_call
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from src.runs import Run, experiment
from src.training.history import history, logged, measures

LAYOUT = {"training beside validation": {name: ["Multiline", [f"^{name}/"]] for name in ("loss", "acc")}}


class OneFile(TensorBoardLogger):
    """Lightning's logger, with one event file for fit and test; `src.training.experiment.fit` closes it.

    Of two files made within a second TensorBoard may drop one as out of date: it orders them by their numbers
    as text, 10 before 9. Its step is the epoch, so that runs of any batch size can be compared. It opens the
    groups of names that come first in the alphabet: train/loss is loss/train there.

    Args:
        name: folder of the file within that of the run; TensorBoard shows it.
    """

    @validate_call
    def __init__(
        self, name: Annotated[str, Field(pattern=r"^[^./][^/]*$|^$")] = "", *, folder: Any, purge_step: Any = 0
    ):
        super().__init__(folder, name="", version=name, default_hp_metric=False, purge_step=purge_step)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        tags = {re.sub("^(train|val|test)/(.*)", r"\2/\1", name): value for name, value in metrics.items()}
        super().log_metrics(tags, step)
        self.experiment.flush()

    def save(self) -> None:
        """Lightning's hparams.yaml is not written: the run has its config."""

    def finalize(self, status: str) -> None:
        """The file stays open for the test."""


class Diagnostics(Callback):
    """Norms of each epoch, in its row; at the end the settings and results that HPARAMS sorts by.

    The norms are those of W and b (of a model without `weights`: of every parameter) and of the gradient of
    the last minibatch, norm/dW and norm/db. The results are those of metrics.json, as tested/NAME.
    """

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        for writer in writers(trainer):
            writer.add_custom_scalars(LAYOUT)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        named = zip("Wb", model.parameters(), strict=True) if model.weights() else model.named_parameters()
        for name, parameter in named:
            self.log(f"norm/{name}", parameter.norm(), logger=False)  # History logs it
            if parameter.grad is not None:
                self.log(f"norm/d{name}", parameter.grad.norm(), logger=False)

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        epochs = history(trainer)
        epoch = epochs.rows[-1]["epoch"]
        for writer in writers(trainer):
            for name, value in (measures(epochs.tested) | logged(trainer)).items():
                writer.add_scalar(f"tested/{name.replace('/', '_')}", value, epoch)
            settings = experiment(Run(trainer.default_root_dir).recorded())
            settings["trainer.max_epochs"] = trainer.max_epochs
            settings.pop("data.seed", None)  # that of the run
            plain = {key: str(each) if isinstance(each, list) else each for key, each in settings.items()}
            # without the first of the three summaries, a list of hyperparameters and metrics, TensorBoard
            # finds those of all runs; with it, it would take the list of one of them for that of all
            _, *session = hparams(plain, {})
            for summary in session:
                writer.file_writer.add_summary(summary, epoch)


def writers(trainer: L.Trainer) -> list[SummaryWriter]:
    """What writes for TensorBoard: on the main process, if it is to be written for."""
    loggers = (each for each in trainer.loggers if isinstance(each, TensorBoardLogger))
    return [logger.experiment for logger in loggers if trainer.is_global_zero]
