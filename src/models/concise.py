"""Regression in concise form: torch's layer, loss and optimizer; Lightning drives the updates.

To be read beside the other form: sdiff -w 200 src/models/scratch.py src/models/concise.py
"""

from typing import Any, Literal

from pydantic import validate_call
from torch import Tensor, nn, optim
from torch.nn import functional as F

from src.models.regression import Regression


class Concise(Regression):
    """nn.Linear with weight (q, d) ~ N(0, sigma^2) and bias (q,) = 0, updated by Lightning."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        d, q, sigma = self.hparams.num_inputs, self.hparams.num_outputs, self.hparams.sigma
        self.linear = nn.Linear(d, q)
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
        scheduler = optim.lr_scheduler.ExponentialLR(optimizer, self.hparams.gamma)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class SoftmaxRegression(Concise):
    """P(y = j | x) = softmax(x W + b)_j."""

    classifies = True

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)


class LinearRegression(Concise):
    """y = x W + b + noise. The loss l2 is d^2, twice the other form's: at equal lr steps are twice as long."""

    @validate_call
    def __init__(self, *, loss: Literal["l2", "l1", "huber"] = "l2", **settings: Any):
        super().__init__(**settings)
        self.save_hyperparameters("loss", logger=False)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        losses = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
        return losses[self.hparams.loss](y_hat, y)
