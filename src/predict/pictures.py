"""From a user's picture file to what the model sees: an image like those of FashionMNIST, light on
black.

FashionMNIST was made of product photos (arXiv 1708.07747, section 2) in the same steps, but for
two: here pixels are averaged, not skipped and sharpened, and the ground, which is not always pure
white, is subtracted.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from src.errors import UserError, printable
from src.files import expanded, open_regular
from src.predict.jpeg import scans

# Pillow knows more; some of those start other programs
FORMATS = ["PNG", "JPEG", "BMP", "GIF", "WEBP"]
# fmt: off
# how the names of files in these formats end
SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".bmp", ".gif",
    ".webp",
)
# how the names of pictures in other formats end, those of cameras and of drawing programs
OTHERS = (
    ".heic", ".heif", ".hif", ".avif", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".jxl",
    ".jxr", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef",
    ".srw", ".svg", ".svgz", ".psd", ".psb", ".xcf", ".kra", ".ai", ".eps", ".ico", ".icns",
    ".cur", ".dib", ".tga", ".pcx", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".exr", ".hdr",
    ".dds", ".wmf", ".emf",
)
# fmt: on
NAMED = 5  # files that are passed over are named up to this number
SIDE = 28  # pixels a side that the images of FashionMNIST have
LARGEST = 512  # pixels a side; what a picture has more than this is averaged away first
# Megapixels that a picture has at most, so that Pillow fills 1 GB or less. It takes up to 9 bytes a
# pixel, and up to 19 for WebP. A JPEG is decoded at a lower scale in little memory, but of one with
# several scans up to 8 bytes a pixel are kept until the last scan.
MEGAPIXELS = {
    "JPEG": 500,
    "progressive JPEG": 100,
    "PNG": 100,
    "BMP": 100,
    "GIF": 100,
    "WEBP": 52,
}
Image.MAX_IMAGE_PIXELS = 500_000_000  # for Pillow, which else would refuse all above 89,478,485
FILE_BYTES = 1 << 28  # a file has at most this many bytes: some formats are read whole
PIECES = 4_000_000  # each costs up to 3 µs and 50 bytes, and a piece of a file can be one byte long
EXIF_BYTES = 1 << 17  # the notes of a camera have up to 64 KiB; Pillow copies longer ones in parts
# how a picture becomes upright, by the orientation that the camera noted
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
OPAQUE = 128  # alpha from which a pixel is more opaque than transparent
CLOSE = 0.05 * 255  # grey levels about the ground that still count as ground


def find(inputs: str) -> dict[str, Path]:
    """Name -> path, sorted: the file `inputs`, or the pictures in that folder and in the folders in
    it.

    Hidden ones are left out. Names are relative to it, and fit on one line. Raises UserError if
    there is none.
    """
    given = expanded(inputs)
    if os.path.lexists(given) and not given.is_dir():
        return {printable(given.name): given}
    shown = _files(given, SUFFIXES)
    if not shown:
        kinds = f"no file, and no folder of files that end in {' '.join(SUFFIXES)}"
        details = f"; {line}" if (line := passed_over(inputs)) else ""
        raise UserError(f"inputs={printable(inputs)} names no picture: {kinds}{details}")
    return {printable(str(name)): given / name for name in shown}


def passed_over(inputs: str) -> str:
    """A line about the pictures in the folder `inputs` that `find` leaves out for their format;
    empty if there is none."""
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
    """Names that end in one of the suffixes, in the folder and in the folders in it: relative to
    it, sorted, without hidden ones."""
    names = (
        path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in suffixes
    )
    return sorted(name for name in names if not any(part.startswith(".") for part in name.parts))


class Pieces(io.BufferedReader):
    """A file that is read in so many PIECES at most. Raises UserError for more."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.count += 1
        if self.count > PIECES:
            raise UserError(f"it is in more than {PIECES:,} pieces; save it anew")
        return super().read(size)


