"""What becomes of a user's picture: formats, modes and damage; expectations by hand arithmetic or
numpy."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from torchvision.transforms.v2.functional import resize

from src.charts import save
from src.data.fashion_mnist import CLASSES, FashionMNIST
from src.errors import UserError, printable
from src.predict.inputs import find, passed_over
from src.predict.jpeg import SCANS, scans
from src.predict.pictures import EXIF_BYTES, decode
from src.predict.prediction import chart
from src.predict.preparation import pair, prepare
from tests.conftest import ROOT, write_png_header

WHITE = 255


@pytest.fixture(scope="module")
def official(data_root) -> torch.Tensor:
    """The official test images, (10000, 1, 28, 28)."""
    data = FashionMNIST(root=str(data_root))
    data.setup()
    return data.splits["test"][0].X


def ramp() -> np.ndarray:
    """Grey levels (40, 60): a ramp, 60 wide and not symmetric in any way, within a white border."""
    levels = np.full((40, 60), WHITE, np.uint8)
    levels[5:30, 10:55] = np.add.outer(np.arange(25) * 4, np.arange(45) * 3)
    return levels


def grey(path: Path) -> np.ndarray:
    return np.asarray(decode(path).convert("L")).astype(int)


def load(path: Path) -> torch.Tensor:
    return prepare(decode(path), 28, "auto")


def seen(levels: np.ndarray, invert: str = "auto", side: int = 28) -> np.ndarray:
    image = prepare(Image.fromarray(levels.astype(np.uint8)), side, invert)
    assert image.shape == (1, side, side)
    assert image.dtype == torch.uint8
    return image[0].numpy().astype(int)


def rectangle(height: int, width: int, level: int = 0, on: int = WHITE) -> np.ndarray:
    levels = np.full((200, 300), on, np.uint8)
    levels[30 : 30 + height, 15 : 15 + width] = level
    return levels


def png(path: Path, samples: np.ndarray, colour_type: int, *chunks: tuple[bytes, bytes]) -> None:
    """Write samples (h, w, channels) of 16 bits: Pillow reads these, but writes only grey ones."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


