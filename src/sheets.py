"""Sheets: images of data with labels, pixel by pixel. Data in, Sheet out; `src.plots.save` writes them.

They are what matplotlib is slow at: a label takes it a millisecond, Pillow a fifteenth of that. Sizes are in
pixels; a sheet is about 800 wide, and white, so that it can be read on any page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

WRONG = "#B34700"  # a darker relative of Okabe and Ito's vermilion, for text on white
BLACK = "black"
GREY = "#595959"
WIDTH = 800
LINE = 17  # height of a line of text
GAP = 6  # between images
BAR = 70  # width of a colour scale
Caption = tuple[str, str]  # text, colour


@dataclass
class Label:
    """Text whose `anchor` (Pillow's: l m r, then t m b) is at x, y."""

    text: str
    x: float
    y: float
    colour: str = BLACK
    anchor: str = "mm"
    size: int = 13


@dataclass
class Sheet:
    """Images (h, w, 3) uint8 at (left, top), enlarged `scale` times, and labels over them."""

    width: int
    height: int
    images: list[tuple[np.ndarray, int, int, int]] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def put(self, image: np.ndarray, left: float, top: float, scale: int = 1) -> None:
        self.images.append((image, round(left), round(top), scale))

    def write(self, *label, **style) -> None:
        self.labels.append(Label(*label, **style))

    def draw(self) -> np.ndarray:
        """The pixels (height, width, 3) uint8."""
        pixels = np.full((self.height, self.width, 3), 255, np.uint8)
        for image, left, top, scale in self.images:
            large = image.repeat(scale, 0).repeat(scale, 1)
            pixels[top : top + len(large), left : left + large.shape[1]] = large
        canvas = Image.fromarray(pixels)
        pen = ImageDraw.Draw(canvas)
        for label in self.labels:
            place = label.x, label.y
            pen.text(place, label.text, fill=label.colour, font=font(label.size), anchor=label.anchor)
        return np.asarray(canvas)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own, so that it is the same one everywhere."""
    path = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def coloured(values: Tensor | np.ndarray, colours: str, low: float, high: float) -> np.ndarray:
    """Values (...) as the colours (..., 3) uint8 of matplotlib's scale of that name, from low to high."""
    share = (np.asarray(values, dtype=float) - low) / ((high - low) or 1)
    return matplotlib.colormaps[colours](share, bytes=True)[..., :3]


def square(X: Tensor) -> Tensor:
    """Examples (n, ...) as images (n, s, s), row by row; where their features fill no square, the rest is 0."""
    X = X.flatten(1)
    side = math.isqrt(X.shape[1] - 1) + 1
    return F.pad(X, (0, side * side - X.shape[1])).view(-1, side, side)


def grid(
    images: Sequence[np.ndarray], captions: Sequence[Sequence[Caption]], columns: int, width: int = WIDTH
) -> Sheet:
    """Square images (s, s, 3), each under its captions, in rows of `columns` that fill the width.

    Images too large for that are drawn pixel by pixel on a wider sheet.
    """
    side = images[0].shape[0]
    scale = max(1, (width // columns - GAP) // side)
    cell = max(width // columns, side * scale + GAP)
    head = LINE * len(captions[0]) + 4
    row = head + side * scale + GAP
    sheet = Sheet(cell * columns, row * -(-len(images) // columns))
    for i, (image, lines) in enumerate(zip(images, captions, strict=True)):
        left, top = i % columns * cell, i // columns * row
        sheet.put(image, left + (cell - side * scale) // 2, top + head, scale)
        for k, (text, colour) in enumerate(lines):
            sheet.write(text, left + cell / 2, top + 4 + LINE * (k + 0.5), colour)
    return sheet


def below(title: str, sheet: Sheet) -> Sheet:
    """The sheet under a title."""
    head = LINE + 10
    moved = [(image, left, top + head, scale) for image, left, top, scale in sheet.images]
    for label in sheet.labels:
        label.y += head
    labels = [Label(title, sheet.width / 2, head / 2, size=14), *sheet.labels]
    return Sheet(sheet.width, sheet.height + head, moved, labels)


def weight_images(W: Tensor, classes: Sequence[str]) -> Sheet:
    """The columns of W (d, q) as images, see `square`: red raises the logit of the class, blue lowers it.

    One scale for all, from minus to plus the largest |W|, is at the right.
    """
    limit = W.abs().max().item()
    images = list(coloured(square(W.T), "RdBu_r", -limit, limit))
    sheet = grid(images, [[(name, BLACK)] for name in classes], columns=5, width=WIDTH - BAR)
    add_scale(sheet, limit)
    return sheet


def compared_weights(runs: dict[str, Tensor], classes: Sequence[str]) -> Sheet:
    """Of each run the columns of its W (d, q) as a row of images under its name, all on one scale."""
    limit = max(W.abs().max().item() for W in runs.values())
    side = max(square(W.T).shape[-1] for W in runs.values())
    cell = max((WIDTH - BAR) // len(classes), side + GAP)
    head, row = 2 * LINE, LINE + cell + GAP
    sheet = Sheet(cell * len(classes), head + row * len(runs))
    for k, name in enumerate(classes):
        for line, word in enumerate(reversed(name.split())):
            sheet.write(word, cell * (k + 0.5), head - LINE * (line + 0.5), GREY, size=12)
    for i, (name, W) in enumerate(runs.items()):
        top = head + i * row
        images = coloured(square(W.T), "RdBu_r", -limit, limit)  # (q, side, side, 3)
        side = images.shape[1]
        scale = max(1, (cell - GAP) // side)
        sheet.write(name, GAP // 2, top + LINE / 2 + 2, anchor="lm")
        for k, image in enumerate(images):
            sheet.put(image, k * cell + (cell - side * scale) // 2, top + LINE + 4, scale)
    add_scale(sheet, limit)
    return sheet


def add_scale(sheet: Sheet, limit: float) -> None:
    """Widen the sheet by the scale of weights from -limit to limit."""
    top, left = LINE + 4, sheet.width + 2
    height = min(sheet.height - top - LINE - GAP, 300)
    levels = np.linspace(limit, -limit, height)[:, None].repeat(14, 1)
    sheet.put(coloured(levels, "RdBu_r", -limit, limit), left, top)
    for text, share in (f"{limit:+.2g}", 0), ("0", 0.5), (f"{-limit:+.2g}", 1):
        sheet.write(text, left + 20, top + share * height, anchor="lm", size=12)
    sheet.width += BAR


def captioned(images: Tensor, captions: Sequence[Sequence[Caption]], title: str) -> Sheet:
    """Images (n, ...) in [0, 1], see `square`, dark on light, each under its captions."""
    grey = (255 - 255 * square(images).clamp(0, 1)).round().to(torch.uint8)
    grey = grey[..., None].expand(-1, -1, -1, 3).numpy()
    return below(title, grid(list(grey), captions, columns=6))


def predictions(images: Tensor, y: Tensor, y_hat: Tensor, classes: Sequence[str], title: str) -> Sheet:
    """Images (n, ...) in [0, 1] with the true label over the predicted one, which is red where it is wrong."""
    captions = [
        [(classes[true], BLACK), (classes[guess], BLACK if true == guess else WRONG)]
        for true, guess in zip(y.tolist(), y_hat.tolist(), strict=True)
    ]
    return captioned(images, captions, f"{title}: true label over predicted label")


def first_and_misclassified(y: Tensor, y_hat: Tensor, most: int) -> dict[str, Tensor]:
    """At which places the first images are, at most `most`, and the first misclassified ones, if there are."""
    chosen = {"first": torch.arange(len(y))[:most], "misclassified": (y_hat != y).nonzero()[:most, 0]}
    return {name: which for name, which in chosen.items() if len(which)}


def confusion(matrix: Tensor, classes: Sequence[str]) -> Sheet:
    """Counts (q, q), row = true class, column = predicted class; coloured by the share of the true class."""
    share = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    left, top, wide, high = 120, 78, 66, 46
    sheet = Sheet(left + wide * len(classes) + 20, top + high * len(classes) + 14)
    sheet.write("test images: true class against predicted class", sheet.width / 2, 16, size=14)
    colours = coloured(share, "Blues", 0, 1).repeat(high, 0).repeat(wide, 1)
    sheet.put(colours, left, top)
    for i, j in np.ndindex(*matrix.shape):
        if matrix[i, j]:
            colour = "white" if share[i, j] > 0.7 else BLACK
            sheet.write(str(int(matrix[i, j])), left + wide * (j + 0.5), top + high * (i + 0.5), colour)
    for k, name in enumerate(classes):
        sheet.write(name, left - 8, top + high * (k + 0.5), anchor="rm")
        for line, word in enumerate(reversed(name.split())):
            sheet.write(word, left + wide * (k + 0.5), top - 12 - 15 * line)
    for line, text in enumerate(("true \N{DOWNWARDS ARROW}", "predicted \N{RIGHTWARDS ARROW}")):
        sheet.write(text, left - 8, top - 12 - 15 * line, GREY, "rm", 12)
    return sheet
