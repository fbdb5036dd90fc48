"""The two plain loops that ours is measured against.

They use torch and torchvision alone, and nothing of this project.

Both fit softmax regression on FashionMNIST by minibatch SGD and call `ended` after each epoch: the
textbook loop with the number of right answers on the validation split, the bare loop with the last
minibatch's loss.
"""

from collections.abc import Callable

import torch
import torchvision
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import ToTensor

BATCH_SIZE, LR, GAMMA, SIGMA = 256, 0.1, 0.9, 0.01


def textbook(root: str, train_size: int, val_size: int, epochs: int, ended: Callable) -> None:
    """The loop of the textbook.

    It takes images one by one, softmax and log by definition, and loss and accuracy as numbers at
    each step.
    """
    images = torchvision.datasets.FashionMNIST(root, train=True, transform=ToTensor())
    train = Subset(images, range(train_size))
    val = Subset(images, range(train_size, train_size + val_size))
    W = torch.normal(0, SIGMA, (784, 10), requires_grad=True)
    b = torch.zeros(10, requires_grad=True)

    def measure(X, y):
        exp = torch.exp(X.reshape(-1, 784) @ W + b)
        y_hat = exp / exp.sum(1, keepdim=True)
        loss = -torch.log(y_hat[range(len(y)), y]).mean()
        return loss, loss.item(), (y_hat.argmax(1) == y).sum().item()

    for epoch in range(epochs):
        for X, y in DataLoader(train, BATCH_SIZE, shuffle=True):
            loss, *_ = measure(X, y)
            loss.backward()
            with torch.no_grad():
                for parameter in (W, b):
                    parameter -= LR * GAMMA**epoch * parameter.grad
                    parameter.grad.zero_()
        with torch.no_grad():
            right = [measure(X, y)[-1] for X, y in DataLoader(val, BATCH_SIZE)]
        ended(sum(right))


def bare(root: str, train_size: int, epochs: int, device: str, ended: Callable) -> None:
    """All images as one tensor, a random order, autograd, an update by hand, and nothing else."""
    data = torchvision.datasets.FashionMNIST(root, train=True)
    X, y = data.data[:train_size].to(device).flatten(1) / 255, data.targets[:train_size].to(device)
    W = torch.normal(0, SIGMA, (784, 10), device=device, requires_grad=True)
    b = torch.zeros(10, device=device, requires_grad=True)
    for epoch in range(epochs):
        for batch in torch.randperm(train_size, device=device).split(BATCH_SIZE):
            loss = F.cross_entropy(X[batch] @ W + b, y[batch])
            dW, db = torch.autograd.grad(loss, (W, b))
            with torch.no_grad():
                W -= LR * GAMMA**epoch * dW
                b -= LR * GAMMA**epoch * db
        ended(loss.item())