# --- formats and modes


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("L", "LA", "P", "RGB", "RGBA")),
        *(("bmp", mode) for mode in ("L", "P", "RGB", "RGBA")),
        *(("gif", mode) for mode in ("L", "P", "RGB")),
        *(("webp", mode) for mode in ("L", "RGB", "RGBA")),
    ],
)
def test_lossless_formats_give_every_grey_level(tmp_path, suffix, mode):
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(ramp()).convert(mode).save(path, **options)
    assert np.array_equal(grey(path), ramp())


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_gives_nearly_every_grey_level(tmp_path, mode):
    path = tmp_path / "x.jpeg"
    Image.fromarray(ramp()).convert(mode).save(path, quality=95)
    assert abs(grey(path) - ramp()).mean() < 2


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
def test_pictures_of_two_colours_are_black_and_white(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(ramp() > 100).save(path)
    assert np.array_equal(grey(path), 255 * (ramp() > 100))


def test_colours_become_grey_by_their_brightness(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (5, 5), (200, 100, 50)).save(path)
    # ITU-R 601-2: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert set(grey(path).flatten()) == {124}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_equal_8_bits_within_one_level(tmp_path, channels):
    path = tmp_path / "x.png"
    samples = np.repeat(ramp()[:, :, None].astype(int) * 257, channels, axis=2)
    if channels in (2, 4):
        samples[:, :, -1] = 65535  # opaque
    png(path, samples, {1: 0, 2: 4, 3: 2, 4: 6}[channels])
    assert abs(grey(path) - ramp()).max() <= 1


def test_16_bit_grey_as_pillow_writes_it_is_not_saturated(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(ramp().astype(np.uint16) * 257).save(path)
    assert np.array_equal(grey(path), ramp())


def test_what_is_transparent_remains_so(tmp_path):
    half = np.where(np.arange(60) < 30, 0, 255).astype(np.uint8)[None].repeat(40, axis=0)  # alpha
    for mode in ("LA", "RGBA"):
        picture = Image.fromarray(ramp()).convert(mode)
        picture.putalpha(Image.fromarray(half))
        for suffix in ("png", "webp"):
            path = tmp_path / f"{mode}.{suffix}"
            picture.save(path, **({"lossless": True} if suffix == "webp" else {}))
            levels, alpha = (np.asarray(each) for each in decode(path).convert("LA").split())
            assert np.array_equal(alpha, half), path
            assert np.array_equal(levels[half > 0], ramp()[half > 0]), path


def test_what_is_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (5, 5), (0, 0, 0, 51)).save(
        tmp_path / "x.png"
    )  # 51 / 255 black, 204 / 255 white
    assert set(grey(tmp_path / "x.png").flatten()) == {204}


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_one_colour_of_a_palette_may_be_transparent(tmp_path, suffix):
    picture = Image.fromarray((np.arange(60)[None] // 20).astype(np.uint8).repeat(40, axis=0), "P")
    picture.putpalette([10, 10, 10, 120, 120, 120, 200, 200, 200])
    picture.save(tmp_path / f"x.{suffix}", transparency=1)
    levels, alpha = (
        np.asarray(each)[0, ::20].tolist()
        for each in decode(tmp_path / f"x.{suffix}").convert("LA").split()
    )
    assert alpha == [255, 0, 255]
    assert levels[::2] == [10, 200]


def test_one_grey_level_may_be_transparent(tmp_path):
    levels = np.array([[0, 100, 200]], np.uint8)
    Image.fromarray(levels).save(tmp_path / "8.png", transparency=100)
    key = b"tRNS", struct.pack(">H", 100 * 257)
    png(tmp_path / "16.png", levels[:, :, None].astype(int) * 257, 0, key)
    for name in ("8.png", "16.png"):
        found, alpha = decode(tmp_path / name).convert("LA").split()
        assert np.asarray(alpha).tolist() == [[255, 0, 255]]
        assert np.asarray(found)[0, ::2].tolist() == [0, 200]


@pytest.mark.parametrize("alpha", [0, 100, 127, 128, 254])
def test_a_picture_that_is_equally_transparent_everywhere_is_put_on_white(tmp_path, alpha):
    picture = Image.fromarray(ramp()).convert("RGBA")
    picture.putalpha(alpha)
    picture.save(tmp_path / "x.png")
    expected = ramp() * (alpha / 255) + 255 - alpha
    assert abs(grey(tmp_path / "x.png") - expected).max() <= 1


@pytest.mark.parametrize("size", [(60, 40), (1300, 900)])
def test_a_picture_that_is_opaque_everywhere_is_what_it_is_without_its_alpha(tmp_path, size):
    plain = Image.fromarray(ramp()).resize(size)
    for mode in ("L", "RGB"):
        plain.convert(mode).save(tmp_path / "plain.png")
        plain.convert(f"{mode}A" if mode == "RGB" else "LA").save(tmp_path / "opaque.png")
        expected, found = decode(tmp_path / "plain.png"), decode(tmp_path / "opaque.png")
        assert found.mode == expected.mode == "RGB"
        assert np.array_equal(np.asarray(found), np.asarray(expected))


UPRIGHT = {  # EXIF orientation -> what makes the stored rows and columns upright
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.T, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_rotations_and_reflections_of_the_camera_are_undone(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(ramp()).save(
        path, exif=exif, **({"lossless": True} if suffix == "webp" else {})
    )
    assert np.array_equal(grey(path), UPRIGHT[orientation](ramp()))


@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_is_turned_as_pillow_turns_it(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ramp()).convert("RGB").save(tmp_path / f"x.{suffix}", exif=exif)
    with Image.open(tmp_path / f"x.{suffix}") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(np.asarray(decode(tmp_path / f"x.{suffix}")), expected)


def test_a_flaw_elsewhere_in_the_notes_of_the_camera_does_no_harm(tmp_path):
    lying = struct.pack("<HHIHxx", 0x0112, 3, 1, 6)  # the orientation
    flaw = struct.pack("<HHII", 0x011A, 10, 1, 38)  # pixels per inch, a signed fraction
    tags = struct.pack("<H", 2) + lying + flaw + bytes(4) + struct.pack("<ii", -1, 3)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + tags
    Image.fromarray(np.rot90(ramp())).save(tmp_path / "x.jpg", exif=exif, quality=95)
    assert abs(grey(tmp_path / "x.jpg") - ramp()).mean() < 2


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("notes", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"no EXIF at all"])
def test_a_picture_with_damaged_notes_of_the_camera_is_shown_as_it_is(tmp_path, suffix, notes):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(ramp()).save(path, exif=b"Exif\0\0" + notes)
    assert abs(grey(path) - ramp()).mean() < 12


def test_notes_of_the_camera_that_are_longer_than_any_camera_writes_are_left_out(tmp_path):
    tags = struct.pack("<HHHIHxx", 1, 0x0112, 3, 1, 6)
    exif = b"II*\0" + struct.pack("<I", 8) + tags
    for extra, size in ((0, (40, 60)), (EXIF_BYTES, (60, 40))):
        Image.fromarray(ramp()).save(tmp_path / "x.png", exif=exif + bytes(extra))
        assert decode(tmp_path / "x.png").size == size


def test_a_rotated_jpeg_shows_the_model_the_upright_object(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(np.rot90(ramp())).save(tmp_path / "x.jpg", exif=exif, quality=95)
    rotated = load(tmp_path / "x.jpg")
    assert abs(rotated[0].numpy().astype(int) - seen(ramp())).mean() < 3


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_an_animation_shows_its_first_frame(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    frames = [Image.fromarray(np.full((20, 30), level, np.uint8)) for level in (40, 200)]
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        **({"lossless": 1} if suffix == "webp" else {}),
    )
    assert set(grey(path).flatten()) == {40}


def test_a_large_photo_is_reduced_before_anything_else(tmp_path):
    Image.new("RGB", (3000, 1500), "white").save(tmp_path / "x.jpg")
    assert decode(tmp_path / "x.jpg").size == (512, 256)


# --- what the model sees


def test_images_of_the_data_set_are_taken_pixel_by_pixel(tmp_path, official):
    for i, image in enumerate(official[:20]):
        Image.fromarray(image[0].numpy()).save(tmp_path / "x.png")
        assert torch.equal(load(tmp_path / "x.png"), image), i


@pytest.mark.slow
def test_no_image_of_the_data_set_and_every_negative_of_one_is_inverted(official):
    for image in official[::5, 0].numpy().astype(int):
        assert np.array_equal(seen(image), image)
        assert np.array_equal(seen(255 - image), image)


@pytest.mark.slow
def test_another_side_is_reached_as_the_data_module_reaches_it(data_root, official):
    data = FashionMNIST(root=str(data_root), resize=40)
    data.setup()
    expected = data.splits["test"][0].X[0, 0].numpy()
    assert np.array_equal(seen(official[0, 0].numpy(), side=40), expected)
    assert np.array_equal(seen(expected, side=40), expected)  # has the side already
    large = np.pad(official[0, 0].numpy().repeat(10, axis=0).repeat(10, axis=1), 30)
    small = torch.tensor(seen(large), dtype=torch.uint8)[None]
    assert np.array_equal(seen(large, side=40), resize(small, [40, 40])[0])


def test_the_object_fills_the_longest_edge_and_is_centred():
    expected = np.zeros((28, 28))
    expected[7:21] = 255  # 50 x 100 pixels become 14 x 28
    assert np.array_equal(seen(rectangle(50, 100)), expected)
    assert np.array_equal(seen(rectangle(100, 50)), expected.T)


def test_the_odd_pixel_of_a_margin_is_above_or_left_as_in_the_data_set(official):
    expected = np.zeros((28, 28))
    expected[2:27] = 255  # 100 x 112 pixels become 25 x 28: 2 above, 1 below
    assert np.array_equal(seen(rectangle(100, 112)), expected)
    assert np.array_equal(seen(rectangle(112, 100)), expected.T)
    filled = (official[:, 0] > 0).any(dim=1).int()  # (n, 28), columns with anything in them
    margins = filled.argmax(dim=1) - filled.flip(1).argmax(dim=1)  # left less right
    assert ((margins == 0) | (margins == 1)).float().mean() > 0.95
    assert (margins == 1).float().mean() > 0.3


def test_the_ground_becomes_black_whatever_it_was():
    assert set(seen(rectangle(50, 100, level=60, on=200)).flatten()) == {0, 140}
    assert set(seen(rectangle(50, 100, level=160, on=20)).flatten()) == {0, 140}


@pytest.mark.parametrize("ground", [255, 200, 140, 110, 60])
def test_auto_makes_an_object_that_is_darker_than_its_ground_light(ground):
    # the grey level of the ground alone does not tell: 110 may be a dark floor or the shade of a
    # wall
    assert set(seen(rectangle(50, 100, level=ground - 50, on=ground)).flatten()) == {0, 50}


def test_auto_sees_the_same_on_a_light_and_on_a_dark_ground():
    noisy = rectangle(70, 90, 37, 211) + np.random.default_rng(0).normal(0, 3, (200, 300))
    for levels in (ramp(), rectangle(50, 100, 60, 200), noisy.clip(0, 255).astype(np.uint8)):
        assert np.array_equal(seen(levels), seen(255 - levels))


def test_inverted_always_or_never_if_the_user_says_so():
    light, dark = rectangle(50, 100, level=55, on=255), rectangle(50, 100, level=200, on=0)
    assert set(seen(light, "true").flatten()) == set(seen(dark, "false").flatten()) == {0, 200}
    assert set(seen(light, "false").flatten()) == set(seen(dark, "true").flatten()) == {255, 55}
    small = np.arange(784).reshape(28, 28) % 200
    assert np.array_equal(seen(small, "true"), 255 - small)
    assert np.array_equal(seen(small, "false"), small)


def test_specks_and_noise_do_not_keep_an_edge_from_being_trimmed():
    noisy = rectangle(50, 100).astype(int)
    noisy[[3, 150, 190], [5, 40, 290]] = 0
    noisy = noisy + np.random.default_rng(0).normal(0, 3, noisy.shape)
    assert abs(seen(noisy.clip(0, 255)) - seen(rectangle(50, 100))).max() < 12


@pytest.mark.parametrize("size", [(1, 3), (2, 2), (3, 500), (27, 29), (28, 30)])
def test_any_size_will_do(size):
    levels = np.full(size, WHITE, np.uint8)
    levels[size[0] // 2, size[1] // 2] = 0
    assert seen(levels).max() > 0


def test_a_hair_keeps_a_pixel():
    hair = rectangle(1, 280)
    expected = np.zeros((28, 28), bool)
    expected[14] = True
    assert np.array_equal(seen(hair) > 0, expected)


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (40, 40), (300, 200)])
@pytest.mark.parametrize("level", [0, 120, 255])
def test_a_blank_picture_is_refused(size, level):
    with pytest.raises(UserError, match="one colour"):
        seen(np.full(size, level, np.uint8))


# --- cut-outs


def shirt(colour: str, crease: str, size: tuple[int, int] = (300, 200)) -> Image.Image:
    """A shirt of the colour with a crease from top to bottom, on transparent ground of no one
    colour."""
    mask = Image.new("L", size)
    outline = [(60, 20), (120, 20), (150, 70), (120, 80), (110, 60), (110, 180)]
    mirrored = [(180 - x, y) for x, y in reversed(outline)]
    ImageDraw.Draw(mask).polygon(outline + mirrored, fill=255)
    picture = Image.effect_noise(size, 200).convert("RGB")
    picture.paste(colour, mask=mask)
    picture.paste(crease, (88, 20, 93, 180))
    picture.putalpha(mask)
    return picture


def light(picture: Image.Image, invert: str = "auto") -> np.ndarray:
    """Grey levels (28, 28) that the model sees."""
    return prepare(picture, 28, invert)[0].numpy().astype(int)


GARMENTS = {  # garment -> crease, and the grey level at which each is to be seen
    "white": ("lightgrey", 255, 211),
    "black": ("dimgrey", 255, 150),
    "grey": ("lightgrey", 128, 211),
    "dimgrey": ("black", 150, 255),
    "red": ("darkred", 179, 213),
    "navy": ("black", 240, 255),
    "yellow": ("gold", 226, 202),
}


@pytest.mark.parametrize("colour", GARMENTS)
def test_a_shirt_on_transparent_ground_is_seen_light_on_black(tmp_path, colour):
    crease, garment_level, crease_level = GARMENTS[colour]
    shirt(colour, crease).save(tmp_path / "x.png")
    seen_levels = load(tmp_path / "x.png")[0].numpy().astype(int)
    # making it smaller sharpens the crease: up to two levels beside it
    assert abs(seen_levels[20, [12, 16]] - garment_level).max() <= 2
    assert abs(seen_levels[8:26, 14] - crease_level).min() < 25  # a crease of less than a pixel
    assert (seen_levels[15:, [0, 1, 2, 25, 26, 27]] == 0).all()  # beside the body
    assert (seen_levels[[0, -1]] > 50).any(axis=1).all()  # from top to bottom


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_the_ground_of_a_cut_out_is_black_whatever_colour_its_pixels_have(tmp_path, suffix):
    images = []
    for k, ground in enumerate(("black", "white", "red")):
        picture = Image.new("RGBA", (300, 200), ground)
        picture.putalpha(0)
        picture.alpha_composite(shirt("white", "lightgrey"))
        options = {"lossless": True, "exact": True} if suffix == "webp" else {}
        picture.save(tmp_path / f"{k}.{suffix}", **options)
        images.append(load(tmp_path / f"{k}.{suffix}"))
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_a_cut_out_is_cropped_to_what_is_more_opaque_than_transparent():
    picture = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 70), (10, 100, 290, 190))  # a shadow
    picture.paste((0, 0, 0, 255), (100, 50, 200, 100))
    picture.putpixel((5, 5), (0, 0, 0, 255))  # a speck
    found = light(picture)
    assert (found[7:21] == 255).all()
    assert (found[:7] == 0).all()


def test_half_transparent_edges_are_half_as_light():
    picture = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 128), (4, 4, 24, 24))
    picture.paste((255, 255, 255, 255), (8, 8, 20, 20))
    assert light(picture)[14].tolist() == [0] * 4 + [128] * 4 + [255] * 12 + [128] * 4 + [0] * 4


