"""Pictures made of images: examples with their labels, weights of classes, and the confusion matrix."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from src.charts import COLOURS, figure

BLACK, WRONG = "black", "#B34700"  # a darker relative of Okabe and Ito's vermilion, for text on white
SIDE = 56  # pixels that an image has at least, so that captions have their place
LINE = 0.2  # height of a line of text, as a share of the side of an image
INCHES = 1.3  # width of an image with the gap beside it
Caption = tuple[str, str]  # text, colour


def square(X: Tensor) -> Tensor:
    """Examples (n, ...) as images (n, s, s), row by row; where their features fill no square, the rest is 0."""
    X = X.flatten(1)
    side = math.isqrt(X.shape[1] - 1) + 1
    return F.pad(X, (0, side * side - X.shape[1])).view(-1, side, side)


def gallery(
    images: Tensor,
    captions: Sequence[Sequence[Caption]],
    columns: int,
    title: str = "",
    colours: str = "gray_r",
    limits: tuple[float, float] = (0, 1),
) -> Figure:
    """Images (n, s, s), each under its captions, in rows of `columns`, drawn as one.

    Args:
        captions: for each image its lines of text.
        colours: matplotlib's name of a scale, from the lower to the upper one of the `limits`.
    """
    images = images.repeat_interleave(-(-SIDE // images.shape[-1]), 1)
    images = images.repeat_interleave(images.shape[1] // images.shape[2], 2)
    columns = min(columns, len(images))
    side, rows = images.shape[-1], -(-len(images) // columns)
    gap, line = round(0.06 * side), LINE * side  # on each side, of text
    head = round(line * (len(captions[0]) + 0.3))
    cells = F.pad(images, (gap, gap, head, 0), value=math.nan)  # (n, head + s, s + 2 gap)
    pixels = make_grid(cells[:, None], nrow=columns, padding=0, pad_value=math.nan)[0]
    top = 0.35 if title else 0.05  # inches
    width, height = INCHES * columns, INCHES * rows * cells.shape[1] / cells.shape[2]
    panel = Figure(figsize=(width, top + height + 0.1), dpi=100, facecolor="white")
    ax = panel.add_axes((0, 0.1 / (top + height + 0.1), 1, height / (top + height + 0.1)))
    ax.imshow(pixels.numpy(), cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    ax.set_axis_off()
    for i, lines in enumerate(captions):
        x, y = (i % columns + 0.5) * cells.shape[2] - 0.5, i // columns * cells.shape[1]
        for k, (text, colour) in enumerate(lines):
            ax.text(x, y + line * (k + 0.6), text, color=colour, fontsize=9, ha="center", va="center")
    if title:
        panel.text(0.5, 1 - 0.17 / (top + height + 0.1), title, ha="center", va="center", fontsize=10)
    return panel


def weights(runs: dict[str, Tensor], classes: Sequence[str]) -> Figure:
    """The columns of each W (d, q) as images, see `square`: red raises the logit of the class, blue lowers it.

    Args:
        runs: name -> W.

    A row for each run, under its name; of a single run with more than five classes, rows of five. One scale for
    all, from minus to plus the largest |W|, is at the right.
    """
    limit = max(W.abs().max().item() for W in runs.values())
    columns = len(classes) if len(runs) > 1 else min(5, len(classes))
    images = [square(W.T.cpu()) for W in runs.values()]
    side = max(each.shape[-1] for each in images)
    images = torch.cat([F.interpolate(each[:, None], (side, side))[:, 0] for each in images])
    captions = [
        [*[(name if k == 0 else "", BLACK)] * (len(runs) > 1), (each, BLACK)]
        for name in runs
        for k, each in enumerate(classes)
    ]
    panel = gallery(images, captions, columns, "", "RdBu_r", (-limit, limit))
    (ax,) = panel.axes
    for text in ax.texts[:: len(captions[0]) * len(classes)] if len(runs) > 1 else []:  # names of runs
        text.set(x=2, ha="left", weight="bold")
    width, height = panel.get_size_inches()
    panel.set_size_inches(width + 0.9, height)
    left, low, wide, high = ax.get_position().bounds
    ax.set_position((left, low, wide * width / (width + 0.9), high))
    bar = panel.add_axes((width / (width + 0.9), low, 0.15 / (width + 0.9), min(0.85 * high, 3 / height)))
    panel.colorbar(ax.images[0], cax=bar, ticks=[-limit, 0, limit], format="{x:.2g}")
    return panel


def predictions(images: Tensor, y: Tensor, y_hat: Tensor, classes: Sequence[str], title: str) -> Figure:
    """Images (n, ...) in [0, 1] with the true label over the predicted one, which is red where it is wrong."""
    captions = [
        [(classes[true], BLACK), (classes[guess], BLACK if true == guess else WRONG)]
        for true, guess in zip(y.tolist(), y_hat.tolist(), strict=True)
    ]
    return gallery(square(images), captions, 6, f"{title}: true label over predicted label")


def first_and_misclassified(y: Tensor, y_hat: Tensor, most: int) -> dict[str, Tensor]:
    """At which places the first images are, at most `most`, and the first misclassified ones, if there are."""
    chosen = {"first": torch.arange(len(y))[:most], "misclassified": (y_hat != y).nonzero()[:most, 0]}
    return {name: which for name, which in chosen.items() if len(which)}


def confusion(matrix: Tensor, classes: Sequence[str]) -> Figure:
    """Counts (q, q), row = true class, column = predicted class; coloured by the share of the true class."""
    share = (matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    panel = figure(1.5 + 0.66 * len(classes), 1.2 + 0.45 * len(classes))
    ax: Axes = panel.subplots()
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(*matrix.shape):
        if matrix[i, j]:
            colour = "white" if share[i, j] > 0.7 else BLACK
            ax.text(j, i, f"{matrix[i, j]}", color=colour, fontsize=9, ha="center", va="center")
    ax.set_xticks(range(len(classes)), [name.replace(" ", "\n") for name in classes], fontsize=9)
    ax.set_yticks(range(len(classes)), classes, fontsize=9)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set(title="test images: true class (row) against predicted class (column)", ylabel="true class")
    ax.spines[:].set_color(COLOURS["lr"])
    return panel
