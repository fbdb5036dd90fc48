"""Regression from scratch: our maths, our own parameters, every update driven by hand.

Read it beside the other form: sdiff -w 200 src/models/scratch.py src/models/concise.py
"""

from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import PositiveInt
from torch import Tensor, nn

from src.maths import functional as F
from src.maths import optim
from src.models.regression import Factor, NonNegative, Positive, Regression


class Scratch(Regression):
    """X W + b with W (d, q) ~ N(0, sigma^2) and b (q,) = 0, updated by hand."""

    def __init__(
        self,
        num_inputs: PositiveInt,  # d, features of an example
        num_outputs: PositiveInt,  # q, classes or targets
        lr: Positive = 0.1,  # learning rate of the first epoch
        gamma: Factor = 0.9,  # its factor after each epoch; 1 keeps it constant
        weight_decay: NonNegative = 0.0,  # L2 penalty weight_decay / 2 * (|W|^2 + |b|^2)
        sigma: NonNegative = 0.01,  # standard deviation of the initial weights
    ):
        super().__init__(num_inputs, num_outputs, lr, gamma, weight_decay, sigma)
        self.automatic_optimization = False  # Lightning leaves the updates to training_step
        # This is nn.Parameter(sigma * torch.randn(num_inputs, num_outputs)), but in memory column
        # after column: X W and X^T grad take half the time that rows would.
        self.W = nn.Parameter((sigma * torch.randn(num_outputs, num_inputs)).T)
        self.b = nn.Parameter(torch.zeros(num_outputs))

    def weights(self) -> tuple[Tensor, Tensor]:
        return self.W.detach(), self.b.detach()

    def forward(self, X: Tensor) -> Tensor:
        return F.linear(X.flatten(1), self.W, self.b)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        X, y = batch
        output = self(X)
        loss = self.loss(output, y)
        self.count("train", output, y, loss)
        self.optimizer.zero_grad()
        self.manual_backward(loss)
        self.optimizer.step()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optim.SGD(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        scheduler = optim.ExponentialLR(optimizer, self.gamma)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class SoftmaxRegression(Scratch):
    """P(y = j | x) = softmax(x W + b)_j.

    Textbook numerics have no shift by the maximum, and the log of y_hat + 1e-9.
    """

    classifies = True

    def __init__(self, numerics: Literal["stable", "textbook"] = "stable", **shared: Any):
        super().__init__(**shared)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = {"stable": F.cross_entropy, "textbook": F.textbook_cross_entropy}
        return losses[self.hparams["numerics"]](logits, y)


class LinearRegression(Scratch):
    """y = x W + b + noise.

    The loss l2 is 1/2 d^2, the textbook's; l1 is |d|; huber has delta 1.
    """

    def __init__(
        self,
        lr: Positive = 0.03,
        gamma: Factor = 1.0,
        loss: Literal["l2", "l1", "huber"] = "l2",
        **shared: Any,
    ):
        super().__init__(lr=lr, gamma=gamma, **shared)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        losses = {"l2": F.squared_loss, "l1": F.l1_loss, "huber": F.huber_loss}
        return losses[self.hparams["loss"]](y_hat, y)
