"""Pictures of examples with their labels, of the weights of classes, and of confusions."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from src.charts import figure
from src.data.module import SplitDataModule

BLACK = "black"
WRONG = "#B34700"  # a darker relative of Okabe and Ito's vermilion, for text on white
COLUMNS = 6
SIDE = 56  # pixels that an image has at least, so that captions have their place
LINE = 0.2  # height of a line of text, as a share of the side of an image
INCHES = 1.3  # width of an image with the gap beside it


def square(X: Tensor) -> Tensor:
    """Examples (n, ...) as images (n, 1, s, s), filled row by row.

    Where the features fill no square, the rest is 0.
    """
    X = X.flatten(1)
    side = math.isqrt(X.shape[1] - 1) + 1
    return F.pad(X, (0, side * side - X.shape[1])).view(-1, 1, side, side)


def gallery(images: Tensor, captions: Sequence[list[tuple[str, str]]], title: str) -> Figure:
    """Images (n, 1 or 3, h, w) in [0, 1], each under its lines of (text, colour), drawn as one."""
    images = F.interpolate(images, scale_factor=-(-SIDE // images.shape[2]))
    n, _, side, wide = images.shape
    columns, gap, line = min(COLUMNS * side // wide, n), round(0.06 * side), LINE * side
    head = round(line * (len(captions[0]) + 0.3))
    cells = F.pad(images, (gap, gap, head, 0), value=1)  # (n, c, head + h, w + 2 gap)
    height, width = cells.shape[2:]
    pixels = make_grid(cells, nrow=columns, padding=0, pad_value=1)  # (3, ...)
    inches = INCHES * pixels.shape[1] / (side + 2 * gap)
    size = max(4.4, inches * pixels.shape[2] / pixels.shape[1]), inches + 0.3
    panel = Figure(figsize=size, facecolor="white")
    ax = panel.add_axes((0, 0, 1, inches / (inches + 0.3)))
    ax.imshow(pixels.permute(1, 2, 0).numpy())
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    for i, lines in enumerate(captions):
        x, y = (i % columns + 0.5) * width, i // columns * height
        for k, (text, colour) in enumerate(lines):
            place = x, y + line * (k + 0.6)
            ax.text(
                *place, text, color=colour, fontsize=9, ha="center", va="center", parse_math=False
            )
    return panel


def weights(runs: dict[str, Tensor], classes: Sequence[str]) -> Figure:
    """Columns of each W (d, q) as images of one scale.

    Each run has a row. A run alone has rows of five.
    """
    limit = max(W.abs().max().item() for W in runs.values())
    columns = min(5, len(classes)) if len(runs) == 1 else len(classes)
    rows = -(-len(runs) * len(classes) // columns)
    panel = figure(INCHES * columns + 0.9, (INCHES + 0.25) * rows + 0.3)
    axes = panel.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    titles = [
        f"{run}\n{name}".strip() if k == 0 else name
        for run in runs
        for k, name in enumerate(classes)
    ]
    images = [image for W in runs.values() for image in square(W.T.cpu().double())[:, 0].numpy()]
    for ax, title, image in zip(axes.flat, titles, images, strict=False):
        drawn = ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_title(title, fontsize=9, loc="left")
    panel.suptitle("weights of each class: red raises its logit, blue lowers it", fontsize=10)
    panel.colorbar(drawn, ax=axes, ticks=[-limit, 0, limit], format="{x:.2g}", aspect=30)
    return panel


def predictions(data: SplitDataModule, y: Tensor, y_hat: Tensor, most: int) -> dict[str, Figure]:
    """The `first` and the first `misclassified` test images, at most `most`.

    The true label stands over the predicted one.
    """
    places = {
        "first": torch.arange(len(y))[:most],
        "misclassified": (y_hat != y).nonzero()[:most, 0],
    }
    drawn = {}
    for name, which in places.items():
        captions = [
            [(data.classes[true], BLACK), (data.classes[guess], BLACK if true == guess else WRONG)]
            for true, guess in zip(y[which], y_hat[which], strict=True)
        ]
        if captions:
            X, _ = data.split_examples("test", which)
            drawn[name] = gallery(
                1 - square(X), captions, f"{name} test images: true over predicted label"
            )
    return drawn


def confusion(matrix: Tensor, classes: Sequence[str]) -> Figure:
    """Counts (q, q): a row for each true class, a column for each predicted one.

    They are coloured by the share of the true class.
    """
    share = (matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    panel = figure(1.5 + 0.66 * len(classes), 1.2 + 0.45 * len(classes))
    ax = panel.subplots()
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(*matrix.shape):
        if matrix[i, j]:
            colour = "white" if share[i, j] > 0.7 else BLACK
            ax.text(j, i, f"{matrix[i, j]}", color=colour, fontsize=9, ha="center", va="center")
    ax.set_xticks(range(len(classes)), [name.replace(" ", "\n") for name in classes], fontsize=9)
    ax.set_yticks(range(len(classes)), classes, fontsize=9)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set(
        title="test images: true class (row) against predicted class (column)", ylabel="true class"
    )
    return panel
