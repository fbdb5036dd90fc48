"""The two plain loops that ours is measured against: torch and torchvision alone, nothing of this project.

Both fit softmax regression on FashionMNIST by minibatch SGD. Only their epochs are timed.

    python -m src.peers ROOT EPOCHS    the textbook loop as a script
"""

import sys
import time
from typing import NamedTuple

import torch
import torchvision
from torch.nn import functional as F
from torch.utils.data import DataLoader, random_split
from torchvision.transforms import ToTensor

BATCH_SIZE, LR, GAMMA, SIGMA = 256, 0.1, 0.9, 0.01
TRAIN, VAL = 55_000, 5_000


class Epoch(NamedTuple):
    seconds: float
    loss: float  # of its last training minibatch, as the model was before it


def textbook(root: str, epochs: int) -> list[Epoch]:
    """The loop as it stands in the textbook: images one by one, softmax and log by definition, a float of
    the loss at every step, an evaluation on the validation split after every epoch.
    """
    images = torchvision.datasets.FashionMNIST(root, train=True, transform=ToTensor())
    train, val = random_split(images, [TRAIN, VAL])
    train_loader = DataLoader(train, BATCH_SIZE, shuffle=True)
    val_loader = DataLoader(val, BATCH_SIZE)
    W = torch.normal(0, SIGMA, (784, 10), requires_grad=True)
    b = torch.zeros(10, requires_grad=True)

    def net(X):
        exp = torch.exp(X.reshape(-1, 784) @ W + b)
        return exp / exp.sum(1, keepdim=True)

    def cross_entropy(y_hat, y):
        return -torch.log(y_hat[range(len(y_hat)), y])

    done = []
    for epoch in range(epochs):
        started = time.perf_counter()
        for X, y in train_loader:
            y_hat = net(X)
            loss = cross_entropy(y_hat, y).mean()
            loss.backward()
            with torch.no_grad():
                for parameter in (W, b):
                    parameter -= LR * GAMMA**epoch * parameter.grad
                    parameter.grad.zero_()
            train_loss = loss.item()
            train_acc = (y_hat.argmax(1) == y).sum().item() / len(y)
        val_loss = val_acc = 0
        with torch.no_grad():
            for X, y in val_loader:
                y_hat = net(X)
                val_loss += cross_entropy(y_hat, y).sum().item() / VAL
                val_acc += (y_hat.argmax(1) == y).sum().item() / VAL
        done.append(Epoch(time.perf_counter() - started, train_loss))
        shown = f"train loss {train_loss:.4f} acc {train_acc:.4f}  val loss {val_loss:.4f} acc {val_acc:.4f}"
        print(f"epoch {epoch + 1}  {shown}")
    return done


def bare(root: str, epochs: int, device: str = "cpu") -> list[Epoch]:
    """All images as one tensor, a random order, autograd, an update by hand, and nothing else: no metrics,
    no validation, no log.
    """
    data = torchvision.datasets.FashionMNIST(root, train=True)
    X = (data.data[:TRAIN].flatten(1) / 255).to(device)
    y = data.targets[:TRAIN].to(device)
    W = torch.normal(0, SIGMA, (784, 10), device=device).requires_grad_()
    b = torch.zeros(10, device=device, requires_grad=True)
    done = []
    for epoch in range(epochs):
        started = time.perf_counter()
        for batch in torch.randperm(TRAIN, device=device).split(BATCH_SIZE):
            loss = F.cross_entropy(X[batch] @ W + b, y[batch])
            dW, db = torch.autograd.grad(loss, (W, b))
            with torch.no_grad():
                W -= LR * GAMMA**epoch * dW
                b -= LR * GAMMA**epoch * db
        last_loss = loss.item()  # on a GPU, this waits until all is done
        done.append(Epoch(time.perf_counter() - started, last_loss))
    return done


if __name__ == "__main__":
    textbook(sys.argv[1], int(sys.argv[2]))
