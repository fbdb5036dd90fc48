"""Regression from scratch whose gradients are written down, not found by autograd: no graph is built."""

import torch
from torch import Tensor

from src.maths import functional as F
from src.models import scratch


class ClosedForm(scratch.Scratch):
    """X W + b updated by dW = X^T g and db = the column sums of g.

    A subclass gives g = `loss_grad` (n, q), the derivative of the mean loss with respect to X W + b.
    """

    @torch.no_grad()
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        X, y = batch
        output, _ = self.measure(batch, "train")
        gradients = F.linear_grad(X.flatten(1), self.loss_grad(output, y))
        for parameter, grad in zip((self.W, self.b), gradients, strict=True):
            # several processes have each its part of the minibatch; only backward would average by itself
            parameter.grad = self.trainer.strategy.reduce(grad, reduce_op="mean")
        self.optimizers().step()


class SoftmaxRegression(ClosedForm, scratch.SoftmaxRegression):
    """P(y = j | x) = softmax(x W + b)_j, with dW = X^T (softmax(o) - y) / n."""

    def loss_grad(self, logits: Tensor, y: Tensor) -> Tensor:
        grads = {"stable": F.cross_entropy_grad, "textbook": F.textbook_cross_entropy_grad}
        return grads[self.hparams.numerics](logits, y)


class LinearRegression(ClosedForm, scratch.LinearRegression):
    """y = x W + b + noise, with dW = X^T (y_hat - y) / n for the loss 1/2 d^2."""

    def loss_grad(self, y_hat: Tensor, y: Tensor) -> Tensor:
        grads = {"l2": F.squared_loss_grad, "l1": F.l1_loss_grad, "huber": F.huber_loss_grad}
        return grads[self.hparams.loss](y_hat, y)
