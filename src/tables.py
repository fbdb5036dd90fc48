"""The one way in which tables are written: on the terminal, in notebooks, in files of Markdown."""

import io
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from src.errors import printable


def table(rows: Iterable[dict[str, object]]) -> str:
    """A Markdown table, aligned so that it can be read as text too: a column for each key of any row.

    Floats have four significant digits; what a row does not have, or None, is left empty.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    drawn = Table(*map(_cell, columns), box=box.MARKDOWN)
    for row in rows:
        drawn.add_row(*(_cell(row.get(key)) for key in columns))
    plain = {"color_system": None, "force_jupyter": False, "markup": False, "emoji": False, "highlight": False}
    page = Console(file=io.StringIO(), width=10_000, **plain)
    page.print(drawn)
    return "\n".join(line.strip() for line in page.file.getvalue().strip().splitlines())


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)
    return printable(text).replace("|", r"\|")
