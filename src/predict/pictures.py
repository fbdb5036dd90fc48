"""From a user's picture file to what the model sees: an image like those of FashionMNIST, light on
black.

FashionMNIST was made of product photos (arXiv 1708.07747, section 2) in the same steps, but for
two: here pixels are averaged, not skipped and sharpened, and the ground, which is not always pure
white, is subtracted.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from src.errors import UserError, printable
from src.files import expand, open_regular

FORMATS = [
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    "WEBP",
]  # Pillow knows more; some of those start other programs
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
SIDE = 28  # of the images of FashionMNIST
LARGEST = 512  # pixels a side; what a picture has more than this is averaged away first
FILE_BYTES = 1 << 28  # of a picture, at most: some formats are read whole
CLOSE = 0.05 * 255  # grey levels about the ground that still count as ground


def find(inputs: str) -> dict[str, Path]:
    """Name -> path, sorted: the file `inputs`, or the pictures in that folder and in the folders in
    it.

    Hidden ones are left out. Names are relative to it, and fit on one line. Raises UserError if
    there is none.
    """
    given = expand(inputs)
    if os.path.lexists(given) and not given.is_dir():
        return {printable(given.name): given}
    names = (
        path.relative_to(given) for path in given.rglob("*") if path.suffix.lower() in SUFFIXES
    )
    shown = sorted(name for name in names if not any(part.startswith(".") for part in name.parts))
    if not shown:
        kinds = f"no file, and no folder of files that end in {' '.join(SUFFIXES)}"
        raise UserError(f"inputs={printable(inputs)} names no picture: {kinds}")
    return {printable(str(name)): given / name for name in shown}


def decode(path: Path) -> Image.Image:
    """The first frame: RGB, upright, on white, reduced to LARGEST. Raises UserError, which says the
    reason."""
    try:
        with warnings.catch_warnings(), open_regular(path, FILE_BYTES) as file:
            warnings.simplefilter("ignore")  # flaws of the file that Pillow can live with
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = flatten(ImageOps.exif_transpose(Image.open(file, formats=FORMATS)))
    except UnidentifiedImageError as error:
        raise UserError(f"it is empty, damaged, or none of {', '.join(FORMATS)}") from error
    except (
        Exception
    ) as error:  # a damaged file can fail anywhere in a decoder, with any kind of error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(printable(reason)) from error
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


def prepare(picture: Image.Image, side: int, invert: str) -> Tensor:
    """What the model sees of the picture, (1, side, side) uint8.

    A picture of SIDE x SIDE or side x side pixels is taken pixel by pixel, at most inverted:
    `invert` is "true", "false", or "auto", if the object is darker than its ground. Raises
    UserError if nothing is seen.
    """
    grey = picture.convert("L")
    levels = np.asarray(grey)
    ground = float(np.median(np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])))
    if np.abs(levels - ground).max() <= CLOSE:
        raise UserError("it is of one colour, or nearly so")
    if invert == "true" or (invert == "auto" and levels.mean() < ground):
        grey, ground = ImageOps.invert(grey), 255 - ground
    if grey.size not in ((SIDE, SIDE), (side, side)):
        grey = trim(grey, ground)
    return resize(torch.from_numpy(np.array(grey))[None], [side, side])


def trim(grey: Image.Image, ground: float) -> Image.Image:
    """The object in SIDE x SIDE pixels, as large as fits, centred, on black or on a ground that is
    lighter."""
    if np.mean(grey) >= ground:
        grey, ground = grey.point([max(0, round(v - ground)) for v in range(256)]), 0
    differs = [255 * (abs(v - ground) > CLOSE) for v in range(256)]
    without_specks = grey.filter(
        ImageFilter.MedianFilter(5)
    )  # one grain of noise would keep its edge
    thing = grey.crop(without_specks.point(differs).getbbox() or grey.point(differs).getbbox())
    size = [max(1, round(edge * SIDE / max(thing.size))) for edge in thing.size]
    thing = thing.resize(size, Image.Resampling.LANCZOS)
    # the odd pixel of a margin is above or left, as in FashionMNIST
    return ImageOps.pad(thing, (SIDE, SIDE), color=round(ground), centering=(0.51, 0.51))


def pair(picture: Image.Image, seen: Tensor) -> Tensor:
    """The picture in a square, and what the model sees of it, side by side, (3, s, 2 s) in [0,
    1]."""
    times = -(-4 * SIDE // seen.shape[-1])  # so that neither is small
    seen = seen.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2).expand(3, -1, -1)
    given = ImageOps.pad(picture, seen.shape[1:], color="white")
    return torch.cat([pil_to_tensor(given), seen], dim=2) / 255
