"""Files that are read with suspicion, because anybody may have made them, and files that are
written in one step.

What is read is small, and parsed once into plain values of bounded size and number. So no short
file can take all memory, and none without an end is waited for.
"""

import contextlib
import csv
import errno
import glob
import io
import itertools
import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any

import yaml

from src.errors import UserError

KEPT = "what was there is kept"
TEXT = 1 << 20  # bytes of a text, as a config or a record; ours have a few thousand
NODES, DEPTH = 100_000, 32  # values of a text, and levels of nesting
CHARACTERS = 10_000  # characters of a single value
TABLE = 1 << 23  # bytes of metrics.csv
ROWS, COLUMNS, CELLS = 20_000, 200, 500_000  # metrics.csv has a row for each epoch
ENTRIES = {"run folder": 10_000, "sweep folder": 200_000}  # files and folders in it
LEVELS = 16  # how deep folders are nested
# A spreadsheet takes a cell that begins like this for a formula.
SPREADSHEET = ("=", "+", "-", "@", "\t", "\r")
SCALARS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))
YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that in C is ten times as fast


def expanded(path: str | Path) -> Path:
    """The path, with ~ and ~NAME as home folders; as it is, if there is no such user."""
    return Path(os.path.expanduser(path))


# --- reading --------------------------------------------------------------------------------------


def open_regular(path: Path, most: int, within: Path | None = None) -> BufferedReader:
    """The open file. With `within`, a folder that anybody may have made, no link below it is
    followed.

    Raises UserError for a link, a pipe or a device, and for more than `most` bytes: those may never
    end.
    """
    try:
        descriptor = (
            os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            if within is None
            else _open_below(within, path)
        )
    except OSError as error:
        if error.errno == errno.ENXIO or (within and error.errno == errno.ELOOP):
            raise UserError(f"{path} is a link or a device, not a file") from error
        if within and error.errno == errno.ENOTDIR:
            raise UserError(f"{path} is no file: {path.parent} is no folder, or a link") from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is no regular file")
    if status.st_size > most:
        os.close(descriptor)
        raise UserError(f"{path} is too large: it has {status.st_size:,} bytes, more than {most:,}")
    return open(descriptor, "rb")


def _open_below(folder: Path, path: Path) -> int:
    """The descriptor of the file, found from the folder by one name after the other, none of which
    may be a link."""
    *folders, name = path.relative_to(folder).parts
    current = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = below
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=current)
    finally:
        os.close(current)


def refuse_links(folder: Path, kind: str) -> None:
    """Raises UserError if there is a link in the folder, through which others could be written to,
    or a device, which has no end; and if a folder in it cannot be listed, or there is far more than
    a folder of the `kind` has.
    """
    folders, count, most = [(folder, 0)], 0, ENTRIES[kind]
    while folders:
        current, level = folders.pop()
        for entry in _list(current, kind):
            count += 1
            if count > most or level > LEVELS:
                raise UserError(
                    f"{folder} has more than {most:,} files, or more than {LEVELS} levels"
                )
            if entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), level + 1))
            elif not _is_file_or_gone(entry):
                raise UserError(
                    f"{entry.path} is a link or a device; a {kind} must hold files and folders"
                )


def _list(folder: Path, kind: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(itertools.islice(entries, ENTRIES[kind] + 1))
    except FileNotFoundError:  # its writer has removed it meanwhile
        return []
    except OSError as error:
        raise UserError(
            f"{folder} cannot be listed ({error.strerror}), and a {kind} is read only whole"
        ) from error


def _is_file_or_gone(entry: os.DirEntry[str]) -> bool:
    if entry.is_file(follow_symlinks=False):
        return True
    try:
        entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # the writer of a `.part` has renamed it meanwhile
        return True
    return False


def read(path: Path, most: int = TEXT, within: Path | None = None) -> str:
    """Text of the file, in UTF-8 with or without byte order mark; see `open_regular`."""
    with open_regular(path, most, within) as file:
        try:
            return file.read(most).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is damaged: it is no text in UTF-8") from error


def read_yaml(path: Path, within: Path | None = None, interpolations: bool = False) -> Any:
    """Plain values, as `check_plain` has them.

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
    """The values of a YAML text. Raises ValueError for one that stands for more than it shows, or
    for too many."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, YamlLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds an alias")
        if getattr(event, "tag", None):
            raise ValueError(f"it holds a tag, {event.tag}")
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
    """A YAML text of plain values. Raises ValueError if it could not be read again."""
    text = yaml.safe_dump(content)
    if len(text) > TEXT:
        raise ValueError(f"it has {len(text):,} characters, more than {TEXT:,}")
    try:
        _parse_yaml(text)
    except yaml.YAMLError as error:  # as of half a character
        raise ValueError(str(error)) from error
    return text


def _value(node: yaml.Node, loader: yaml.SafeLoader) -> Any:
    """What the node stands for; dates, and keys that are no text, stand for nothing here."""
    if isinstance(node, yaml.MappingNode):
        found = {}
        for key, value in node.value:
            if key.tag != SCALARS[-1]:
                raise ValueError(f"{key.value!r} is no name of a setting")
            found[key.value] = _value(value, loader)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, loader) for each in node.value]
    if node.tag not in SCALARS:
        raise ValueError(f"{node.value!r} is no plain value")
    return loader.construct_object(node)


def read_json(path: Path, within: Path | None = None) -> Any:
    """The same of a JSON file."""
    try:
        content = json.loads(read(path, within=within))
        check_plain(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return content


def check_plain(content: Any, depth: int = 0) -> None:
    """Raises ValueError for what is not None, bool, an int of 64 bits, float, a text of a few lines
    that can be written in UTF-8, or a list or a dict with names of these."""
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
    """The rows of a table of numbers, as metrics.csv is; what a row does not have is left out."""
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
                named = zip(columns, cells, strict=True)
                rows.append({name: float(cell) for name, cell in named if cell})
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return rows


# --- writing --------------------------------------------------------------------------------------


def open_to_append(path: Path) -> TextIOWrapper:
    """The file, open for more lines. Raises OSError for a link: what is appended would go
    elsewhere."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    file = open(descriptor, "a")  # noqa: SIM115  (whoever calls this closes it)
    if os.fstat(descriptor).st_nlink > 1:
        file.close()
        raise OSError(errno.EMLINK, "it is a link", str(path))
    return file


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A name beside the file, of this process alone, for content that is to take its place."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        if not _is_running(left.name.split(".")[-2]):
            left.unlink(missing_ok=True)  # what a killed process left
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)  # a link, or of a process that had the same number
    try:
        yield part
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write(path: Path, content: str | bytes | memoryview, advice: str = KEPT) -> None:
    """Write the file in one step: a reader, or a crash, finds the old content or the new.

    Raises UserError, with the old file as it was, if it cannot be written.
    """
    data = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part(path) as part:
            with open(part, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error, advice) from error


def cannot_write(what: object, error: OSError, advice: str = KEPT) -> UserError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"disk full ({reason})"
    return UserError(f"cannot write {what}: {reason}; {advice}")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line per row, one column per key of any row; no cell is a formula to a spreadsheet."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writerow({name: _cell(name) for name in columns})
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    write(path, text.getvalue())


def _cell(value: Any) -> Any:
    """The value; of a text that a spreadsheet would compute, behind an apostrophe, which makes it a
    text there."""
    if isinstance(value, str) and value.startswith(SPREADSHEET) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
