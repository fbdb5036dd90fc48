"""Where the four files of FashionMNIST come from. Nothing else in the project touches the network.

Sources are tried in order until one delivers. A file is right if its decompressed bytes have the
published SHA-256: distributors compress the same images differently.
"""

import hashlib
import logging
import subprocess
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from src.errors import UserError
from src.files import cannot_write, open_regular, write

FILES = {  # name -> SHA-256 of the decompressed bytes
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST = 1 << 26  # bytes, compressed or not; the largest of the files has 47,040,016
DEBIAN_NAME = r"^[a-z0-9][a-z0-9+.-]+$"  # Debian Policy, section 5.6.1
STALL_SECONDS = 20  # a server that sends nothing for so long is given up
FETCH_SECONDS = 900  # a source that takes longer than this altogether is given up
ADVICE = "choose another folder with data.root=DIR"
Contents = Iterator[
    tuple[str, bytes]
]  # names of the files asked for -> their bytes, compressed or not

log = logging.getLogger(__name__)

# of one source, after which the next is tried; ValueError means no URL
FAILURES = (OSError, zlib.error, HTTPException, subprocess.SubprocessError, ValueError, UserError)


def provide(
    folder: Path,
    system_copies: Sequence[str] = (),
    mirrors: Sequence[str] = (),
    debian_package: str | None = None,
) -> None:
    """Return once `folder` holds every one of the FILES, verified.

    Files that are missing come from the first source that works: `system_copies` (folders),
    `mirrors` (URLs of folders), `debian_package`. A lock lets processes that start together do the
    work once.

    Raises UserError if a file is damaged (it is left as it is), `folder` cannot be written, or no
    source works.
    """
    folder = folder.absolute()
    if not missing(folder):
        return
    sources = [("system copy", from_folder, each) for each in system_copies]
    sources += [("mirror", from_mirror, each) for each in mirrors]
    sources += [("Debian package", from_debian, each) for each in (debian_package,) if each]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if wanted := missing(folder):  # another process may have been faster
                for name, content in fetch(folder, wanted, sources).items():
                    write(folder / name, content, ADVICE)
    except OSError as error:
        raise cannot_write(f"the data folder {folder}", error, ADVICE) from error


def missing(folder: Path) -> list[str]:
    """Names of the files that are not in `folder`. Raises UserError if one is there but damaged."""
    absent = []
    for name in FILES:
        try:
            with open_regular(folder / name, LARGEST) as file:
                check(name, file.read())
        except (FileNotFoundError, NotADirectoryError):
            absent.append(name)
        except UserError as error:
            raise UserError(
                f"data file {folder / name} is damaged: {error}; delete it for a new one"
            ) from None
    return absent


def check(name: str, content: bytes) -> bytes:
    found, expected = hashlib.sha256(content).hexdigest(), FILES[name]
    if found != expected:
        raise UserError(f"{name} has a SHA-256 that begins {found[:12]}, expected {expected[:12]}")
    return content


def fetch(
    folder: Path, wanted: list[str], sources: list[tuple[str, Callable, str]]
) -> dict[str, bytes]:
    """The wanted files, decompressed and verified, from the first source that has all of them."""
    reasons = [f"data folder {folder}: no {', '.join(wanted)}"]
    for kind, source, place in sources:
        log.info("fetching FashionMNIST from %s %s into %s", kind, place, folder)
        try:
            return {name: check(name, unpack(content)) for name, content in source(place, wanted)}
        except FAILURES as error:
            reasons.append(f"{kind} {place}: {error}")
    reasons.append(
        f"to do: put {', '.join(FILES)}, compressed or not, into a folder DIR "
        "and add 'data.system_copies=[DIR]'"
    )
    raise UserError("FashionMNIST cannot be had from any source:", reasons)


def unpack(content: bytes) -> bytes:
    """The content, decompressed if need be; a little can unpack to very much, of which no more than
    LARGEST."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    return zlib.decompressobj(wbits=31).decompress(content, LARGEST)  # 31 means gzip


def from_folder(folder: str, names: Sequence[str]) -> Contents:
    for name in names:
        packed = Path(folder, f"{name}.gz")
        with open_regular(packed if packed.exists() else packed.with_suffix(""), LARGEST) as file:
            yield name, file.read()


def from_mirror(url: str, names: Sequence[str]) -> Contents:
    """url/NAME.gz of each name; urllib's time-out alone would let a server trickle for ever."""
    deadline = time.monotonic() + FETCH_SECONDS
    for name in names:
        content = bytearray()
        with urllib.request.urlopen(
            f"{url.rstrip('/')}/{name}.gz", timeout=STALL_SECONDS
        ) as response:
            while chunk := response.read1(1 << 20):
                content += chunk
                if len(content) > LARGEST or time.monotonic() > deadline:
                    raise UserError(f"took longer than {FETCH_SECONDS} s, or {name}.gz has no end")
        yield name, content


def from_debian(package: str, names: Sequence[str]) -> Contents:
    """The files in Debian's (or Ubuntu's) package, with package lists and cache of our own, so
    without root."""
    with tempfile.TemporaryDirectory() as scratch:
        for private in ("lists/partial", "cache/archives/partial"):
            Path(scratch, private).mkdir(parents=True)
        apt_get = [
            "apt-get",
            f"-oDir::State::Lists={scratch}/lists",
            f"-oDir::Cache={scratch}/cache",
        ]
        options = {
            "input": "",
            "capture_output": True,
            "errors": "replace",
            "timeout": FETCH_SECONDS,
        }
        download = [*apt_get, "download", "--", package]  # the name is never an option
        for command in ([*apt_get, "update"], download, ["sh", "-c", "dpkg-deb -x ./*.deb ."]):
            done = subprocess.run(command, cwd=scratch, **options)
            if done.returncode:
                raise UserError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
        yield from from_folder(f"{scratch}/usr/share/datasets/fashion-mnist", names)