def decode(path: Path) -> Image.Image:
    """The first frame, upright, at most LARGEST a side: RGBA if it is a cut-out, else RGB.

    A cut-out is in parts more opaque than transparent, and in parts less. What is equally
    transparent everywhere is put on white. Raises UserError, which says the reason.
    """
    try:
        with warnings.catch_warnings(), Pieces(open_regular(path, FILE_BYTES).detach()) as file:
            warnings.simplefilter("ignore")  # flaws of the file that Pillow can live with
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            found = scans(file)
            opened = Image.open(file, formats=FORMATS)
            check_size(opened, found)
            turn = TURNS.get(orientation(opened))
            picture = reduce(opened)
    except UnidentifiedImageError as error:
        raise UserError(f"it is empty, damaged, or none of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = Image.MAX_IMAGE_PIXELS // 10**6
        raise UserError(f"it has more than {most} megapixels; save it smaller") from error
    except (
        Exception
    ) as error:  # a damaged file can fail anywhere in a decoder, with any kind of error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(printable(reason)) from error
    if turn is not None:
        picture = picture.transpose(turn)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    least, most = picture.getchannel("A").getextrema()
    if least < OPAQUE <= most:
        return picture.convert("RGBA")
    return put_on(picture, "white")


def check_size(picture: Image.Image, found: list[int]) -> None:
    """Raises UserError for more MEGAPIXELS than can be decoded; `found` are the `scans`."""
    kind = picture.format
    if isinstance(picture, JpegImageFile):
        at_once = found == [picture.layers] and not picture.info.get("progressive")
        kind = "JPEG" if at_once else "progressive JPEG"
    count = -(-picture.width * picture.height // 10**6)
    if count > MEGAPIXELS[kind]:
        raise UserError(
            f"it has {count} megapixels; a {kind} may have at most {MEGAPIXELS[kind]}: "
            "save it smaller"
        )


def reduce(picture: Image.Image) -> Image.Image:
    """The picture in 8 bits, in mode L, LA, RGB or RGBA, at most LARGEST a side.

    It has no more copies of the whole picture than it must. What is opaque has no alpha.
    """
    # a JPEG is decoded at a lower scale, other formats know none
    picture.draft(None, (2 * LARGEST, 2 * LARGEST))
    picture.load()
    if picture.mode.startswith("I"):
        picture = halve(picture)
    modes = ("RGBA", "LA") if picture.has_transparency_data else ("RGB", "L")
    if picture.mode not in modes:
        picture = picture.convert(modes[0])
    if picture.has_transparency_data and picture.getextrema()[-1][0] == 255:
        picture = picture.convert(picture.mode.removesuffix("A"))
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return picture


def halve(picture: Image.Image) -> Image.Image:
    """A picture of 16 bits in 8 bits: convert() would clip it at 255."""
    levels = np.asarray(picture)
    key = picture.info.get("transparency")
    # 65535 / 257 = 255; the sum has no more than 16 bits
    grey = Image.fromarray(((np.minimum(levels, 65407) + 128) // 257).astype(np.uint8))
    if key is None:
        return grey
    return Image.merge("LA", [grey, Image.fromarray((levels != key).astype(np.uint8) * 255)])


def orientation(picture: Image.Image) -> int | None:
    """The number that the camera noted; None if there is none, or if its notes are damaged.

    Notes of more than EXIF_BYTES are forgotten.
    """
    if len(picture.info.get("exif", b"")) > EXIF_BYTES:
        del picture.info["exif"]
    try:
        return picture.getexif().get(0x0112)
    except Exception:  # damaged notes can fail anywhere in Pillow, with any kind of error
        return None


def put_on(picture: Image.Image, colour: str) -> Image.Image:
    """RGB of a picture that is transparent in parts, on ground of the colour."""
    ground = Image.new("RGBA", picture.size, colour)
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def prepare(picture: Image.Image, side: int, invert: str) -> Tensor:
    """What the model sees of the picture, (1, side, side) uint8.

    A picture of SIDE x SIDE or side x side pixels is taken pixel by pixel, at most inverted:
    `invert` is "true", "false", or "auto", if the object is darker than its ground. Raises
    UserError if nothing is seen.
    """
    as_it_is = picture.size in ((SIDE, SIDE), (side, side))
    see = see_cut_out if picture.mode == "RGBA" else see_photo
    grey = see(picture, as_it_is, invert)
    return resize(torch.from_numpy(np.array(grey))[None], [side, side])


def see_photo(picture: Image.Image, as_it_is: bool, invert: str) -> Image.Image:
    """Grey levels of the object, whose ground is the colour of the margin."""
    grey = picture.convert("L")
    levels = np.asarray(grey)
    ground = float(np.median(np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])))
    if np.abs(levels - ground).max() <= CLOSE:
        raise UserError("it is of one colour, or nearly so")
    if invert == "true" or (invert == "auto" and levels.mean() < ground):
        grey, ground = ImageOps.invert(grey), 255 - ground
    return grey if as_it_is else trim(grey, ground)


def see_cut_out(picture: Image.Image, as_it_is: bool, invert: str) -> Image.Image:
    """Grey levels of the object, whose ground is transparent and becomes black."""
    grey = np.asarray(picture.convert("L")).astype(float)
    alpha = np.asarray(picture.getchannel("A")) / 255
    mask = opaque(picture)
    if invert == "true" or (invert == "auto" and is_dark(grey, mask)):
        grey = 255 - grey
    light = Image.fromarray((grey * alpha).round().astype(np.uint8))
    if invert != "auto" and light.getextrema()[1] <= CLOSE:
        raise UserError(f"invert={invert} makes it black on black; use invert=auto")
    if as_it_is:
        return light
    # one speck would keep its edge
    without_specks = mask.filter(ImageFilter.MedianFilter(5))
    return fit(light.crop(without_specks.getbbox() or mask.getbbox()), 0)


def opaque(picture: Image.Image) -> Image.Image:
    """Mask, 0 or 255: the pixels that are at least half as opaque as the most opaque one."""
    alpha = picture.getchannel("A")
    half = alpha.getextrema()[1] / 2
    return alpha.point([255 * (v >= half) for v in range(256)])


def is_dark(levels: np.ndarray, mask: Image.Image) -> bool:
    """Whether a cut-out is darker than the ground that it was cut from.

    Nobody knows that ground, so it counts as mid-grey. But an edge is never cut exactly, and has
    some of the ground, so the level between mid-grey and the edge is taken.
    """
    inside = ImageOps.expand(mask, 1).filter(ImageFilter.MinFilter(3))
    inside = np.asarray(ImageOps.crop(inside, 1)) > 0
    everywhere = np.asarray(mask) > 0
    edge = np.median(levels[everywhere & ~inside])
    # an object that is thin everywhere is all edge
    thing = np.median(levels[inside if inside.any() else everywhere])
    return bool(thing < (127.5 + edge) / 2)


def trim(grey: Image.Image, ground: float) -> Image.Image:
    """The object as it is `fit`, on black or on a ground that is lighter."""
    if np.mean(grey) >= ground:
        grey, ground = grey.point([max(0, round(v - ground)) for v in range(256)]), 0
    differs = [255 * (abs(v - ground) > CLOSE) for v in range(256)]
    without_specks = grey.filter(
        ImageFilter.MedianFilter(5)
    )  # one grain of noise would keep its edge
    thing = grey.crop(without_specks.point(differs).getbbox() or grey.point(differs).getbbox())
    return fit(thing, round(ground))


def fit(thing: Image.Image, ground: int) -> Image.Image:
    """The thing in SIDE x SIDE pixels, as large as fits, centred on the ground."""
    size = [max(1, round(edge * SIDE / max(thing.size))) for edge in thing.size]
    thing = thing.resize(size, Image.Resampling.LANCZOS)
    # the odd pixel of a margin is above or left, as in FashionMNIST
    return ImageOps.pad(thing, (SIDE, SIDE), color=ground, centering=(0.51, 0.51))


def pair(picture: Image.Image, seen: Tensor) -> Tensor:
    """The picture in a square, and what the model sees of it, side by side, (3, s, 2 s) in [0,
    1]."""
    times = -(-4 * SIDE // seen.shape[-1])  # so that neither is small
    seen = seen.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2).expand(3, -1, -1)
    ground = "white"
    if picture.mode == "RGBA":
        # both a white and a black cut-out are seen on it
        ground = "silver"
        picture = put_on(picture, ground)
    given = ImageOps.pad(picture, seen.shape[1:], color=ground)
    return torch.cat([pil_to_tensor(given), seen], dim=2) / 255