def test_a_cut_out_in_the_size_of_the_data_set_is_taken_pixel_by_pixel(official):
    for image in official[:50, 0].numpy():
        alpha = Image.fromarray((image > 0).astype(np.uint8) * 255)
        for side in (28, 40):
            levels = Image.fromarray(image).resize((side, side))
            picture = Image.merge(
                "LA", (levels, alpha.resize((side, side), Image.Resampling.NEAREST))
            ).convert("RGBA")
            found = prepare(picture, side, "false")[0].numpy()
            assert np.array_equal(found[found > 0], np.asarray(levels)[found > 0])


def test_a_cut_out_is_inverted_always_or_never_if_the_user_says_so():
    for colour, level in (("silver", 192), ("dimgrey", 105)):
        picture = shirt(colour, colour)
        expected = {"false": level, "true": 255 - level, "auto": max(level, 255 - level)}
        for invert, body in expected.items():
            assert light(picture, invert)[15:26, 13:15].tolist() == [[body] * 2] * 11, invert


@pytest.mark.parametrize(("colour", "invert"), [("black", "false"), ("white", "true")])
def test_a_cut_out_that_the_user_makes_black_on_black_is_refused(colour, invert):
    with pytest.raises(
        UserError, match=f"^invert={invert} makes it black on black; use invert=auto"
    ):
        light(shirt(colour, colour), invert)


