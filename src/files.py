"""Files that are read with suspicion, because anybody may have made them, and written in one step.

Only small files are read, and none without an end is waited for; src.formats parses them.
"""

import contextlib
import errno
import glob
import itertools
import os
import stat
from collections.abc import Iterator
from io import BufferedReader, TextIOWrapper
from pathlib import Path

from src.errors import UserError

KEPT = "what was there is kept"
TEXT = 1 << 20  # bytes of a text, as a config or a record; ours have a few thousand
ENTRIES = {"run folder": 10_000, "sweep folder": 200_000}  # files and folders in it
LEVELS = 16  # how deep folders are nested


def expanded(path: str | Path) -> Path:
    """The path, with ~ and ~NAME as home folders; as it is, if there is no such user."""
    return Path(os.path.expanduser(path))


# --- reading --------------------------------------------------------------------------------------


def open_regular(path: Path, most: int, within: Path | None = None) -> BufferedReader:
    """The open file.

    With `within`, a folder that anybody may have made, no link below it is followed. Raises
    UserError for a link, a pipe or a device, and for more than `most` bytes: those may never end.
    """
    try:
        if within is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        else:
            descriptor = _open_below(within, path)
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
    """The descriptor of the file, opened from the folder by one name after the other.

    None of the names may be a link.
    """
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
    """Raises UserError if there is a link in the folder, or a device.

    Through a link other files could be written to, and a device has no end. Raises it too if a
    folder in it cannot be listed, or there is far more than a folder of the `kind` has.
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
    """The text of the file, in UTF-8 with or without byte order mark; see `open_regular`."""
    with open_regular(path, most, within) as file:
        try:
            return file.read(most).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is damaged: it is no text in UTF-8") from error


# --- writing --------------------------------------------------------------------------------------


def open_to_append(path: Path) -> TextIOWrapper:
    """The file, open for more lines.

    Raises OSError for a link: the lines would go elsewhere.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    file = open(descriptor, "a")  # noqa: SIM115  (whoever calls this closes it)
    if os.fstat(descriptor).st_nlink > 1:
        file.close()
        raise OSError(errno.EMLINK, "it is a link", str(path))
    return file


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """The path of a new file in the same folder, of this process alone, which replaces the file."""
    for old_part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        if not _is_running(old_part.name.split(".")[-2]):
            old_part.unlink(missing_ok=True)  # its process was killed
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
