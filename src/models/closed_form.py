"""Softmax regression from scratch with the gradient as a formula: autograd builds no graph."""

import torch
from torch import Tensor

from src.maths import functional as F
from src.models import scratch


class SoftmaxRegression(scratch.SoftmaxRegression):
    """P(y = j | x) = softmax(x W + b)_j, fitted with dW = X^T g and db = the column sums of g.

    g (n, q) is the gradient of the mean loss with respect to the logits, `loss_grad`.
    """

    def loss_grad(self, logits: Tensor, y: Tensor) -> Tensor:
        """(softmax(o) - y) / n (n, q), with y one-hot, for o = X W + b."""
        grads = {"stable": F.cross_entropy_grad, "textbook": F.textbook_cross_entropy_grad}
        return grads[self.hparams["numerics"]](logits, y)

    @torch.no_grad()
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        X, y = batch
        logits = self(X)
        self.count("train", logits, y, self.loss(logits, y))
        dW, db = F.linear_grad(X.flatten(1), self.loss_grad(logits, y))
        self.W.grad = self.average(dW)
        self.b.grad = self.average(db)
        self.optimizer.step()