def test_a_former_ground_at_the_edge_tells_whether_a_grey_garment_is_inverted():
    alpha = np.zeros((140, 140), np.uint8)
    alpha[20:120, 20:120] = 255
    for edge, level in ((0, 120), (255, 120)):
        levels = np.full((140, 140), edge, np.uint8)
        levels[24:116, 24:116] = 120
        picture = Image.merge("LA", (Image.fromarray(levels), Image.fromarray(alpha)))
        expected = level if edge == 0 else 255 - level
        assert light(picture.convert("RGBA"))[14, 14] == expected


def test_a_hair_and_a_dot_on_transparent_ground_are_seen():
    for size in ((1, 200), (200, 1), (1, 1)):
        for colour in ("white", "black"):
            picture = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
            picture.paste(colour, (50, 50, 50 + size[0], 50 + size[1]))
            assert light(picture).max() > 100


def test_the_drawing_shows_white_and_black_cut_outs():
    for colour in ("white", "black"):
        picture = shirt(colour, colour)
        given = pair(picture, prepare(picture, 28, "auto"))[:, :, :112]
        assert len(given.mean(dim=0).unique()) > 1
        assert 0.5 < given[:, 56, 100].mean() < 0.9  # the ground, neither black nor white


# --- files that cannot be read


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty, damaged, or none of"),
        (b"these are words", "empty, damaged, or none of PNG, JPEG, BMP, GIF, WEBP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(tmp_path, content, reason):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        decode(tmp_path / "x.png")


def test_what_is_no_file_is_refused_with_the_reason(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    (tmp_path / "circle.png").symlink_to("circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in {
        "folder": "no regular file",
        "link": "No such file",
        "circle": "symbolic links",
        "pipe": "no regular file",
    }.items():
        with pytest.raises(UserError, match=reason):
            decode(tmp_path / f"{name}.png")


def test_a_file_of_somebody_else_is_refused_with_the_reason(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.png").write_bytes(b"x")
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(UserError, match=r"^Permission denied$"):
        decode(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp"])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path, suffix):
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"x.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp()).save(whole, **({} if suffix in ("bmp", "gif") else {"exif": exif}))
    content = whole.read_bytes()
    random = np.random.default_rng(0)
    reasons = []
    for attempt in range(60):
        damaged = bytearray(content[: random.integers(1, len(content))] if attempt % 2 else content)
        for place in random.integers(len(damaged), size=3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except UserError as reason:
            reasons.append(str(reason))
    assert len(reasons) > 15
    assert all(reason and reason.isprintable() for reason in reasons)


# --- large pictures


def memory(path: Path) -> int:
    """Bytes that a process of its own takes to decode the picture, at most."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell the peak of one process")
    code = f"""
import re
from pathlib import Path
from src.predict.pictures import decode
before = Path("/proc/self/status").read_text()
decode(Path({str(path)!r}))
after = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+)", after)[1]) - int(re.search(r"VmRSS:\\s+(\\d+)", before)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return 1024 * int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jpg", pytest.param("mpo", marks=pytest.mark.thorough)])
def test_a_photo_of_108_megapixels_is_read_in_little_memory(tmp_path, suffix):
    photo = Image.new("RGB", (12_000, 9_000), "white")
    photo.paste("navy", (3_000, 2_250, 9_000, 6_750))
    options = {"save_all": True, "append_images": [Image.new("RGB", (60, 40))]}
    photo.save(tmp_path / f"x.{suffix}", **(options if suffix == "mpo" else {}))
    (tmp_path / f"x.{suffix}").rename(tmp_path / "x.jpg")
    assert decode(tmp_path / "x.jpg").size == (512, 384)
    assert torch.equal(load(tmp_path / "x.jpg") > 100, framed(21) > 0)
    assert memory(tmp_path / "x.jpg") < 100e6


def framed(height: int) -> torch.Tensor:
    """A white bar as wide as the image, and so high, at its centre."""
    image = torch.zeros(1, 28, 28)
    image[:, (29 - height) // 2 : (29 - height) // 2 + height] = 255
    return image


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("LA", marks=pytest.mark.thorough),
        pytest.param("RGBA", marks=pytest.mark.thorough),
        pytest.param("I;16", marks=pytest.mark.thorough),
    ],
)
def test_a_png_of_100_megapixels_is_read_in_a_gigabyte(tmp_path, mode):
    Image.new(mode, (10_000, 10_000)).save(tmp_path / "x.png", compress_level=1)
    assert memory(tmp_path / "x.png") < 1e9


@pytest.mark.slow
@pytest.mark.thorough
def test_a_webp_of_52_megapixels_is_read_in_a_gigabyte(tmp_path):
    Image.new("RGBA", (10_000, 5_200)).save(tmp_path / "x.webp", lossless=True, method=0)
    assert memory(tmp_path / "x.webp") < 1.1e9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "options", "size", "complaint"),
    [
        (
            "png",
            {},
            (10_100, 10_000),
            "101 megapixels; a PNG may have at most 100: save it smaller",
        ),
        (
            "gif",
            {},
            (10_001, 10_000),
            "101 megapixels; a GIF may have at most 100: save it smaller",
        ),
        ("bmp", {}, (20_000, 6_000), "120 megapixels; a BMP may have at most 100: save it smaller"),
        ("webp", {}, (9_000, 6_000), "54 megapixels; a WEBP may have at most 52: save it smaller"),
        (
            "jpg",
            {"progressive": True},
            (12_000, 9_000),
            "108 megapixels; a progressive JPEG may have at most 100: save it smaller",
        ),
    ],
)
def test_a_picture_of_too_many_megapixels_is_refused_in_plain_words(
    tmp_path, suffix, options, size, complaint
):
    one_bit = Image.new("1", size)
    picture = one_bit if suffix in ("png", "gif", "bmp") else one_bit.convert("L")
    picture.save(tmp_path / f"x.{suffix}", **options)
    with pytest.raises(UserError, match=f"^it has {complaint}$"):
        decode(tmp_path / f"x.{suffix}")


