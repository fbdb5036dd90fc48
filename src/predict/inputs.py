"""The pictures that a user names: a file, or a folder of them."""

import os
from pathlib import Path

from src.errors import UserError, printable
from src.files import expanded
from src.predict.pictures import FORMATS

# fmt: off
# Files in these formats have names that end so.
SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".bmp", ".gif",
    ".webp",
)
# Pictures in other formats, those of cameras and of drawing programs, have names that end so.
OTHERS = (
    ".heic", ".heif", ".hif", ".avif", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".jxl",
    ".jxr", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef",
    ".srw", ".svg", ".svgz", ".psd", ".psb", ".xcf", ".kra", ".ai", ".eps", ".ico", ".icns",
    ".cur", ".dib", ".tga", ".pcx", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".exr", ".hdr",
    ".dds", ".wmf", ".emf",
)
# fmt: on
NAMED = 5  # files that are passed over are named up to this number


def find(inputs: str) -> dict[str, Path]:
    """Name -> path, sorted: the file `inputs`, or the pictures in that folder.

    Folders in it are searched too, and hidden files left out. Names are
    relative to it, and fit on one line. Raises UserError if there is none.
    """
    given = expanded(inputs)
    if os.path.lexists(given) and not given.is_dir():
        return {printable(given.name): given}
    shown = _files(given, SUFFIXES)
    if not shown:
        kinds = f"no file, and no folder of files that end in {' '.join(SUFFIXES)}"
        message = f"inputs={printable(inputs)} names no picture: {kinds}"
        if line := passed_over(inputs):
            message += f"; {line}"
        raise UserError(message)
    return {printable(str(name)): given / name for name in shown}


def passed_over(inputs: str) -> str:
    """A line about the pictures in the folder that are in other formats; "" if there is none."""
    folder = expanded(inputs)
    left = [name for name in _files(folder, OTHERS) if (folder / name).is_file()]
    if not left:
        return ""
    start, them = f"{len(left)} files passed over, as they are", "them"
    if len(left) == 1:
        start, them = "1 file passed over, as it is", "it"
    names = [printable(str(name)) for name in left[:NAMED]]
    if len(left) > NAMED:
        names.append("...")
    return f"{start} none of {', '.join(FORMATS)}: {', '.join(names)}; convert {them} to PNG"


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that end in one of the suffixes, relative to the folder and sorted.

    Folders in it are searched too. A hidden file, and all in a hidden folder, is left out.
    """
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix.lower() in suffixes and not hidden:
            names.append(name)
    return sorted(names)
