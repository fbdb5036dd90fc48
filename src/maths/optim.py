"""Stochastic gradient descent and its learning rate decay, written out by hand.

Both subclass torch's base classes: the arithmetic is ours, the bookkeeping (parameter groups, state_dict,
step counting) is torch's, so that checkpoints, learning rate monitors and resume work as for any optimizer.
"""

import torch
from torch.optim.lr_scheduler import LRScheduler


class SGD(torch.optim.Optimizer):
    """p <- p - lr * (gradient + weight_decay * p).

    `weight_decay` is torch's: it adds weight_decay * p to the gradient, that is weight_decay / 2 * |p|^2 to
    the loss, for every parameter given.

    Raises ValueError unless lr > 0 and weight_decay >= 0.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0):
        if not lr > 0:
            raise ValueError(f"lr must be > 0, got {lr}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def zero_grad(self) -> None:
        """Forget the gradients, to which backward would add."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, weight_decay = group["lr"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad + weight_decay * p if weight_decay else p.grad
                p -= lr * grad
        return loss


class ExponentialLR(LRScheduler):
    """lr of epoch t = lr_0 * gamma^t, reached by one multiplication after every epoch; gamma = 1 is constant.

    Raises ValueError unless 0 < gamma <= 1.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, gamma: float):
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], got {gamma}")
        self.gamma = gamma
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:  # the base class asks once before the first epoch
            return [group["lr"] for group in self.optimizer.param_groups]
        return [group["lr"] * self.gamma for group in self.optimizer.param_groups]