def test_a_jpeg_that_is_decoded_whole_has_the_limit_of_a_progressive_one(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (12_000, 9_000)).save(content, "JPEG")
    start = content.getvalue().index(b"\xff\xda")
    # of three components its first scan has one, and the others may follow
    one = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + content.getvalue()[start + 14 :]
    (tmp_path / "x.jpg").write_bytes(content.getvalue()[:start] + one)
    with pytest.raises(UserError, match="108 megapixels; a progressive JPEG may have at most 100"):
        decode(tmp_path / "x.jpg")


@pytest.mark.parametrize("size", [(65_000, 20), (20, 65_000)])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_long_strip_is_reduced_to_the_size_of_a_photo(tmp_path, suffix, size):
    Image.new("RGB", size, "white").save(tmp_path / f"x.{suffix}")
    assert sorted(decode(tmp_path / f"x.{suffix}").size) == [1, 512]


def in_pieces(suffix: str, count: int) -> bytes:
    """A small picture with that many empty notes before its pixels."""
    content = io.BytesIO()
    Image.fromarray(ramp()).save(content, suffix)
    whole = content.getvalue()
    note, following = {
        "PNG": (struct.pack(">I4sI", 0, b"noTe", zlib.crc32(b"noTe")), b"IDAT"),
        "GIF": (b"!\xfe\1a\0", struct.pack("<BHHHH", 44, 0, 0, 60, 40)),
        "JPEG": (b"\xff", b"\xff\xe0"),
    }[suffix]
    start = whole.index(following) - (4 if suffix == "PNG" else 0)  # a chunk has its length first
    return whole[:start] + note * count + whole[start:]


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("suffix", ["PNG", "GIF", "JPEG"])
def test_a_file_in_millions_of_pieces_is_refused(tmp_path, suffix):
    (tmp_path / "x").write_bytes(in_pieces(suffix, 1000))
    assert decode(tmp_path / "x").size == (60, 40)
    (tmp_path / "x").write_bytes(in_pieces(suffix, 4_000_001))
    with pytest.raises(UserError, match=r"^it is in more than 4,000,000 pieces; save it anew$"):
        decode(tmp_path / "x")


