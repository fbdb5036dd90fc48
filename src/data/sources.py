"""The sources that the files of a data set come from.

Nothing else in the project touches the network. Sources are tried in order until one delivers. A
file is right if its decompressed bytes have the published SHA-256: distributors compress the same
images differently.
"""

import hashlib
import logging
import subprocess
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from src.errors import UserError
from src.files import cannot_write, open_regular, write

LARGEST = 1 << 26  # bytes of a file, compressed or not; FashionMNIST's largest has 47,040,016
DEBIAN_NAME = r"^[a-z0-9][a-z0-9+.-]+$"  # Debian Policy, section 5.6.1
STALL_SECONDS = 20  # a server that sends nothing for so long is given up
FETCH_SECONDS = 900  # a source that takes longer than this altogether is given up
ADVICE = "choose another folder with data.root=DIR"
# Errors of a source, after which the next is tried; ValueError means that it is no URL.
FAILURES = (OSError, zlib.error, HTTPException, subprocess.SubprocessError, ValueError, UserError)

Sums = Mapping[str, str]  # name of a file -> SHA-256 of its decompressed bytes
Contents = Iterator[tuple[str, bytes]]  # name of a file -> its bytes, compressed or not
Source = tuple[str, Callable[[str, Sequence[str]], Contents], str]  # kind, how it is read, where

log = logging.getLogger(__name__)


def provide(
    folder: Path,
    title: str,
    files: Sums,
    system_copies: Sequence[str] = (),
    mirrors: Sequence[str] = (),
    debian_package: str | None = None,
) -> None:
    """Return once `folder` holds every one of the `files` of the data set `title`, verified.

    Files that are missing come from the first source that works: `system_copies` (folders),
    `mirrors` (URLs of folders), `debian_package`. A lock lets processes that start together do the
    work once.

    Raises UserError if a file is damaged (it is left as it is), `folder` cannot be written, or no
    source works.
    """
    folder = folder.absolute()
    if not missing(folder, files):
        return
    sources: list[Source] = []
    sources += [("system copy", from_folder, path) for path in system_copies]
    sources += [("mirror", from_mirror, url) for url in mirrors]
    if debian_package:
        sources.append(("Debian package", from_debian, debian_package))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            wanted = missing(folder, files)
            if not wanted:  # another process was faster
                return
            for name, content in fetch(folder, title, wanted, sources).items():
                write(folder / name, content, ADVICE)
    except OSError as error:
        raise cannot_write(f"the data folder {folder}", error, ADVICE) from error


def missing(folder: Path, files: Sums) -> Sums:
    """The files that are not in `folder`.

    Raises UserError if one is there but damaged.
    """
    absent = {}
    for name, expected in files.items():
        try:
            with open_regular(folder / name, LARGEST) as file:
                check(name, file.read(), expected)
        except (FileNotFoundError, NotADirectoryError):
            absent[name] = expected
        except UserError as error:
            damage = f"data file {folder / name} is damaged: {error}"
            raise UserError(f"{damage}; delete it for a new one") from None
    return absent


def check(name: str, content: bytes, expected: str) -> bytes:
    """The content, which must have the expected SHA-256.

    Raises UserError if it has another.
    """
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise UserError(f"{name} has a SHA-256 that begins {actual[:12]}, expected {expected[:12]}")
    return content


def fetch(folder: Path, title: str, wanted: Sums, sources: Sequence[Source]) -> dict[str, bytes]:
    """The wanted files, decompressed and verified, from the first source that has all of them."""
    names = list(wanted)
    reasons = [f"data folder {folder}: no {', '.join(names)}"]
    for kind, read, where in sources:
        log.info("fetching %s from %s %s into %s", title, kind, where, folder)
        contents = {}
        try:
            for name, content in read(where, names):
                contents[name] = check(name, unpack(content), wanted[name])
            return contents
        except FAILURES as error:
            reasons.append(f"{kind} {where}: {error}")
    reasons.append(
        f"to do: put {', '.join(names)}, compressed or not, into a folder DIR "
        "and add 'data.system_copies=[DIR]'"
    )
    raise UserError(f"{title} cannot be had from any source:", reasons)


def unpack(content: bytes) -> bytes:
    """The content, decompressed if need be: at most LARGEST bytes, as a few can unpack to many."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    return zlib.decompressobj(wbits=31).decompress(content, LARGEST)  # 31 means gzip


# --- sources --------------------------------------------------------------------------------------


def from_folder(folder: str, names: Sequence[str]) -> Contents:
    for name in names:
        path = Path(folder, f"{name}.gz")
        if not path.exists():
            path = Path(folder, name)
        with open_regular(path, LARGEST) as file:
            yield name, file.read()


def from_mirror(url: str, names: Sequence[str]) -> Contents:
    """The files url/NAME.gz, within a deadline.

    The time-out of urllib alone would let a server trickle for ever.
    """
    deadline = time.monotonic() + FETCH_SECONDS
    for name in names:
        content = bytearray()
        address = f"{url.rstrip('/')}/{name}.gz"
        with urllib.request.urlopen(address, timeout=STALL_SECONDS) as response:
            while chunk := response.read1(1 << 20):
                content += chunk
                if len(content) > LARGEST or time.monotonic() > deadline:
                    raise UserError(f"took longer than {FETCH_SECONDS} s, or {name}.gz has no end")
        yield name, bytes(content)


def from_debian(package: str, names: Sequence[str]) -> Contents:
    """The files in a Debian package, fetched without root: apt gets folders of our own."""
    with tempfile.TemporaryDirectory() as scratch:
        lists, cache = Path(scratch, "lists"), Path(scratch, "cache")
        (lists / "partial").mkdir(parents=True)
        (cache / "archives/partial").mkdir(parents=True)
        apt_get = ["apt-get", f"-oDir::State::Lists={lists}", f"-oDir::Cache={cache}"]
        _run([*apt_get, "update"], scratch)
        _run([*apt_get, "download", "--", package], scratch)  # the name is never an option
        _run(["sh", "-c", "dpkg-deb -x ./*.deb ."], scratch)
        (folder,) = Path(scratch, "usr/share/datasets").iterdir()
        yield from from_folder(str(folder), names)


def _run(command: Sequence[str], folder: str) -> None:
    """Run the command in the folder.

    Raises UserError with its error output if it fails.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        input="",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=FETCH_SECONDS,
    )
    if done.returncode:
        raise UserError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
