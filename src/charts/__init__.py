"""Charts that more than one command draws.

All share their colours, the empty figure and the PNG file.
"""

import functools
import io
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image

from src.runs import write

# Okabe and Ito's colours, which the colour-blind can tell apart; yellow, hardly seen on white,
# replaced by grey
COLOURS = {
    "train": "#0072B2",
    "val": "#E69F00",
    "test": "#009E73",
    "lr": "#888888",
    "wrong": "#D55E00",
}
CYCLE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#888888"]


def figure(width: float, height: float) -> Figure:
    """An empty figure, width x height inches, that clips no label."""
    return Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def short(text: str, most: int = 36) -> str:
    """The text; of a long one the two ends."""
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 1]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


def visible(text: str) -> str:
    """The text with a square for each character that the font does not have.

    Matplotlib would draw one too, but warn of each.
    """
    glyphs = _glyphs()
    return "".join(each if ord(each) in glyphs else "\N{WHITE SQUARE}" for each in text)


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def literal(text: str) -> str:
    """A short and visible text in which matplotlib finds no formula."""
    return visible(short(text)).replace("$", r"\$")


def scale(values: Iterable[float]) -> str:
    """The scale of an axis: "log" or "linear".

    It is "log" if the largest finite value is at least 10 times the smallest.
    """
    finite = [value for value in values if math.isfinite(value)]
    return "log" if 0 < 10 * min(finite, default=0) <= max(finite, default=0) else "linear"


def logarithmic(values: Iterable[float]) -> str:
    """Of an axis for values of any size: "log", if there is one above 0 that it can show."""
    return "log" if any(0 < value < math.inf for value in values) else "linear"


def save(figure: Figure, path: Path) -> np.ndarray:
    """Write the figure as PNG in one step; returns its pixels, (h, w, 3).

    A reader finds the old picture or the new.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # once; Figure.savefig lays everything out twice
    content = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    write(path, content.getvalue())
    return pixels
