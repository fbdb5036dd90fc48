"""Charts that more than one command draws; here what all of them share: colours, an empty figure, the PNG file.

A chart of one command stands with that command. Colours are Okabe and Ito's, told apart by the colour-blind.
"""

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from src.runs import replace

COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73", "lr": "#888888", "wrong": "#D55E00"}
# Okabe and Ito's eight, yellow replaced by grey: on white it is hardly seen
CYCLE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#888888"]


def figure(width: float, height: float) -> Figure:
    """An empty figure, width x height inches, that clips no label."""
    return Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG in one step: a reader finds the old picture or the new one."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # once; Figure.savefig lays everything out twice
    content = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3]).save(content, "PNG", compress_level=1)
    replace(path, content.getvalue())
