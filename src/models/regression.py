"""All that models share, whatever does the arithmetic: hyperparameters, steps and metrics."""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field, PositiveInt
from torch import Tensor

from src.errors import UserError
from src.maths import functional as F
from src.models.compatibility import Data, check_data
from src.models.epoch_means import EpochMeans

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, le=1)]  # on the learning rate, after each epoch


class Diverged(UserError):
    """The loss is no finite number any more, and nothing after it means anything."""

    status = "diverged"  # the run's record has it


class Regression(L.LightningModule, ABC):
    """Predicts values, or labels if it `classifies`, and is fitted by minibatch gradient descent.

    A subclass has parameters, `forward`, `loss`, `training_step` and `configure_optimizers`. If it
    is X W + b, `weights` gives W and b.

    Metrics are logged once per epoch as `stage/name`, stage being train, val or test. Each is the
    exact mean over the examples of the epoch, however uneven the minibatches and the processes.
    Training metrics are those of the model as it was when it saw each minibatch. If the data knows
    the parameters that made it (`truth`), the largest absolute errors of the estimates are logged
    as error/w and error/b.
    """

    num_inputs: int
    num_outputs: int
    classifies = False
    has_members = False
    rounds_output = False  # True once the outputs of a mixed precision are widened

    def __init__(
        self,
        num_inputs: PositiveInt,  # d, features of an example
        num_outputs: PositiveInt,  # q, classes or targets
        lr: Positive,  # learning rate of the first epoch
        gamma: Factor,  # its factor after each epoch; 1 keeps it constant
        weight_decay: NonNegative,  # L2 penalty weight_decay / 2 * (|W|^2 + |b|^2)
        sigma: NonNegative,  # standard deviation of the initial weights
    ):
        super().__init__()
        self.save_hyperparameters(logger=False)  # those of the class that is built
        self.num_inputs, self.num_outputs = num_inputs, num_outputs
        self.lr, self.gamma, self.weight_decay = lr, gamma, weight_decay
        self.means = EpochMeans()
        self.epoch_lr = math.nan  # learning rate of the epoch

    @abstractmethod
    def forward(self, X: Tensor) -> Tensor:
        """Logits or predictions (n, q) of the examples X (n, ...)."""

    @abstractmethod
    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean loss () of the outputs (n, q) for the targets, labels (n,) or values (n, q)."""

    @abstractmethod
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None: ...

    @abstractmethod
    def configure_optimizers(self) -> OptimizerLRScheduler: ...

    def weights(self) -> tuple[Tensor, Tensor] | None:
        """(W (d, q), b (q,)), detached, if the model is X W + b, else None."""
        return None

    def members(self) -> list[dict[str, Any]]:
        """Settings and results of each member of a grid.

        Other models have no members.
        """
        return []

    @property
    def data(self) -> Data:
        """The data module of the run."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def optimizer(self) -> LightningOptimizer:
        """The optimizer of `configure_optimizers`, in the wrapper that counts its steps."""
        return self.optimizers()  # type: ignore[return-value]

    def setup(self, stage: str) -> None:
        check_data(self.data, self.num_inputs, self.num_outputs, self.classifies)
        if self.trainer.precision in ("bf16-mixed", "16-mixed") and not self.rounds_output:
            # Products are made with 16 bits. A loss of their sums needs 32.
            self.register_forward_hook(widen)
            self.rounds_output = True

    # --- metrics ----------------------------------------------------------------------------------

    def count(self, stage: str, output: Tensor, y: Tensor, loss: Tensor) -> None:
        """Let a minibatch count in the means of the epoch: outputs (n, q), targets, mean loss ().

        Raises Diverged if the loss is nan or infinite.
        """
        sums = {"loss": loss.detach() * len(y)}
        if self.classifies:
            sums["acc"] = F.num_correct(output, y)
        self.means.add(stage, len(y), sums)
        # Elsewhere `log_means` finds out: to ask a GPU makes it wait, and one process of several
        # must not stop alone.
        if loss.device.type == "cpu" and self.trainer.world_size == 1:
            self.check_finite(stage, loss.item())

    def log_means(self, stage: str) -> None:
        means = self.means.finish(stage, self.trainer.strategy)
        for name, mean in means.items():
            self.log(f"{stage}/{name}", mean, logger=False)  # History logs it
        self.check_finite(stage, means["loss"].item())

    def check_finite(self, stage: str, loss: float) -> None:
        """Raises Diverged, with the moment and a remedy, if the loss is nan or infinite."""
        if math.isfinite(loss):
            return
        step = self.global_step + (stage == "train")
        advice = self.lower_lr()
        if self.hparams.get("numerics") == "textbook":
            advice += " or take model.numerics=stable"
        when = f"in epoch {self.current_epoch + 1}, step {step}"
        raise Diverged(f"{stage} loss became {loss} {when}; {advice}")

    def lower_lr(self) -> str:
        """The advice that most often helps a run that diverges."""
        return f"lower model.lr (it is {self.lr:g})"

    # --- the loops of Lightning -------------------------------------------------------------------

    def average(self, tensor: Tensor) -> Tensor:
        """The mean of the tensor over the processes that train together.

        A single process gets the tensor itself, in the precision of the parameters. Each process
        has its part of a minibatch. Only backward averages gradients by itself.
        """
        return self.trainer.strategy.reduce(tensor.to(self.dtype), reduce_op="mean")

    def on_train_epoch_start(self) -> None:
        (group, *_) = self.optimizer.param_groups
        self.epoch_lr = group["lr"]

    def on_train_epoch_end(self) -> None:
        self.log("lr", torch.tensor(self.epoch_lr, dtype=torch.float64), logger=False)
        self.log_means("train")
        self.log_errors()
        if not self.automatic_optimization:  # else Lightning has done it
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def log_errors(self) -> None:
        """Log how far the estimates are from the parameters that made the data, if known."""
        truth, weights = self.data.truth, self.weights()
        if truth is None or weights is None:
            return
        for name, estimate, true in zip("wb", weights, truth, strict=True):
            error = (estimate - true.to(estimate)).abs().max()
            self.log(f"error/{name}", error, logger=False)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        X, y = batch
        output = self(X)
        self.count(self.data.validates_on, output, y, self.loss(output, y))

    def on_validation_epoch_end(self) -> None:
        self.log_means(self.data.validates_on)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        X, y = batch
        output = self(X)
        self.count("test", output, y, self.loss(output, y))
        return output

    def on_test_epoch_end(self) -> None:
        self.log_means("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        totals = self.means.state_dict(self.trainer.strategy)
        checkpoint["epoch_so_far"] = {"totals": totals, "lr": self.epoch_lr}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        so_far = checkpoint["epoch_so_far"]
        self.epoch_lr = so_far["lr"]
        self.means.load_state_dict(so_far["totals"], self.trainer.strategy)


def widen(model: Regression, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The output in the precision of the parameters."""
    return output.to(model.dtype)
