"""Stochastic gradient descent and its learning rate decay, written out by hand.

Both subclass torch's base classes: the arithmetic is ours, the bookkeeping (parameter groups,
state_dict, step counting) is torch's, so that checkpoints, learning rate monitors and resume work
as for any optimizer.
"""

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler


class SGD(torch.optim.Optimizer):
    """p <- p - lr * (gradient + weight_decay * p).

    `weight_decay` is torch's: it adds weight_decay * p to the gradient, that is weight_decay / 2 *
    |p|^2 to the loss, for every parameter given.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, to which backward would add."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self, closure=None):
        loss = closure() if closure else None  # a closure may compute the gradients anew
        with torch.no_grad():
            for group in self.param_groups:
                lr, weight_decay = group["lr"], group["weight_decay"]
                for p in group["params"]:
                    if p.grad is not None:
                        p -= lr * (p.grad + weight_decay * p if weight_decay else p.grad)
        return loss


class ExponentialLR(LRScheduler):
    """lr of epoch t = lr_0 * gamma^t, by one multiplication after every epoch.

    gamma = 1 keeps it constant.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        if self.last_epoch == 0:  # the base class asks once before the first epoch
            return [group["lr"] for group in self.optimizer.param_groups]
        return [group["lr"] * self.gamma for group in self.optimizer.param_groups]
