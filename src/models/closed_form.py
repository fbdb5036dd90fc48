"""Softmax regression from scratch whose gradient is written down, not found by autograd: no graph
is built."""

import torch
from torch import Tensor

from src.maths import functional as F
from src.models import scratch


class SoftmaxRegression(scratch.SoftmaxRegression):
    """P(y = j | x) = softmax(x W + b)_j; dW = X^T g and db = the column sums of g, with g =
    `loss_grad`."""

    def loss_grad(self, logits: Tensor, y: Tensor) -> Tensor:
        """(softmax(o) - y) / n (n, q), the derivative of the mean loss with respect to o = X W +
        b."""
        grads = {"stable": F.cross_entropy_grad, "textbook": F.textbook_cross_entropy_grad}
        return grads[self.hparams.numerics](logits, y)

    @torch.no_grad()
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        X, y = batch
        logits, _ = self.measure(batch, "train")
        gradients = F.linear_grad(X.flatten(1), self.loss_grad(logits, y))
        for parameter, grad in zip((self.W, self.b), gradients, strict=True):
            # several processes have each its part of the minibatch; only backward would average by
            # itself
            parameter.grad = self.trainer.strategy.reduce(grad, reduce_op="mean")
        self.optimizers().step()
