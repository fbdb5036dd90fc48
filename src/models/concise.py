"""Regression in concise form: torch's layer, loss and optimizer; Lightning drives the updates.

To be read beside the scratch form: sdiff -w 200 src/models/scratch.py src/models/concise.py
"""

from typing import Literal

from pydantic import PositiveInt, validate_call
from torch import Tensor, nn, optim
from torch.nn import functional as F

from src.models.regression import Decay, LearningRate, NonNegative, Regression


class Concise(Regression):
    """nn.Linear with weight (q, d) ~ N(0, sigma^2) and bias (q,) = 0, updated by Lightning."""

    def __init__(self, num_inputs: int, num_outputs: int, sigma: float):
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_outputs)
        nn.init.normal_(self.linear.weight, std=sigma)
        nn.init.zeros_(self.linear.bias)

    def weights(self) -> tuple[Tensor, Tensor]:
        return self.linear.weight.detach().T, self.linear.bias.detach()

    def forward(self, X: Tensor) -> Tensor:
        return self.linear(X.flatten(1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        _, loss = self.measure(batch, "train")
        return loss

    def configure_optimizers(self) -> dict:
        optimizer = optim.SGD(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)
        return {
            "optimizer": optimizer,
            "lr_scheduler": optim.lr_scheduler.ExponentialLR(optimizer, self.hparams.gamma),
        }


class SoftmaxRegression(Concise):
    """P(y = j | x) = softmax(x W + b)_j, fitted by minibatch stochastic gradient descent.

    Args:
        num_inputs, num_outputs: d features and q classes.
        lr: learning rate of the first epoch; gamma: its factor after each epoch.
        weight_decay: L2 penalty, weight_decay / 2 * (|W|^2 + |b|^2).
        sigma: standard deviation of the initial W.
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
    ):
        super().__init__(num_inputs, num_outputs, sigma)
        self.save_hyperparameters(logger=False)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def sums(self, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"acc": (logits.argmax(dim=1) == y).sum()}


class LinearRegression(Concise):
    """y = x W + b + noise, fitted by minibatch stochastic gradient descent.

    Args:
        num_inputs, num_outputs: d features and q targets.
        lr: learning rate of the first epoch; gamma: its factor after each epoch.
        weight_decay: L2 penalty, weight_decay / 2 * (|W|^2 + |b|^2).
        sigma: standard deviation of the initial W.
        loss: "l2" is d^2, twice the scratch form's: at equal lr its steps are twice as long; "l1"; "huber".
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
    ):
        super().__init__(num_inputs, num_outputs, sigma)
        self.save_hyperparameters(logger=False)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        losses = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
        return losses[self.hparams.loss](y_hat, y)
