"""From a user's picture file to what the model sees: an image like those of FashionMNIST, light on black.

FashionMNIST was made of product photos (arXiv 1708.07747, section 2): edges within 5 % of the ground trimmed,
the longest edge brought to 28 pixels, the shorter one extended so that the object is centred, negated, made
grey. The same is done here, but for two things: pixels are averaged where theirs were skipped and sharpened,
and the ground is subtracted, because not everybody's is the pure white (negated, black) of theirs.
"""

import os
import stat
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import resize as resize_images

from src.errors import UserError, printable

FORMATS = ["PNG", "JPEG", "BMP", "GIF", "WEBP"]  # Pillow knows more; some of those start other programs
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
SIDE = 28  # of the images of FashionMNIST
LARGEST = 512  # pixels a side; what a picture has more than this is averaged away first
MOST = 100_000  # pictures at a time
FILE_BYTES = 1 << 28  # of a picture, at most: some formats are read whole
CLOSE = 0.05 * 255  # grey levels about the ground that still count as ground


class Unreadable(UserError):
    """A file that shows the model nothing; the message is the reason."""


class Picture(NamedTuple):
    """A picture before and after its preparation."""

    name: str
    given: Image.Image  # RGB, upright, at most LARGEST pixels a side
    seen: Tensor  # (1, s, s) uint8, what the model gets
    steps: str  # what was done to it


def find(inputs: str) -> dict[str, Path]:
    """Name -> path, sorted: the file `inputs`, those of that folder, or those that match the pattern.

    Folders (without their subfolders) and patterns (** is any depth) yield what has the suffix of a picture and
    is not hidden; ** enters no hidden folder and follows no link to one. Names are relative to the folder that
    all files have in common, and fit for one line.

    Raises UserError if there is none, or more than MOST.
    """
    inputs = os.path.expanduser(inputs)
    if os.path.lexists(inputs) and not os.path.isdir(inputs):
        paths = [Path(inputs)]
    else:
        within = Path(inputs).iterdir() if os.path.isdir(inputs) else matching(Path(inputs))
        paths = (path for path in within if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
        paths = sorted(islice(paths, MOST + 1))
    if not paths:
        raise UserError(
            f"inputs={printable(inputs)} names no picture: neither a file, nor a folder or a pattern of files "
            f"that end in {' '.join(SUFFIXES)}"
        )
    if len(paths) > MOST:
        raise UserError(f"inputs={printable(inputs)} names more than {MOST:,} pictures; name fewer at a time")
    folder = os.path.commonpath([path.parent for path in paths])
    return {printable(str(path.relative_to(folder))): path for path in paths}


def matching(pattern: Path) -> Iterator[Path]:
    """What matches the pattern, but for what is hidden where the pattern does not say so.

    Unlike the glob module, Path.glob follows no link for **: two links can make a tree without an end.
    """
    parts = pattern.relative_to(pattern.anchor).parts
    if not parts:
        return
    if parts[-1] == "**":
        parts = (*parts, "*")
    for path in Path(pattern.anchor).glob(str(Path(*parts))):
        if not any(part.startswith(".") and part not in parts for part in path.parts):
            yield path


def load(name: str, path: Path, side: int, invert: str) -> Picture:
    """The picture in the file, prepared for a model of side x side pixels; see `prepare`. Raises Unreadable."""
    given = read(path)
    return Picture(name, given, *prepare(given.convert("L"), side, invert))


def read(path: Path) -> Image.Image:
    """The first frame: RGB, upright as EXIF says, on white where it is transparent, reduced to LARGEST.

    Raises Unreadable.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe could wait for ever
            raise Unreadable("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no regular file")
        if status.st_size == 0:
            raise Unreadable("the file is empty")
        if status.st_size > FILE_BYTES:
            raise Unreadable(f"the file has more than {FILE_BYTES >> 20} MiB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # flaws of the file that Pillow can live with
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                picture = flatten(ImageOps.exif_transpose(file))
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"it has more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels") from error
    except UnidentifiedImageError as error:
        raise Unreadable(f"it is damaged, or none of {', '.join(FORMATS)}") from error
    except Exception as error:  # a damaged file can fail anywhere in a decoder, with any kind of error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreadable(printable(reason)) from error
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return picture


def flatten(picture: Image.Image) -> Image.Image:
    """8-bit RGB of a picture in any mode, on white where it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits, which convert() would clip at 255
        levels = np.asarray(picture).astype(np.int32)
        levels = np.where(levels == picture.info.get("transparency", -1), 65535, levels)
        picture = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def prepare(grey: Image.Image, side: int, invert: str) -> tuple[Tensor, str]:
    """(image (1, side, side) uint8, the steps that made it) from a picture of mode L.

    A picture of SIDE x SIDE or side x side pixels is taken pixel by pixel, at most inverted. If `side` is not
    SIDE, an image is brought to SIDE and from there to `side`, as those that the model was trained on.

    Args:
        invert: "true", "false", or "auto": if the object is darker than its ground.

    Raises Unreadable if there is nothing to see.
    """
    steps = ["grey"]
    if invert == "true" or (invert == "auto" and np.asarray(grey).mean() < ground(grey)):
        grey = ImageOps.invert(grey)
        steps.append("inverted")
    if grey.size in ((SIDE, SIDE), (side, side)):
        low, high = grey.getextrema()
        if low == high:
            raise Unreadable("it is of one colour")
        steps.append("pixel by pixel")
    else:
        grey = frame(grey)
        steps.append("trimmed")
    image = torch.from_numpy(np.array(grey))[None]  # (1, SIDE, SIDE) or (1, side, side)
    return resize_images(image, [side, side]), ", ".join(steps)


def ground(grey: Image.Image) -> float:
    """Median grey level of the outermost pixels."""
    levels = np.asarray(grey)
    return float(np.median(np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])))


def frame(grey: Image.Image) -> Image.Image:
    """The object, its longest edge brought to SIDE, in the middle of SIDE x SIDE pixels of its ground.

    The ground becomes black, unless it is lighter than the object.

    Raises Unreadable if no pixel differs from the ground by more than CLOSE.
    """
    level = ground(grey)
    if np.asarray(grey).mean() >= level:
        grey, level = grey.point([max(0, round(v - level)) for v in range(256)]), 0
    differs = [255 * (abs(v - level) > CLOSE) for v in range(256)]
    without_specks = grey.filter(ImageFilter.MedianFilter(5))  # one grain of noise would keep its edge
    box = without_specks.point(differs).getbbox() or grey.point(differs).getbbox()
    if box is None:
        raise Unreadable("it is of one colour, or nearly so")
    trimmed = grey.crop(box)
    width, height = (max(1, round(edge * SIDE / max(trimmed.size))) for edge in trimmed.size)
    image = Image.new("L", (SIDE, SIDE), round(level))
    corner = (SIDE - width + 1) // 2, (SIDE - height + 1) // 2  # as in FashionMNIST, where the margin is odd
    image.paste(trimmed.resize((width, height), Image.Resampling.LANCZOS), corner)
    return image
