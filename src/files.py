"""Files that are read with suspicion and written in one step."""

import contextlib
import csv
import errno
import io
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from src.errors import UserError

KEPT = "what was there is kept"
LARGEST = 1 << 26  # bytes of a text file of a run; ours have a thousandth of that


def open_regular(path: Path, most: int) -> BinaryIO:
    """The open file. Raises UserError for a pipe, a device or more than `most` bytes: those may never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is no regular file")
    if status.st_size > most:
        raise UserError(f"{path} is too large: it has {status.st_size:,} bytes, more than {most:,}")
    # what has taken its place since, as a pipe, may not make the opening wait
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def refuse_links(paths: Iterable[Path], folder: str) -> None:
    """Raises UserError for a link, through which others could be written to, and a device, which has no end."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # the writer of a `.part` has renamed it meanwhile
            if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{path} is a link or a device; a {folder} must hold files and folders alone")


def read(path: Path, most: int = LARGEST) -> str:
    """Text of the file, in UTF-8 with or without byte order mark; see `open_regular`."""
    with open_regular(path, most) as file:
        try:
            return file.read(most).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is damaged: it is no text in UTF-8") from error


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias")
        return super().compose_node(parent, index)


def read_yaml(path: Path, interpolations: bool = False) -> Any:
    """Dicts and lists of plain values; without `interpolations`, no text that OmegaConf would follow.

    Raises FileNotFoundError, and UserError if the file is damaged or holds anything else.
    """
    try:
        content = yaml.load(read(path), _Loader)
        if "${" in json.dumps(content) and not interpolations:  # JSON knows no dates, bytes and sets
            raise ValueError("it holds an interpolation")
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return content


def write(path: Path, content: str | bytes | memoryview, advice: str = KEPT) -> None:
    """Write the file in one step: a reader, or a crash, finds the old content or the new.

    Raises UserError, with the old file as it was, if it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # what a killed process left, or a link
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise cannot_write(path, error, advice) from error


def cannot_write(what: object, error: OSError, advice: str = KEPT) -> UserError:
    reason = error.strerror or str(error)
    reason = f"disk full ({reason})" if error.errno in (errno.ENOSPC, errno.EDQUOT) else reason
    return UserError(f"cannot write {what}: {reason}; {advice}")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line per row, one column per key of any row."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.getvalue())
