"""The one way in which tables are written: on the terminal, in notebooks, in files of Markdown."""

import re
from collections.abc import Iterable

from rich.cells import cell_len

from src.errors import printable

WIDEST = 200  # characters of a cell


def table(rows: Iterable[dict[str, object]]) -> str:
    """A Markdown table with a column for each key of any row, aligned to be read as text too.

    Floats have four significant digits; what a row does not have, or None, is left empty.
    """
    rows = list(rows)
    columns: dict[str, None] = {}  # a set that keeps the order
    for row in rows:
        columns |= dict.fromkeys(row)
    if not columns:
        return ""
    lines = [list(map(_cell, columns))]
    for row in rows:
        lines.append([_cell(row.get(name)) for name in columns])
    widths = [0] * len(columns)
    for cells in lines:
        widths = list(map(max, widths, map(cell_len, cells)))
    rule = "|"
    for width in widths:
        rule += "-" * (width + 2) + "|"
    texts = []
    for cells in lines:
        texts.append(_aligned(cells, widths))
    texts.insert(1, rule)
    return "\n".join(texts)


def _aligned(cells: list[str], widths: list[int]) -> str:
    line = "|"
    for text, width in zip(cells, widths, strict=True):
        line += f" {text}{' ' * (width - cell_len(text))} |"
    return line


def markdown(text: str) -> str:
    """The text as Markdown shows it.

    No part of it is a tag, a link, a picture, code or the end of a cell.
    """
    text = re.sub(r"\\(?=[^\w\s])", r"\\\\", printable(text))
    return re.sub(r"[<`|]|(?<=\])\(", r"\\\g<0>", text)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    if len(text) > WIDEST:
        text = f"{text[: WIDEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    return markdown(text)