# --- costly JPEGs


def progressive(**options) -> bytes:
    """A progressive JPEG, as Pillow writes it."""
    content = io.BytesIO()
    Image.fromarray(ramp()).convert("RGB").save(content, "JPEG", progressive=True, **options)
    return content.getvalue()


def repeated(content: bytes, times: int) -> bytes:
    """The JPEG with its last scan, with the table before it, that many times more."""
    start, end = content.rindex(b"\xff\xc4"), content.rindex(b"\xff\xd9")
    return content[:end] + content[start:end] * times + content[end:]


def test_a_jpeg_of_many_scans_is_refused(tmp_path):
    (tmp_path / "x.jpg").write_bytes(repeated(progressive(), 200))
    with pytest.raises(UserError, match=r"^it is a JPEG of 210 scans, .* at most 64; save it anew"):
        decode(tmp_path / "x.jpg")


def test_a_jpeg_of_as_many_scans_as_may_be_is_read(tmp_path):
    ordinary = progressive()
    assert scans(io.BytesIO(ordinary)) == [3, 1, 1, 1, 1, 1, 3, 1, 1, 1]
    many = repeated(ordinary, SCANS - 10)
    (tmp_path / "x.jpg").write_bytes(many)
    assert len(scans(io.BytesIO(many))) == SCANS
    assert abs(grey(tmp_path / "x.jpg") - ramp()).mean() < 12
    with pytest.raises(UserError, match=f"{SCANS + 1} scans"):
        scans(io.BytesIO(repeated(ordinary, SCANS - 9)))


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "webp"])
def test_other_files_have_no_scans(tmp_path, suffix):
    Image.fromarray(ramp()).save(tmp_path / f"x.{suffix}")
    with open(tmp_path / f"x.{suffix}", "rb") as file:
        assert scans(file) == []


