"""A user's picture file, decoded in a bounded time and memory.

The file may be damaged, huge, or made to do harm. Whatever is wrong with it is a UserError.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from src.errors import UserError, printable
from src.files import open_regular
from src.predict.jpeg import scans

# Pillow knows more; some of those start other programs.
FORMATS = ["PNG", "JPEG", "BMP", "GIF", "WEBP"]
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
# A picture becomes upright by this, after the orientation that the camera noted.
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
            layers = scans(file)
            opened = Image.open(file, formats=FORMATS)
            check_size(opened, layers)
            turn = TURNS.get(orientation(opened))
            picture = reduce(opened)
    except UnidentifiedImageError as error:
        raise UserError(f"it is empty, damaged, or none of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = Image.MAX_IMAGE_PIXELS // 10**6
        raise UserError(f"it has more than {most} megapixels; save it smaller") from error
    except Exception as error:
        # a damaged file can fail anywhere in a decoder, with any kind of error
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


def check_size(picture: Image.Image, layers: list[int]) -> None:
    """Raises UserError for more MEGAPIXELS than can be decoded.

    `layers` are those of each scan of a JPEG, as `scans` counts them.
    """
    kind = picture.format
    if isinstance(picture, JpegImageFile):
        at_once = layers == [picture.layers] and not picture.info.get("progressive")
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
