"""How an image's file becomes pixels."""

import hashlib
import struct
import sys
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scale_ray.data.pixels import DECODER_VERSION, MissingReader, UnreadableImage, decode_image, is_dark


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    content = BytesIO()
    image.save(content, format=form, **options)
    return content.getvalue()


def decoded(image: Image.Image, size: int = 4, form: str = "PNG", **options: object) -> np.ndarray:
    return decode_image(encoded(image, form, **options), size)


def test_every_mode_becomes_rgb_on_white() -> None:
    assert (decoded(Image.new("L", (5, 5), 90)) == 90).all()
    assert (decoded(Image.new("RGBA", (5, 5), (0, 0, 0, 0))) == 255).all()
    assert (decoded(Image.new("RGBA", (5, 5), (0, 0, 0, 128))) == 127).all()
    assert (decoded(Image.new("LA", (5, 5), (200, 255))) == 200).all()
    assert (decoded(Image.new("1", (5, 5), 1)) == 255).all()
    palette = Image.new("P", (5, 5), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert (decoded(palette) == np.array([10, 20, 30])[:, None, None]).all()
    assert (decoded(palette, transparency=1) == 255).all()
    deep = Image.fromarray(np.full((5, 5), 40_000, np.uint16))
    assert (decoded(deep) == 40_000 >> 8).all()
    assert decoded(Image.new("CMYK", (5, 5), (0, 0, 0, 0)), form="JPEG").min() > 250


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, "ab cd"),
        (2, "ba dc"),  # mirrored
        (3, "dc ba"),  # turned by 180 degrees
        (4, "cd ab"),
        (5, "ac bd"),
        (6, "ca db"),  # turned by 90 degrees clockwise
        (7, "db ca"),
        (8, "bd ac"),
    ],
)
def test_all_eight_exif_orientations(form: str, orientation: int, seen: str) -> None:
    grey = {"a": 20, "b": 90, "c": 160, "d": 230}
    stored = np.array([[grey["a"], grey["b"]], [grey["c"], grey["d"]]], np.uint8).repeat(32, 0).repeat(32, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    found = decoded(Image.fromarray(stored).convert("RGB"), 4, form, exif=exif, **options)[:, ::3, ::3]  # corners
    wanted = np.array([[grey[letter] for letter in row] for row in seen.split()])
    assert np.abs(found.astype(int) - wanted).max() < 3


def test_what_trns_makes_transparent_is_white() -> None:
    pixels = np.array([[[10, 20, 30], [40, 50, 60]]] * 2, np.uint8)
    found = decoded(Image.fromarray(pixels), 2, transparency=(10, 20, 30))
    assert found[:, 0, 0].tolist() == [255, 255, 255]
    assert found[:, 0, 1].tolist() == [40, 50, 60]
    grey = decoded(Image.fromarray(np.array([[7, 200]] * 2, np.uint8)), 2, transparency=7)
    assert grey[0].tolist() == [[255, 200]] * 2


def test_inks_become_colours() -> None:
    red = decoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), form="JPEG", quality=100)
    assert np.abs(red.astype(int).mean(axis=(1, 2)) - [255, 0, 0]).max() < 6
    grey = decoded(Image.new("CMYK", (8, 8), (0, 0, 0, 128)), form="JPEG", quality=100)
    assert np.abs(grey.astype(int) - 127).max() < 6


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken(form: str) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 200))
    options = {"lossless": True} if form == "WEBP" else {}
    animation = encoded(first, form, save_all=True, append_images=[second], duration=100, **options)
    assert np.abs(decode_image(animation, 8)[:, 4, 4].astype(int) - [200, 0, 0]).max() <= (2 if form == "AVIF" else 0)


def test_values_of_12_bits_in_16_are_seen_and_left_as_they_are() -> None:
    def grey(value: int) -> bytes:
        return encoded(Image.fromarray(np.array([[0, value]] * 2, np.uint16)))

    assert is_dark(grey(4095))
    assert not is_dark(grey(4096))
    assert not is_dark(grey(65535))
    assert decode_image(grey(4095), 2)[0].tolist() == [[0, 15]] * 2
    assert not is_dark(encoded(Image.new("L", (2, 2), 3))), "dark and of 8 bits"
    assert not is_dark(encoded(Image.new("L", (2, 2), 3), "JPEG"))
    assert is_dark(encoded(Image.fromarray(np.full((2, 2), 4095, np.uint16)), "TIFF"))
    assert not is_dark(encoded(Image.fromarray(np.full((2, 2), 4096, np.uint16)), "TIFF"))
    assert not is_dark(encoded(Image.new("L", (2, 2), 3), "TIFF"))
    assert is_dark(png_of_16_bits(4095, 0, 7))
    assert not is_dark(png_of_16_bits(0, 0, 4096))


