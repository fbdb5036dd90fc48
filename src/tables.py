"""The one way in which tables are written: on the terminal, in notebooks, in files of Markdown."""

import io
import re
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from src.errors import printable

WIDEST = 200  # characters of a cell


def table(rows: Iterable[dict[str, object]]) -> str:
    """A Markdown table, aligned so that it can be read as text too: a column for each key of any
    row.

    Floats have four significant digits; what a row does not have, or None, is left empty.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    drawn = Table(*map(_cell, columns), box=box.MARKDOWN)
    for row in rows:
        drawn.add_row(*(_cell(row.get(key)) for key in columns))
    plain = {
        "color_system": None,
        "force_jupyter": False,
        "markup": False,
        "emoji": False,
        "highlight": False,
    }
    page = Console(file=io.StringIO(), width=10_000, **plain)
    page.print(drawn)
    return "\n".join(line.strip() for line in page.file.getvalue().strip().splitlines())


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
