"""YAML, JSON and CSV: files of plain values, which anybody may have made, and files for others.

A text is parsed once, into plain values of bounded size and number, so no short file can take all
memory.
"""

import csv
import io
import json
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import yaml

from src.errors import UserError
from src.files import TEXT, open_regular, read, write

NODES, DEPTH = 100_000, 32  # values of a text, and levels of nesting
CHARACTERS = 10_000  # characters of a single value
TABLE = 1 << 23  # bytes of metrics.csv
ROWS, COLUMNS, CELLS = 20_000, 200, 500_000  # metrics.csv has a row for each epoch
# A spreadsheet takes a cell that begins like this for a formula.
SPREADSHEET = ("=", "+", "-", "@", "\t", "\r")
TAGS = "tag:yaml.org,2002:"
SCALARS = tuple(TAGS + kind for kind in ("null", "bool", "int", "float", "str"))
YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that in C is ten times as fast


def read_yaml(path: Path, within: Path | None = None, interpolations: bool = False) -> Any:
    """The plain values of a YAML file, as `check_plain` has them.

    Raises FileNotFoundError, and UserError if the file is damaged or holds anything else: without
    `interpolations`, also a text that OmegaConf would follow.
    """
    text = read(path, within=within)
    try:
        content = _parse_yaml(text)
        check_plain(content)
        if "${" in text and not interpolations and "${" in json.dumps(content):
            raise ValueError("it holds an interpolation")
    except (yaml.YAMLError, ArithmeticError, ValueError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return content


def _parse_yaml(text: str) -> Any:
    """The values of a YAML text.

    Raises ValueError for a text that stands for more than it shows, and for too many values.
    """
    depth = 0
    for number, event in enumerate(yaml.parse(text, YamlLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds an alias")
        tag = getattr(event, "tag", None)
        if tag:
            raise ValueError(f"it holds a tag, {tag}")
        if isinstance(event, yaml.ScalarEvent):
            _check_length(event.value)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH or number > NODES:
            raise ValueError(
                f"it has more than {NODES:,} values, or is nested deeper than {DEPTH} levels"
            )
    loader = YamlLoader(text)
    try:
        root = loader.get_single_node()
        return None if root is None else _value(root, loader)
    finally:
        loader.dispose()


def dump_yaml(content: Any) -> str:
    """A YAML text of plain values.

    Raises ValueError if it could not be read again.
    """
    text = yaml.safe_dump(content)
    if len(text) > TEXT:
        raise ValueError(f"it has {len(text):,} characters, more than {TEXT:,}")
    try:
        _parse_yaml(text)
    except yaml.YAMLError as error:  # as of half a character
        raise ValueError(str(error)) from error
    return text


def _value(node: yaml.Node, loader: yaml.SafeLoader) -> Any:
    """The value of the node; dates, and keys that are no text, have none here."""
    if isinstance(node, yaml.MappingNode):
        mapping = {}
        for key, value in node.value:
            if key.tag != SCALARS[-1]:
                raise ValueError(f"{key.value!r} is no name of a setting")
            mapping[key.value] = _value(value, loader)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, loader) for item in node.value]
    if node.tag not in SCALARS:
        raise ValueError(f"{node.value!r} is no plain value")
    return loader.construct_object(node)


def read_json(path: Path, within: Path | None = None) -> Any:
    """The plain values of a JSON file; it raises the same errors as `read_yaml`."""
    try:
        content = json.loads(read(path, within=within))
        check_plain(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return content


def check_plain(content: Any, depth: int = 0) -> None:
    """Raises ValueError for anything but plain values.

    These are None, bool, an int of 64 bits, float, a text of a few lines that can be written in
    UTF-8, and lists of these and dicts of these by name.
    """
    if depth > DEPTH:
        raise ValueError(f"it is nested deeper than {DEPTH} levels")
    if isinstance(content, dict):
        for key, value in content.items():
            if not isinstance(key, str):
                raise ValueError(f"{key!r} is no name of a setting")
            check_plain(key, depth + 1)
            check_plain(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            check_plain(value, depth + 1)
    elif isinstance(content, str):
        _check_length(content)
        content.encode()  # raises UnicodeEncodeError, a ValueError, for half a character
    elif isinstance(content, int):
        if abs(content) >= 1 << 63:
            raise ValueError("it has an integer of more than 64 bits")
    elif content is not None and not isinstance(content, float):
        raise ValueError(f"it has a {type(content).__name__}, which is no plain value")


def _check_length(text: str) -> None:
    if len(text) > CHARACTERS:
        raise ValueError(f"it has a text of {len(text):,} characters, more than {CHARACTERS:,}")


def read_rows(path: Path, within: Path | None = None) -> list[dict[str, float]]:
    """The rows of a table of numbers, as metrics.csv is; empty cells are left out."""
    rows: list[dict[str, float]] = []
    try:
        with TextIOWrapper(open_regular(path, TABLE, within), "utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = next(reader, [])
            most = min(ROWS, CELLS // max(len(columns), 1))
            for cells in reader:
                if len(rows) == most or len(columns) > COLUMNS:
                    raise ValueError(
                        f"it has more than {ROWS:,} rows, {COLUMNS} columns or {CELLS:,} values"
                    )
                if len(cells) != len(columns):
                    raise ValueError(f"row {len(rows) + 1} does not have {len(columns)} cells")
                row = {}
                for name, cell in zip(columns, cells, strict=True):
                    if cell:
                        row[name] = float(cell)
                rows.append(row)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line per row, one column per key of any row; no cell is a formula to a spreadsheet."""
    columns: dict[str, None] = {}  # a set that keeps the order
    for row in rows:
        columns |= dict.fromkeys(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writerow({name: _cell(name) for name in columns})
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    write(path, text.getvalue())


def _cell(value: Any) -> Any:
    """The value, with an apostrophe before a text that a spreadsheet would compute.

    The apostrophe makes it a text there.
    """
    if isinstance(value, str) and value.startswith(SPREADSHEET) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
