"""What all models share, whoever does the arithmetic: the steps, exact epoch means, checks of the input."""

import math
from typing import Annotated, Any

import lightning as L
import torch
from pydantic import Field
from torch import Tensor

from src.errors import UserError

# Ranges of the hyperparameters, checked by pydantic wherever a model is made.
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(gt=0, le=1)]  # factor of the learning rate after each epoch; 1 is constant
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Diverged(UserError):
    """The loss is no finite number any more; nothing after it means anything."""

    status = "diverged"  # of the run, in its record


class Regression(L.LightningModule):
    """X W + b with a loss. A subclass gives `weights`, `forward`, `loss`, perhaps `sums`, and the updates.

    Metrics are logged once per epoch as `stage/name`, stage being train, val or test. Each is the exact mean
    over the examples of the epoch, however uneven the minibatches and the processes. Training metrics are
    those of the model as it was when it saw each minibatch. If the data knows the parameters that made it
    (`truth`), the largest absolute errors of the estimates are logged as error/w and error/b.
    """

    classifies = False  # whether the targets are labels
    # of every minibatch, and used by none of our models: Lightning passes over a hook that cannot be called
    on_train_batch_start = on_train_batch_end = on_before_backward = on_after_backward = None

    def __init__(self):
        super().__init__()
        self._totals: dict[str, dict[str, Tensor]] = {}  # stage -> metric -> sum over the epoch so far
        self._lr = math.nan  # learning rate of the epoch

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning notes thirty times a step where it is; that torch looks each time whether this is a
        parameter takes 4 % of the step.
        """
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def exact(self) -> torch.dtype:
        """Type of the sums over an epoch: float64, but on Apple's mps, which has none."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def weights(self) -> tuple[Tensor, Tensor]:
        """(W (d, q), b (q,)), detached."""
        raise NotImplementedError

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean loss of a minibatch."""
        raise NotImplementedError

    def sums(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Further metrics, each summed over the minibatch."""
        return {}

    def measure(self, batch: list[Tensor], stage: str) -> tuple[Tensor, Tensor]:
        """(output, mean loss) of the minibatch (X, y); its sums are added to the totals of the epoch."""
        X, y = batch
        self.check_inputs(X)
        output = self(X)
        self.check_targets(output, y)
        loss = self.loss(output, y)
        # before the update; `report` finds out where asking would make every step wait for a device, or leave
        # the other processes waiting for this one
        if loss.device.type == "cpu" and self.trainer.world_size == 1:
            self.check_finite(stage, loss.item())
        n = len(y)
        totals = self._totals.setdefault(stage, {})
        sums = {"loss": loss.detach() * n, **self.sums(output, y), "n": torch.tensor(n, device=loss.device)}
        for name, value in sums.items():
            totals[name] = totals.get(name, 0) + value.to(self.exact)
        return output, loss

    def so_far(self, stage: str) -> tuple[float, float]:
        """(sum of the losses, number) of the examples of the epoch so far, on this process."""
        totals = self._totals[stage]
        return totals["loss"].item(), totals["n"].item()

    def check_inputs(self, X: Tensor) -> None:
        """Raises UserError unless each example has as many features as the model has inputs."""
        features = math.prod(X.shape[1:])
        if features != self.hparams.num_inputs:
            raise UserError(
                f"model.num_inputs is {self.hparams.num_inputs}, but each example of the data has {features} "
                f"features; set model.num_inputs={features} or change the data (data.resize)"
            )

    def check_targets(self, output: Tensor, y: Tensor) -> None:
        """Raises UserError unless the targets are what the model predicts: labels, or values of its shape.

        Without the check, (n, 1) minus (n,) would broadcast to (n, n), and the loss would mean nothing.
        """
        if y.is_floating_point() == self.classifies:
            predicted, given = ("labels", "values") if self.classifies else ("values", "labels")
            raise UserError(
                f"the model predicts {predicted}, but the targets of the data are {given}; "
                "use model=scratch or concise with data=fashion_mnist, the linear models with data=synthetic"
            )
        if not self.classifies and y.shape != output.shape:
            raise UserError(
                f"the targets have shape {tuple(y.shape)}, the predictions {tuple(output.shape)}; "
                "give the data one column per output of the model (model.num_outputs)"
            )

    def check_finite(self, stage: str, loss: float) -> None:
        """Raises Diverged, which says when it happened and what may help, if the loss is nan or infinite."""
        if math.isfinite(loss):
            return
        step = self.global_step + (stage == "train")
        remedy = f"lower model.lr (it is {self.hparams.lr:g})"
        if self.hparams.get("numerics") == "textbook":
            remedy += " or take model.numerics=stable"
        raise Diverged(
            f"the {stage} loss became {loss} in epoch {self.current_epoch + 1}, step {step}; {remedy}"
        )

    def report(self, stage: str) -> None:
        """Log the means of the epoch that ends, over all processes, and begin new totals."""
        totals = self._totals.pop(stage)
        *sums, n = self.trainer.strategy.reduce(torch.stack(list(totals.values())), reduce_op="sum")
        for name, value in zip(totals, sums, strict=False):
            self.log(f"{stage}/{name}", value / n, logger=False)  # History tells the logger
            if name == "loss":
                self.check_finite(stage, (value / n).item())

    def on_train_epoch_start(self) -> None:
        self._lr = self.optimizers(use_pl_optimizer=False).param_groups[0]["lr"]

    def on_train_epoch_end(self) -> None:
        self.log("lr", torch.tensor(self._lr, dtype=self.exact), logger=False)
        self.report("train")
        if self.trainer.datamodule.truth is not None:
            for name, estimate, true in zip("wb", self.weights(), self.trainer.datamodule.truth, strict=True):
                self.log(f"error/{name}", (estimate - true.to(estimate)).abs().max(), logger=False)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Average gradients that were written down, over the processes; DDP averages only those of backward."""
        if self.trainer.world_size > 1 and self.hparams.get("gradient") == "closed_form":
            for parameter in self.parameters():
                parameter.grad = self.trainer.strategy.reduce(parameter.grad, reduce_op="mean")

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradient of the last minibatch, whose norm src.board tells; the next one replaces it."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.measure(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self._totals[self.trainer.datamodule.validates_on] = self._totals.pop("val")
        self.report(self.trainer.datamodule.validates_on)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.measure(batch, "test")

    def on_test_epoch_end(self) -> None:
        self.report("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the epoch so far, over all processes, of which the first takes it up again."""
        together = self.trainer.strategy.reduce
        totals = {
            stage: {name: together(value.clone(), reduce_op="sum") for name, value in totals.items()}
            for stage, totals in self._totals.items()
        }
        checkpoint["epoch_so_far"] = {"totals": totals, "lr": self._lr}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        so_far = checkpoint["epoch_so_far"]
        self._lr = so_far["lr"]
        share = float(self.trainer.is_global_zero)
        self._totals = {
            stage: {name: share * value.to(self.device) for name, value in totals.items()}
            for stage, totals in so_far["totals"].items()
        }