def test_scans_in_a_thumbnail_a_note_or_after_the_end_do_not_count(tmp_path):
    inner = repeated(progressive(), 90)
    noted = progressive(exif=b"Exif\0\0" + inner, comment=b"\xff\xda" * 9000)
    whole = noted + inner * 10  # cameras append further pictures, and films
    (tmp_path / "x.jpg").write_bytes(whole)
    assert scans(io.BytesIO(whole)) == scans(io.BytesIO(progressive()))
    assert abs(grey(tmp_path / "x.jpg") - ramp()).mean() < 12


def test_restarts_and_padding_within_a_scan_do_not_hide_further_scans():
    content = progressive(restart_marker_blocks=1)
    assert b"\xff\xd0" in content
    padded = content.replace(b"\xff\xda", b"\xff\xff\xff\xda")
    assert scans(io.BytesIO(padded)) == scans(io.BytesIO(progressive()))


def test_a_jpeg_of_many_segments_is_refused_before_they_are_copied(tmp_path):
    content = progressive()
    note = b"\xff\xe1\xff\xffExif\0\0" + bytes(65535 - 8)
    (tmp_path / "x.jpg").write_bytes(content[:2] + note * 1001 + content[2:])
    with pytest.raises(UserError, match="more than 1,000 segments; save it anew"):
        decode(tmp_path / "x.jpg")


def test_a_jpeg_in_arithmetic_code_is_refused(tmp_path):
    content = io.BytesIO()
    Image.fromarray(ramp()).save(content, "JPEG")
    (tmp_path / "x.jpg").write_bytes(content.getvalue().replace(b"\xff\xc0", b"\xff\xc9"))
    with pytest.raises(UserError, match="arithmetic code; save it anew"):
        decode(tmp_path / "x.jpg")


# --- which files


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "deep/deeper").mkdir(parents=True)
    for name in (
        "b.png",
        "a.JPG",
        "c.webp",
        ".hidden.png",
        "notes.txt",
        "deep/d.gif",
        "deep/deeper/[e].bmp",
    ):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ("", ["a.JPG", "b.png", "c.webp", "deep/d.gif", "deep/deeper/[e].bmp"]),
        ("/deep", ["d.gif", "deeper/[e].bmp"]),
        ("/notes.txt", ["notes.txt"]),
        ("/.hidden.png", [".hidden.png"]),
        ("/deep/deeper/[e].bmp", ["[e].bmp"]),
    ],
)
def test_inputs_are_a_file_or_a_folder_with_all_that_are_in_it(folder, inputs, names):
    found = find(f"{folder}{inputs}")
    assert list(found) == names
    assert all(path.is_file() for path in found.values())


def test_inputs_are_relative_to_the_current_folder_or_to_the_user(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert list(find("b.png")) == list(find("~/b.png")) == ["b.png"]
    assert list(find("deep")) == list(find("~/deep")) == ["d.gif", "deeper/[e].bmp"]


@pytest.mark.parametrize("inputs", ["nope.png", "*.png", "empty"])
def test_inputs_that_name_no_picture_are_said_to(folder, monkeypatch, inputs):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="names no picture") as error:
        find(inputs)
    assert f"inputs={inputs} " in str(error.value)


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "jpeg", "pjpeg", "apng"])
def test_every_usual_suffix_of_a_readable_format_is_found(tmp_path, suffix):
    Image.fromarray(ramp()).save(tmp_path / f"x.{suffix}", "PNG" if suffix == "apng" else "JPEG")
    assert list(find(str(tmp_path))) == [f"x.{suffix}"]
    assert decode(tmp_path / f"x.{suffix}").size == (60, 40)


def test_many_files_that_are_passed_over_are_counted_and_the_first_are_named(tmp_path):
    for k in range(30):
        (tmp_path / f"{k:02}.HEIC").touch()
    line = passed_over(str(tmp_path))
    assert line.startswith("30 files passed over, as they are none of PNG, JPEG, BMP, GIF, WEBP: ")
    assert line.endswith(": 00.HEIC, 01.HEIC, 02.HEIC, 03.HEIC, 04.HEIC, ...; convert them to PNG")
    (tmp_path / "x.png").touch()
    assert list(find(str(tmp_path))) == ["x.png"]


def test_a_folder_of_nothing_but_files_to_pass_over_is_refused_with_their_names(tmp_path):
    (tmp_path / "line\nbreak.tiff").touch()
    with pytest.raises(UserError) as error:
        find(str(tmp_path))
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"inputs={tmp_path} names no picture: ")
    assert line.endswith(r"WEBP: line\nbreak.tiff; convert it to PNG")


