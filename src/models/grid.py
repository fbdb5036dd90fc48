"""A grid of softmax regressions trained at once, one for each combination of their settings."""

import math
from itertools import product
from typing import Annotated, Any, Literal, TypeVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import BeforeValidator, Field, PositiveInt
from torch import Tensor, vmap

from src.errors import UserError
from src.maths import functional as F
from src.maths import optim
from src.models import closed_form
from src.models.regression import Factor, NonNegative, Positive

T = TypeVar("T")
Some = Annotated[
    list[T], BeforeValidator(lambda x: x if isinstance(x, list) else [x]), Field(min_length=1)
]
AXES = ("lr", "gamma", "weight_decay")  # the settings that the grid combines
# The most that fit into a checkpoint: the weights are 200 MB.
MOST_MEMBERS, MOST_WEIGHTS = 10_000, 50_000_000


class SoftmaxRegression(closed_form.SoftmaxRegression):
    """K softmax regressions that start alike and see the same minibatches, each as if alone.

    `Ws` (d, K, q) and `bs` (K, q) are the weights of all. The model is the best: `W`, `b` and the
    metrics are those of the member with the lowest loss in the last validation. `members` gives the
    settings and the best epoch of each. One whose loss has become nan or infinite is never the best
    again.
    """

    has_members = True
    Ws: Tensor
    bs: Tensor
    settings: Tensor  # (3, K, 1): lr, gamma and weight_decay of each

    def __init__(
        self,
        num_inputs: PositiveInt,
        num_outputs: PositiveInt,
        lr: Some[Positive],
        gamma: Some[Factor],
        weight_decay: Some[NonNegative],
        sigma: NonNegative = 0.01,
        numerics: Literal["stable", "textbook"] = "stable",
    ):
        K = len(lr) * len(gamma) * len(weight_decay)
        if K > MOST_MEMBERS or K * num_inputs * num_outputs > MOST_WEIGHTS:
            size = f"{K:,} members of {num_inputs} x {num_outputs} weights"
            raise UserError(
                f"model=grid has {size}; at most {MOST_MEMBERS:,}, and {MOST_WEIGHTS:,} weights"
            )
        first = {"lr": lr[0], "gamma": gamma[0], "weight_decay": weight_decay[0]}
        super().__init__(
            numerics, num_inputs=num_inputs, num_outputs=num_outputs, sigma=sigma, **first
        )
        self.records: list[dict[str, Any]] = []
        for values in product(lr, gamma, weight_decay):
            self.records.append(dict(zip(AXES, values, strict=True)))
        # The members lie in memory one after the other, each like W: `flatten` needs no copy.
        copies = self.W.detach().T.repeat(K, 1, 1)  # (K, q, d)
        self.register_buffer("Ws", copies.permute(2, 0, 1))  # (d, K, q)
        self.register_buffer("bs", self.b.detach().repeat(K, 1))  # (K, q)
        columns = []
        for name in AXES:
            columns.append([record[name] for record in self.records])
        settings = torch.tensor(columns)
        self.register_buffer("settings", settings[..., None], persistent=False)  # (3, K, 1)

    def members(self) -> list[dict[str, Any]]:
        return self.records

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.data.validates_on != "val":
            raise UserError(
                "model=grid selects by val/loss, but data.val_size=0; try data.val_size=5000"
            )

    def member_logits(self, X: Tensor) -> Tensor:
        """The logits of all members (n, K, q), by one product X (n, d) times (d, K q)."""
        logits = F.linear(X.flatten(1), self.Ws.flatten(1), self.bs.flatten()).to(self.dtype)
        return logits.unflatten(1, self.bs.shape)

    def count_members(self, stage: str, logits: Tensor, y: Tensor) -> None:
        """Let the minibatch count in the means of each member: logits (n, K, q), labels (n,)."""
        loss = vmap(self.loss, in_dims=(1, None))(logits, y)  # (K,)
        correct = vmap(F.num_correct, in_dims=(1, None))(logits, y)  # (K,)
        self.means.add(stage, len(y), {"loss": loss * len(y), "acc": correct})

    @torch.no_grad()
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        X, y = batch
        logits = self.member_logits(X)
        self.count_members("train", logits, y)
        n, K, q = logits.shape
        # The mean loss of these n K examples has a K-th of the gradient of each member.
        grad = K * self.loss_grad(logits.flatten(0, 1), y.repeat_interleave(K))  # (n K, q)
        dWs, dbs = F.linear_grad(X.flatten(1), grad.view(n, K * q))
        self.Ws.grad = self.whole_step(self.Ws, dWs)
        self.bs.grad = self.whole_step(self.bs, dbs)
        self.optimizer.step()

    def whole_step(self, weights: Tensor, grad: Tensor) -> Tensor:
        """The step to subtract from the weights (..., K, q), by the settings of each member."""
        lr, gamma, weight_decay = self.settings  # each (K, 1)
        grad = self.average(grad).view_as(weights)
        return lr * gamma**self.current_epoch * (grad + weight_decay * weights)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        X, y = batch
        self.count_members("val", self.member_logits(X), y)

    def log_means(self, stage: str) -> None:
        """Log the means of the best member, and keep those of each in `records`."""
        if stage == "test":  # only the best is tested
            return super().log_means(stage)
        means = self.means.finish(stage, self.trainer.strategy)  # each (K,)
        if stage == "val":  # at the end of an epoch, before "train"
            self.select(means["loss"].tolist())
        for name, mean in means.items():
            self.log(f"{stage}/{name}", mean[self.best], logger=False)
            for member, value in zip(self.records, mean.tolist(), strict=True):
                if member.get("best_epoch") == self.current_epoch + 1:
                    member[f"{stage}/{name}"] = value

    def select(self, losses: list[float]) -> None:
        """Make the member with the lowest loss the model.

        Raises Diverged if none is left.
        """
        epoch = self.current_epoch + 1
        for member, loss in zip(self.records, losses, strict=True):
            if not math.isfinite(loss):
                member |= {"status": "diverged", "reason": f"in epoch {epoch}"} | member
            elif "status" not in member and loss < member.get("val/loss", math.inf):
                member["best_epoch"] = epoch
        left = []
        for k, member in enumerate(self.records):
            if "status" not in member:
                left.append(k)
        self.best = min(left, key=losses.__getitem__, default=0)
        self.check_finite("val", losses[self.best] if left else math.nan)
        best = self.records[self.best]
        self.epoch_lr = best["lr"] * best["gamma"] ** self.current_epoch
        self.W.copy_(self.Ws[..., self.best, :])
        self.b.copy_(self.bs[..., self.best, :])

    def lower_lr(self) -> str:
        return f"lower the values of model.lr (they are {self.hparams['lr']})"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["members"] = self.records

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.records = checkpoint["members"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optim.SGD([self.Ws, self.bs], lr=1.0)  # each gradient is a whole step
        return {"optimizer": optimizer, "lr_scheduler": optim.ExponentialLR(optimizer, gamma=1.0)}
