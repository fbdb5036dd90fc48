"""Regression from scratch: our maths, parameters of our own making, every update driven by hand.

To be read beside the concise form: sdiff -w 200 src/models/scratch.py src/models/concise.py
"""

from typing import Literal

import torch
from pydantic import PositiveInt, validate_call
from torch import Tensor, nn

from src.maths import functional as F
from src.maths import optim
from src.models.regression import Decay, LearningRate, NonNegative, Regression


class Scratch(Regression):
    """X W + b with W (d, q) ~ N(0, sigma^2) and b (q,) = 0, updated by hand (manual optimization)."""

    def __init__(self, num_inputs: int, num_outputs: int, sigma: float):
        super().__init__()
        self.automatic_optimization = False
        # (d, q), in memory column after column: X W and X^T grad take half the time that rows would
        self.W = nn.Parameter((sigma * torch.randn(num_outputs, num_inputs)).T)
        self.b = nn.Parameter(torch.zeros(num_outputs))

    def weights(self) -> tuple[Tensor, Tensor]:
        return self.W.detach(), self.b.detach()

    def forward(self, X: Tensor) -> Tensor:
        return F.linear(X.flatten(1), self.W, self.b)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        autograd = self.hparams.gradient == "autograd"
        with torch.set_grad_enabled(autograd):
            output, loss = self.measure(batch, "train")
        if autograd:
            self.manual_backward(loss)
        else:
            X, y = batch
            self.W.grad, self.b.grad = F.linear_grad(X.flatten(1), self.loss_grad(output, y))
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.lr_schedulers().step()

    def configure_optimizers(self) -> dict:
        optimizer = optim.SGD(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)
        return {
            "optimizer": optimizer,
            "lr_scheduler": optim.ExponentialLR(optimizer, self.hparams.gamma),
        }


class SoftmaxRegression(Scratch):
    """P(y = j | x) = softmax(x W + b)_j, fitted by minibatch stochastic gradient descent.

    Args:
        num_inputs, num_outputs: d features and q classes.
        lr: learning rate of the first epoch; gamma: its factor after each epoch.
        weight_decay: L2 penalty, weight_decay / 2 * (|W|^2 + |b|^2).
        sigma: standard deviation of the initial W.
        numerics: "stable", or "textbook": softmax without shifting by the maximum, then log(y_hat + 1e-9).
        gradient: "autograd", or "closed_form": X^T (softmax(o) - y) / n, without a graph.
    """

    classifies = True

    @validate_call
    def __init__(
        self,
        num_inputs: PositiveInt = 784,
        num_outputs: PositiveInt = 10,
        lr: LearningRate = 0.1,
        gamma: Decay = 0.9,
        weight_decay: NonNegative = 0.0,
        sigma: NonNegative = 0.01,
        numerics: Literal["stable", "textbook"] = "stable",
        gradient: Literal["autograd", "closed_form"] = "autograd",
    ):
        super().__init__(num_inputs, num_outputs, sigma)
        self.save_hyperparameters(logger=False)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.hparams.numerics == "textbook":
            return F.textbook_cross_entropy(logits, y)
        return F.cross_entropy(logits, y)

    def loss_grad(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.hparams.numerics == "textbook":
            return F.textbook_cross_entropy_grad(logits, y)
        return F.cross_entropy_grad(logits, y)

    def sums(self, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"acc": F.num_correct(logits, y)}


class LinearRegression(Scratch):
    """y = x W + b + noise, fitted by minibatch stochastic gradient descent.

    Args:
        num_inputs, num_outputs: d features and q targets.
        lr: learning rate of the first epoch; gamma: its factor after each epoch.
        weight_decay: L2 penalty, weight_decay / 2 * (|W|^2 + |b|^2).
        sigma: standard deviation of the initial W.
        loss: "l2" is 1/2 d^2, the textbook's: half of the concise form's; "l1" is |d|; "huber" has delta 1.
        gradient: "autograd", or "closed_form": X^T (the loss' derivative) / n, without a graph.
    """

    @validate_call
    def __init__(
        self,
        num_inputs: PositiveInt = 2,
        num_outputs: PositiveInt = 1,
        lr: LearningRate = 0.03,
        gamma: Decay = 1.0,
        weight_decay: NonNegative = 0.0,
        sigma: NonNegative = 0.01,
        loss: Literal["l2", "l1", "huber"] = "l2",
        gradient: Literal["autograd", "closed_form"] = "autograd",
    ):
        super().__init__(num_inputs, num_outputs, sigma)
        self.save_hyperparameters(logger=False)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        losses = {"l2": F.squared_loss, "l1": F.l1_loss, "huber": F.huber_loss}
        return losses[self.hparams.loss](y_hat, y)

    def loss_grad(self, y_hat: Tensor, y: Tensor) -> Tensor:
        grads = {"l2": F.squared_loss_grad, "l1": F.l1_loss_grad, "huber": F.huber_loss_grad}
        return grads[self.hparams.loss](y_hat, y)
