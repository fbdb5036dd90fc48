"""Regression from scratch: our maths, parameters of our own making, every update driven by hand.

To be read beside the other form: sdiff -w 200 src/models/scratch.py src/models/concise.py
"""

from typing import Any, Literal

import torch
from pydantic import validate_call
from torch import Tensor, nn

from src.maths import functional as F
from src.maths import optim
from src.models.regression import Regression


class Scratch(Regression):
    """X W + b with W (d, q) ~ N(0, sigma^2) and b (q,) = 0, updated by hand (manual optimization)."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        d, q, sigma = self.hparams.num_inputs, self.hparams.num_outputs, self.hparams.sigma
        self.automatic_optimization = False
        # (d, q), in memory column after column: X W and X^T grad take half the time that rows would
        self.W = nn.Parameter((sigma * torch.randn(q, d)).T)
        self.b = nn.Parameter(torch.zeros(q))

    def weights(self) -> tuple[Tensor, Tensor]:
        return self.W.detach(), self.b.detach()

    def forward(self, X: Tensor) -> Tensor:
        return F.linear(X.flatten(1), self.W, self.b)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        _, loss = self.measure(batch, "train")
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self) -> dict:
        optimizer = optim.SGD(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)
        scheduler = optim.ExponentialLR(optimizer, self.hparams.gamma)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class SoftmaxRegression(Scratch):
    """P(y = j | x) = softmax(x W + b)_j; textbook numerics: no shift by the maximum, log(y_hat + 1e-9)."""

    classifies = True

    @validate_call
    def __init__(self, *, numerics: Literal["stable", "textbook"] = "stable", **settings: Any):
        super().__init__(**settings)
        self.save_hyperparameters("numerics", logger=False)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = {"stable": F.cross_entropy, "textbook": F.textbook_cross_entropy}
        return losses[self.hparams.numerics](logits, y)


class LinearRegression(Scratch):
    """y = x W + b + noise. The loss l2 is 1/2 d^2, the textbook's; l1 is |d|; huber has delta 1."""

    @validate_call
    def __init__(self, *, loss: Literal["l2", "l1", "huber"] = "l2", **settings: Any):
        super().__init__(**settings)
        self.save_hyperparameters("loss", logger=False)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        losses = {"l2": F.squared_loss, "l1": F.l1_loss, "huber": F.huber_loss}
        return losses[self.hparams.loss](y_hat, y)
