"""A grid of softmax regressions trained at once: K members, one for each combination of their
settings."""

import math
from itertools import product
from typing import Annotated, Any, Literal, TypeVar

import torch
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
AXES = ("lr", "gamma", "weight_decay")  # of the grid
MOST_MEMBERS, MOST_WEIGHTS = 10_000, 50_000_000  # so that they, 200 MB, fit into a checkpoint


class SoftmaxRegression(closed_form.SoftmaxRegression):
    """K softmax regressions that start alike and see the same minibatches, each as if it were
    alone.

    `Ws` (d, K, q) and `bs` (K, q) are the weights of all. The model is the best: `W`, `b` and the
    metrics are those of the member with the lowest loss in the last validation. `members` has the
    settings and the best epoch of each; one whose loss has become nan or infinite is never the best
    again.
    """

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
        self.members = [
            dict(zip(AXES, each, strict=True)) for each in product(lr, gamma, weight_decay)
        ]
        # in memory one member after the other, each like W: flattened, they are the matrix of a
        # single product
        self.register_buffer(
            "Ws", self.W.detach().T.repeat(len(self.members), 1, 1).permute(2, 0, 1)
        )
        self.register_buffer("bs", self.b.detach().repeat(len(self.members), 1))
        settings = torch.tensor([[member[name] for member in self.members] for name in AXES])
        self.register_buffer("settings", settings[..., None], persistent=False)  # (3, K, 1)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.trainer.datamodule.validates_on != "val":
            raise UserError(
                "model=grid selects by val/loss, but data.val_size=0; try data.val_size=5000"
            )

    def measure(self, batch: list[Tensor], stage: str) -> tuple[Tensor, Tensor]:
        """(logits (n, K, q), mean losses (K,)) of the members; in the test, those of the best
        alone."""
        if stage == "test":
            return super().measure(batch, stage)
        X, y = batch
        logits = F.linear(X.flatten(1), self.Ws.flatten(1), self.bs.flatten()).unflatten(
            1, self.bs.shape
        )
        loss, correct = (
            vmap(each, in_dims=(1, None))(logits, y) for each in (self.loss, F.num_correct)
        )
        self.means.add(stage, len(y), {"loss": loss * len(y), "acc": correct})
        return logits, loss

    @torch.no_grad()
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        X, y = batch
        logits, _ = self.measure(batch, "train")
        n, K, _ = logits.shape
        # as if of n K examples, whose mean loss has a K-th of each gradient
        grad = K * self.loss_grad(logits.flatten(0, 1), y.repeat_interleave(K)).view(
            n, -1
        )  # (n, K q)
        lr, gamma, weight_decay = self.settings  # each (K, 1)
        for weights, sums in zip(
            (self.Ws, self.bs), F.linear_grad(X.flatten(1), grad), strict=True
        ):
            mean = self.trainer.strategy.reduce(sums, reduce_op="mean").view_as(weights)
            weights.grad = lr * gamma**self.current_epoch * (mean + weight_decay * weights)
        self.optimizers().step()

    def log_means(self, stage: str) -> None:
        if stage == "test":
            return super().log_means(stage)
        means = self.means.finish(stage, self.trainer.strategy)  # each (K,)
        if stage == "val":  # at the end of an epoch, before "train"
            self.select(means["loss"].tolist())
        for name, mean in means.items():
            self.log(f"{stage}/{name}", mean[self.best], logger=False)
            for member, value in zip(self.members, mean.tolist(), strict=True):
                if member.get("best_epoch") == self.current_epoch + 1:
                    member[f"{stage}/{name}"] = value

    def select(self, losses: list[float]) -> None:
        """Make the member with the lowest loss the model. Raises Diverged if none is left."""
        epoch = self.current_epoch + 1
        for member, loss in zip(self.members, losses, strict=True):
            if not math.isfinite(loss):
                member |= {"status": "diverged", "reason": f"in epoch {epoch}"} | member
            elif "status" not in member and loss < member.get("val/loss", math.inf):
                member["best_epoch"] = epoch
        left = [k for k, member in enumerate(self.members) if "status" not in member]
        self.best = min(left, key=losses.__getitem__, default=0)
        self.check_finite("val", losses[self.best] if left else math.nan)
        self.epoch_lr = (
            self.members[self.best]["lr"] * self.members[self.best]["gamma"] ** self.current_epoch
        )
        for own, every in ((self.W, self.Ws), (self.b, self.bs)):
            own.copy_(every[..., self.best, :])

    def lower_lr(self) -> str:
        return f"lower the values of model.lr (they are {self.hparams.lr})"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["members"] = self.members

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.members = checkpoint["members"]

    def configure_optimizers(self) -> dict:
        optimizer = optim.SGD(
            [self.Ws, self.bs], lr=1.0
        )  # each gradient is a whole step of its member
        return {"optimizer": optimizer, "lr_scheduler": optim.ExponentialLR(optimizer, gamma=1.0)}
