"""A user's picture as the model sees it: like those of FashionMNIST, light on black.

FashionMNIST was made of product photos (arXiv 1708.07747, section 2) in the same steps, but for
two: here pixels are averaged, not skipped and sharpened, and the ground, which is not always pure
white, is subtracted.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from src.errors import UserError
from src.predict.pictures import put_on

SIDE = 28  # pixels a side that the images of FashionMNIST have
CLOSE = 0.05 * 255  # grey levels about the ground that still count as ground


def prepare(picture: Image.Image, side: int, invert: str) -> Tensor:
    """The picture as the model sees it, (1, side, side) uint8.

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
    margin = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    ground = float(np.median(margin))
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
    body = np.median(levels[inside if inside.any() else everywhere])
    return bool(body < (127.5 + edge) / 2)


def trim(grey: Image.Image, ground: float) -> Image.Image:
    """The object as it is `fit`, on black or on a ground that is lighter."""
    if np.mean(grey) >= ground:
        grey, ground = grey.point([max(0, round(v - ground)) for v in range(256)]), 0
    differs = [255 * (abs(v - ground) > CLOSE) for v in range(256)]
    # one grain of noise would keep its edge
    without_specks = grey.filter(ImageFilter.MedianFilter(5))
    box = without_specks.point(differs).getbbox() or grey.point(differs).getbbox()
    return fit(grey.crop(box), round(ground))


def fit(cropped: Image.Image, ground: int) -> Image.Image:
    """The picture in SIDE x SIDE pixels, as large as fits, centred on the ground."""
    size = [max(1, round(edge * SIDE / max(cropped.size))) for edge in cropped.size]
    smaller = cropped.resize(size, Image.Resampling.LANCZOS)
    # the odd pixel of a margin is above or left, as in FashionMNIST
    return ImageOps.pad(smaller, (SIDE, SIDE), color=ground, centering=(0.51, 0.51))


def pair(picture: Image.Image, seen: Tensor) -> Tensor:
    """The picture in a square beside what the model sees of it, (3, s, 2 s) in [0, 1]."""
    # so many times larger that neither is small
    times = -(-4 * SIDE // seen.shape[-1])
    seen = seen.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2).expand(3, -1, -1)
    ground = "white"
    if picture.mode == "RGBA":
        # both a white and a black cut-out are seen on it
        ground = "silver"
        picture = put_on(picture, ground)
    given = ImageOps.pad(picture, seen.shape[1:], color=ground)
    return torch.cat([pil_to_tensor(given), seen], dim=2) / 255