def png_of_16_bits(*colour: int) -> bytes:
    """One pixel; Pillow cannot write RGB of 16 bits a value."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHH", *colour))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


BITS, PHOTOMETRIC = 258, 262  # tags of a TIFF
WHITE_IS_ZERO = 0


def test_a_tiff_of_16_bits_is_read_as_a_png_of_16_bits_is() -> None:
    values = np.array([[0, 256], [40_000, 65_535]], np.uint16)
    wanted = [[0, 1], [40_000 >> 8, 255]]
    for form in ("PNG", "TIFF"):
        assert decode_image(encoded(Image.fromarray(values), form), 2)[0].tolist() == wanted
    big_endian = Image.fromarray(values.astype(">u2"))
    assert big_endian.mode == "I;16B"
    assert decode_image(encoded(big_endian, "TIFF"), 2)[0].tolist() == wanted
    negative = encoded(Image.fromarray(values), "TIFF", tiffinfo={PHOTOMETRIC: WHITE_IS_ZERO})
    assert decode_image(negative, 2)[0].tolist() == [[255, 254], [255 - (40_000 >> 8), 0]]


def tiff_of_12_bits() -> bytes:
    """Two values of 12 bits in three bytes; Pillow cannot write them."""
    pixels = bytes([0xFF, 0xF8, 0x00, 0x00, 0x0F, 0xFF])  # 4095, 2048; 0, 4095
    tags = [(256, 2), (257, 2), (BITS, 12), (259, 1), (PHOTOMETRIC, 1), (273, 8), (277, 1), (278, 2), (279, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 14) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_a_tiff_of_12_bits_is_not_dark() -> None:
    content = tiff_of_12_bits()
    assert decode_image(content, 2)[0].tolist() == [[255, 128], [0, 255]]
    assert not is_dark(content)


@pytest.mark.parametrize(("kind", "what"), [(np.float32, "floating-point"), (np.int32, "integers of 32 bits")])
def test_values_without_a_white_are_refused(kind: type, what: str) -> None:
    content = encoded(Image.fromarray(np.arange(64, dtype=kind).reshape(8, 8)), "TIFF")
    with pytest.raises(UnreadableImage, match=rf"{what}.*store 8 or 16 bits"):
        decode_image(content, 8)


def test_heic_is_read_with_the_extra_and_named_without(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = (200, 100, 50)
    content = encoded(Image.fromarray(halves), "HEIF", quality=95)
    found = decode_image(content, 8).astype(int)
    assert np.abs(found[:, :, 0]).max() < 8
    assert np.abs(found[:, :, -1] - np.array([[200], [100], [50]])).max() < 8
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingReader, match=r"a HEIC image, which the extra heic of scale-ray reads"):
        decode_image(content, 8)
    assert decode_image(encoded(Image.fromarray(halves), "AVIF"), 8).shape == (3, 8, 8), "in the same container"


# Made once with Pillow 13, of lossless files: where one changes, DECODER_VERSION must rise, here too. Of version 1 were
# all but those with a comment, which it decoded to other pixels.
GOLDEN_VERSION = 2
GOLDEN = {
    "RGB": "de0682b6c35682ca",
    "L": "35915376e81ad3a6",
    "RGBA": "5a55575f4dbefec4",
    "LA": "430cf91e274dc4dd",
    "P": "dfa40936a7010b4b",
    "transparent P": "709864fcf0246f04",
    "I;16": "06f940630aabb0cc",
    "1": "431cfe2dd88a3c88",
    "turned": "8aaf6cde42916060",
    "WEBP": "709864fcf0246f04",
    "crop": "b8290cb9565a05b0",
    "zero is white": "7fe9a9845b3af79a",  # version 1: black was white
    "12 bits": "176c9f771997df53",  # version 1: nearly black
}


def golden_image(name: str) -> tuple[bytes, Literal["squeeze", "crop"]]:
    ramp = np.arange(37 * 53 * 4, dtype=np.uint32) * 2_654_435_761 >> 16
    values = ramp.astype(np.uint8).reshape(37, 53, 4)
    rgb = Image.fromarray(values[..., :3])
    if name in ("RGB", "RGBA", "L", "LA", "1"):
        return encoded(Image.fromarray(values).convert(name)), "squeeze"
    if name.endswith("P"):
        palette = Image.fromarray(values[..., 0] % 16, mode="L")
        palette.putpalette([value * 7 % 256 for value in range(48)])
        return encoded(palette, **({"transparency": 3} if name != "P" else {})), "squeeze"
    if name == "12 bits":
        return tiff_of_12_bits(), "squeeze"
    deep = Image.fromarray(ramp[: 37 * 53].astype(np.uint16).reshape(37, 53))
    if name == "zero is white":
        return encoded(deep, "TIFF", tiffinfo={PHOTOMETRIC: WHITE_IS_ZERO}), "squeeze"
    if name == "I;16":
        return encoded(deep), "squeeze"
    exif = Image.Exif()
    exif[0x0112] = 5
    form = {"WEBP": {"form": "WEBP", "lossless": True}, "turned": {"exif": exif}}.get(name, {})
    return encoded(rgb, **form), "crop" if name == "crop" else "squeeze"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_decoded_stays_bit_for_bit(name: str) -> None:
    content, fit = golden_image(name)
    assert DECODER_VERSION == GOLDEN_VERSION
    assert hashlib.sha256(decode_image(content, 16, fit).tobytes()).hexdigest()[:16] == GOLDEN[name]


def test_resizing_has_antialiasing_and_squeezes() -> None:
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    small = decoded(Image.fromarray(stripes), size=8)
    assert small.shape == (3, 8, 8)
    assert np.abs(small.astype(int) - 127).max() < 8


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_crop_keeps_the_middle_square_at_its_proportions(form: str) -> None:
    """Red, green, blue from left to right, each a square: of 3 x 1 squares the green one is the middle."""
    wide = np.zeros((64, 192, 3), np.uint8)
    for part in range(3):
        wide[:, 64 * part : 64 * (part + 1), part] = 255
    for image in (Image.fromarray(wide), Image.fromarray(wide.transpose(1, 0, 2).copy())):
        small = decode_image(encoded(image, form), 16, "crop")
        assert small.shape == (3, 16, 16)
        inner = small[:, 2:-2, 2:-2].astype(int)  # interpolation reaches over the edge of the square
        assert np.abs(inner - np.array([0, 255, 0])[:, None, None]).max() < 8
        assert not np.array_equal(small, decode_image(encoded(image, form), 16))


def test_a_square_is_whole_either_way() -> None:
    grey = Image.fromarray(np.full((48, 48, 3), 77, np.uint8))
    assert np.array_equal(decode_image(encoded(grey), 12, "crop"), decode_image(encoded(grey), 12))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no image", "not an image of any known format"),
        (b"GIF89a", "it begins as an image, and is truncated or damaged"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "a Git LFS pointer and not the image: run `git lfs pull`",
        ),
        (b"/annex/objects/SHA256E-s9--4d7a.png\n", "a git-annex pointer and not the image: run `git annex get`"),
    ],
)
def test_what_is_no_image(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        decode_image(content, 8)


LOSSY_AND_NOT = {
    "JPEG": {},
    "progressive": {"form": "JPEG", "progressive": True},
    "PNG": {},
    "WEBP": {},
    "GIF": {},
    "BMP": {},
    "AVIF": {},
    "TIFF": {},
    "LZW": {"form": "TIFF", "compression": "tiff_lzw"},
}


@pytest.mark.filterwarnings("ignore:(Corrupt EXIF|Truncated File)")  # Pillow's, of a TIFF
@pytest.mark.parametrize("form", LOSSY_AND_NOT)
def test_a_truncated_image_is_never_half_an_image(form: str) -> None:
    """At the size of a training and at the small one of a check, which decodes a JPEG at a part of its size."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    content = encoded(Image.fromarray(noise), **{"form": form, **LOSSY_AND_NOT[form]})  # type: ignore[arg-type]
    for share in (0.002, 0.02, 0.3, 0.6, 0.9, 0.99):
        for size in (24, 224):
            with pytest.raises(UnreadableImage, match=r"truncated|damaged|not an image"):
                decode_image(content[: int(share * len(content))], size)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_bytes_are_an_image_or_a_users_error(form: str, changes: list[tuple[int, int]]) -> None:
    content = bytearray(encoded(Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)), form))
    for place, value in changes:
        content[place % len(content)] = value
    with suppress(UnreadableImage, MissingReader):
        assert decode_image(bytes(content), 8).shape == (3, 8, 8)
        is_dark(bytes(content))
