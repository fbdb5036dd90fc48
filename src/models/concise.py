"""Regression in concise form: torch's layer, loss and optimizer, driven by Lightning.

Read it beside the other form: sdiff -w 200 src/models/scratch.py src/models/concise.py
"""

from collections.abc import Callable
from typing import Any, Literal

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import PositiveInt
from torch import Tensor, nn, optim
from torch.nn import functional as F

from src.models.by_name import OptimizerByName
from src.models.regression import Factor, NonNegative, Positive, Regression


class Concise(Regression):
    """nn.Linear with weight (q, d) ~ N(0, sigma^2) and bias (q,) = 0, updated by Lightning."""

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
        self.linear = nn.Linear(num_inputs, num_outputs)
        nn.init.normal_(self.linear.weight, std=sigma)
        nn.init.zeros_(self.linear.bias)

    def weights(self) -> tuple[Tensor, Tensor]:
        return self.linear.weight.detach().T, self.linear.bias.detach()

    def forward(self, X: Tensor) -> Tensor:
        return self.linear(X.flatten(1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        X, y = batch
        output = self(X)
        loss = self.loss(output, y)
        self.count("train", output, y, loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optim.SGD(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        scheduler = optim.lr_scheduler.ExponentialLR(optimizer, self.gamma)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class SoftmaxRegression(OptimizerByName, Concise):
    """P(y = j | x) = softmax(x W + b)_j."""

    classifies = True

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)


class LinearRegression(OptimizerByName, Concise):
    """y = x W + b + noise.

    The loss l2 is d^2, twice the other form's: at equal lr steps are twice as long.
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
        losses: dict[str, Callable] = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
        return losses[self.hparams["loss"]](y_hat, y)
