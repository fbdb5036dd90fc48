"""Files that may be anything, read without a wait and without filling the memory."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from src.errors import UserError


@contextlib.contextmanager
def open_regular(path: Path, most: int, links: bool = True) -> Iterator[BinaryIO]:
    """Open the file for reading: `with open_regular(...) as file: ...`.

    Raises UserError for a pipe, a device or more than `most` bytes, which could be read for ever, and without
    `links` for a link.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP and not links:
            raise UserError(f"{path} is a link; put the file itself there") from None
        if error.errno == errno.ENXIO:  # a socket
            raise UserError(f"{path} is no regular file") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        os.close(descriptor)
        size = f"too large: it has {status.st_size:,} bytes, more than {most:,}"
        raise UserError(f"{path} is {size if stat.S_ISREG(status.st_mode) else 'no regular file'}")
    with open(descriptor, "rb") as file:
        yield file


def read(path: Path, most: int, links: bool = True) -> bytes:
    """The content of the file; see `open_regular`."""
    with open_regular(path, most, links) as file:
        return file.read(most)


def refuse_link(folder: Path) -> None:
    """Raises UserError if the folder, about to be written into, is a link to another one."""
    if folder.is_symlink():
        raise UserError(f"{folder} is a link; nothing is written through it: put a folder there")