def test_nothing_is_said_of_files_that_are_no_pictures_or_not_asked_for(folder):
    assert passed_over(str(folder)) == ""
    (folder / "x.tif").touch()
    assert passed_over(f"{folder}/b.png") == passed_over(f"{folder}/x.tif") == ""


def test_names_fit_on_one_line_of_a_terminal():
    assert printable("näme 中文 😀.png") == "näme 中文 😀.png"
    assert (
        printable("at 1.00\u202fPM\u3000.png") == "at 1.00\u202fPM\u3000.png"
    )  # other kinds of space
    assert printable("a\nb\x1b[31m\u2028.png") == r"a\nb\x1b[31m\u2028.png"
    os.fsencode(printable(os.fsdecode(b"\xff.png"))).decode()  # is UTF-8
    assert (
        printable("gnp.\u202egpj\u200b.png") == r"gnp.\u202egpj\u200b.png"
    )  # would be shown reversed


def test_links_to_a_folder_in_itself_do_not_make_an_endless_tree(folder, monkeypatch):
    for name in ("again", "and_again"):
        (folder / name).symlink_to(".")
    monkeypatch.chdir(folder)
    names = ["a.JPG", "b.png", "c.webp", "deep/d.gif", "deep/deeper/[e].bmp"]
    for inputs in (".", str(folder)):
        assert list(find(inputs)) == names


def test_a_folder_within_a_hidden_one_is_read_and_a_hidden_one_in_it_is_not(folder):
    (folder / ".secret/.more").mkdir(parents=True)
    (folder / ".secret/x.png").touch()
    (folder / ".secret/.more/y.png").touch()
    assert "x.png" not in " ".join(find(str(folder)))
    assert list(find(f"{folder}/.secret")) == ["x.png"]


def header_of_a_large_picture(path: Path) -> None:
    write_png_header(path, 60_000, 60_000)


def enormous(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8 ")  # Pillow reads all of such a file
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (header_of_a_large_picture, "^it has more than 500 megapixels; save it smaller$"),
        (enormous, "too large: it has 1,099,511,627,776 bytes"),
    ],
)
def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path, make, reason):
    make(tmp_path / "x.png")
    with pytest.raises(UserError, match=reason):
        decode(tmp_path / "x.png")


# --- the drawing


def test_the_picture_stands_beside_what_the_model_sees(tmp_path):
    Image.fromarray(rectangle(50, 100)).save(
        tmp_path / "x.png"
    )  # 300 x 200 pixels, in a square of 112
    image = load(tmp_path / "x.png")
    given, shown = pair(decode(tmp_path / "x.png"), image).split(112, dim=2)
    assert torch.equal(
        shown, image.repeat_interleave(4, 1).repeat_interleave(4, 2).expand(3, -1, -1) / 255
    )
    dark = (given < 0.5).nonzero()[:, 1:] - torch.tensor(
        [18.67, 0]
    )  # below the white that fills the square
    expected = torch.tensor([[30, 15], [80, 115]]) * 112 / 300
    torch.testing.assert_close(
        torch.stack([dark.amin(0), dark.amax(0) + 1]), expected, atol=1.5, rtol=0
    )


def rows_of(*names: str, **columns: object) -> list[dict]:
    probabilities = dict.fromkeys(CLASSES, 0.0) | {"t-shirt": 0.5, "dress": 0.3, "sneaker": 0.2}
    return [{"file": name, **columns, **probabilities} for name in names]


def test_the_drawing_names_the_file_and_the_likeliest_classes(tmp_path, caplog):
    caplog.set_level("INFO")
    pairs = torch.rand(2, 3, 112, 224)
    drawing = chart(rows_of("$x$ 中.png", "a" * 40, answer="bag"), pairs, CLASSES)
    save(drawing, tmp_path / "drawing.png")  # without a warning of glyphs that the font lacks
    odds = ["t-shirt 0.50", "dress 0.30", "sneaker 0.20", "answer bag"]
    names = ["$x$ □.png", f"{'a' * 14}…{'a' * 15}"]
    assert [text.get_text() for text in drawing.axes[0].texts] == [names[0], *odds, names[1], *odds]
    assert caplog.messages[0] == "$x$ 中.png: t-shirt 0.50, dress 0.30, sneaker 0.20; answer bag"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_drawing_clips_no_text(count):
    names = [f"{k} {'a long name ' * 30}" for k in range(count)]
    drawing = chart(
        rows_of(*names, answer="trouser press"), torch.rand(count, 3, 112, 224), CLASSES
    )
    drawing.draw_without_rendering()
    texts = [drawing.axes[0].title, *drawing.axes[0].texts]
    assert len(texts) == 1 + count * 5
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
        assert drawing.bbox.x0 <= box.x0 < box.x1 <= drawing.bbox.x1
        assert drawing.bbox.y0 <= box.y0 < box.y1 <= drawing.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
