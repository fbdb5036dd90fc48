"""The one way in which tables are written: on the terminal, in notebooks, in files of Markdown."""

import re
from collections.abc import Iterable

from rich.cells import cell_len

from src.errors import printable

WIDEST = 200  # characters of a cell


def table(rows: Iterable[dict[str, object]]) -> str:
    """A Markdown table, aligned so that it can be read as text too: a column for each key of any
    row.

    Floats have four significant digits; what a row does not have, or None, is left empty.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return ""
    drawn = [[_cell(name) for name in columns]]
    for row in rows:
        drawn.append([_cell(row.get(key)) for key in columns])
    widths = [max(map(cell_len, column)) for column in zip(*drawn, strict=True)]
    lines = []
    for cells in drawn:
        line = "|"
        for text, width in zip(cells, widths, strict=True):
            line += f" {text}{' ' * (width - cell_len(text))} |"
        lines.append(line)
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def markdown(text: str) -> str:
    """The text as Markdown shows it: no part of it is a tag, a link, a picture, code or the end of
    a cell."""
    text = re.sub(r"\\(?=[^\w\s])", r"\\\\", printable(text))
    return re.sub(r"[<`|]|(?<=\])\(", r"\\\g<0>", text)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else str(value)
    if len(text) > WIDEST:
        text = f"{text[: WIDEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    return markdown(text)
