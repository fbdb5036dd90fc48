"""Where the four files of FashionMNIST come from. Nothing else in the project touches the network.

Sources are tried in order until one delivers: the data folder itself, a copy on this system, the mirrors,
Debian's package. What counts is the content: the decompressed bytes must have the published SHA-256, because
the same images are compressed differently by different distributors.
"""

import errno
import gzip
import hashlib
import http.client
import logging
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import rich
from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from src.errors import UserError
from src.files import open_regular


class File(NamedTuple):
    """What a file is when it is decompressed."""

    size: int  # bytes
    sha256: str


FILES = {
    "train-images-idx3-ubyte": File(
        47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte": File(60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": File(
        7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte": File(10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
DEBIAN_NAME = r"^[a-z0-9][a-z0-9+.-]+$"  # Debian Policy, section 5.6.1
STALL_SECONDS = 20  # a server that sends nothing for so long is given up
FETCH_SECONDS = 900  # a source that takes longer than this altogether is given up
CHUNK = 1 << 20  # bytes
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no other source would do better

log = logging.getLogger(__name__)


class DataError(UserError):
    """The real data cannot be had; the message says why and what to do."""


FAILURES = (  # of one source, after which the next is tried
    OSError,  # no such folder, no route, time-out, not gzip
    EOFError,  # truncated gzip
    zlib.error,  # damaged gzip
    http.client.HTTPException,
    subprocess.SubprocessError,
    ValueError,  # not a URL
    UserError,  # wrong content, no regular file
)


def provide(
    folder: Path,
    *,
    system_copies: Sequence[str] = (),
    mirrors: Sequence[str] = (),
    debian_package: str | None = None,
    files: dict[str, File] = FILES,
) -> None:
    """Return once `folder` holds every one of the `files`, verified.

    Files that are missing come from the first source that works: `system_copies` (folders), `mirrors` (URLs
    of folders), `debian_package` (by apt-get and dpkg-deb into a private folder, no root needed). Each is
    verified, then moved into place in one step; a lock lets processes that start together do the work once.

    Raises DataError if a file is damaged (it is left as it is), `folder` cannot be written, or no source works.
    """
    folder = folder.absolute()
    if not missing(folder, files):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            _fetch(folder, _sources(system_copies, mirrors, debian_package, files), files)
    except OSError as error:
        raise DataError(
            f"cannot write the data folder {folder}: {error.strerror or error}; "
            "make room or choose another with data.root=DIR"
        ) from error


def missing(folder: Path, files: dict[str, File] = FILES) -> list[str]:
    """Names of the files that are not in `folder`. Raises DataError if one is there but damaged."""
    absent = []
    for name, expected in files.items():
        path = folder / name
        try:
            flaw = difference(path, expected)
        except (FileNotFoundError, NotADirectoryError):
            absent.append(name)
            continue
        except OSError as error:
            raise DataError(f"cannot read data file {path}: {error.strerror}") from error
        if flaw:
            raise DataError(
                f"data file {path} is damaged: {flaw}; delete it, and the next start fetches it again"
            )
    return absent


def difference(path: Path, expected: File) -> str | None:
    """What the file is that it should not be; nothing is read of one that cannot be right."""
    try:
        with open_regular(path, expected.size) as file:
            if (size := os.fstat(file.fileno()).st_size) != expected.size:
                return f"it has {size} bytes, expected {expected.size}"
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except UserError as error:
        return str(error)
    return (
        None
        if found == expected.sha256
        else f"its SHA-256 begins {found[:12]}, expected {expected.sha256[:12]}"
    )


# A source puts the named files, compressed or not, into the scratch folder, or names the folder that has them.
Source = Callable[[Path, Sequence[str]], Path]


def _sources(
    system_copies: Sequence[str], mirrors: Sequence[str], debian_package: str | None, files: dict[str, File]
) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for copy in system_copies:
        sources[f"system copy {copy}"] = lambda scratch, names, copy=copy: Path(copy)
    for url in mirrors:
        sources[f"mirror {url}"] = lambda scratch, names, url=url: _download(url, scratch, names, files)
    if debian_package:
        sources[f"Debian package {debian_package}"] = lambda scratch, names: _debian(debian_package, scratch)
    return sources


def _fetch(folder: Path, sources: dict[str, Source], files: dict[str, File]) -> None:
    wanted = missing(folder, files)  # again, now under the lock: another process may have been faster
    if not wanted:
        return
    for abandoned in folder.glob(".incoming-*"):  # by a process that was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    reasons = [f"data folder {folder}: no {', '.join(wanted)}"]
    for title, source in sources.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".incoming-") as scratch:
            try:
                origin = source(Path(scratch), wanted)
                for name in wanted:
                    _unpack(origin, name, Path(scratch), files[name])
            except FAILURES as error:
                if getattr(error, "errno", None) in NO_ROOM:
                    raise
                reasons.append(f"{title}: {error}")
                continue
            for name in wanted:
                os.replace(Path(scratch) / name, folder / name)
            log.info("FashionMNIST comes from %s, verified, and is kept in %s", title, folder)
            return
    raise DataError(
        "FashionMNIST cannot be had from any source:\n"
        + "\n".join(f"  - {reason}" for reason in reasons)
        + f"\nPut the four files ({', '.join(files)}) into {folder}, or name a folder that has them, "
        "compressed or not: 'data.system_copies=[DIR]'"
    )


def _download(url: str, scratch: Path, names: Sequence[str], files: dict[str, File]) -> Path:
    """Fetch url/NAME.gz for each name; a broken attempt leaves nothing behind, the next starts afresh."""
    deadline = time.monotonic() + FETCH_SECONDS
    columns = "{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True, disable=not rich.get_console().is_terminal) as progress:
        for name in names:
            with urllib.request.urlopen(f"{url.rstrip('/')}/{name}.gz", timeout=STALL_SECONDS) as response:
                size = response.length  # bytes, None if the server does not say
                task = progress.add_task(name, total=size)
                with open(scratch / f"{name}.gz", "wb") as file:
                    while chunk := response.read1(CHUNK):
                        file.write(chunk)
                        progress.advance(task, len(chunk))
                        if file.tell() > files[name].size + CHUNK:
                            raise DataError(f"{name}.gz does not end where the file, even uncompressed, does")
                        if time.monotonic() > deadline:
                            raise DataError(f"took longer than {FETCH_SECONDS} s")
    return scratch


def _debian(package: str, scratch: Path) -> Path:
    """Download and unpack Debian's (or Ubuntu's) package with package lists and cache of our own."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise DataError("apt-get and dpkg-deb are not on this system")
    for private in ("lists/partial", "cache/archives/partial"):
        (scratch / private).mkdir(parents=True)
    apt_get = ["apt-get", f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache"]
    _command([*apt_get, "update"], scratch)
    _command([*apt_get, "download", "--", package], scratch)  # the name is never an option
    (archive,) = scratch.glob("*.deb")
    _command(["dpkg-deb", "-x", str(archive), str(scratch)], scratch)
    return scratch / "usr/share/datasets/fashion-mnist"


def _command(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=FETCH_SECONDS,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise DataError(f"{command[0]} failed: {last[0]}")


def _unpack(origin: Path, name: str, scratch: Path, expected: File) -> None:
    """Write origin/name or origin/name.gz, decompressed and verified, to scratch/name."""
    packed, plain = origin / f"{name}.gz", origin / name
    if not packed.exists() and not plain.exists():
        raise DataError(f"no {name} or {name}.gz in {origin}")
    part = scratch / f"{name}.part"
    with (
        open_regular(packed if packed.exists() else plain, expected.size + CHUNK) as given,
        gzip.open(given) if packed.exists() else given as source,
        open(part, "wb") as target,
    ):
        while target.tell() <= expected.size and (
            chunk := source.read(CHUNK)
        ):  # a little can unpack to very much
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if flaw := difference(part, expected):
        raise DataError(f"{name} is another file: {flaw}")
    os.replace(part, scratch / name)
