"""From the bytes of an image file to RGB pixels. What is decoded may change only with DECODER_VERSION."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError, features

from scale_ray.errors import UserError

# Raise it, and RECIPE_VERSION with it, whenever the same file would be decoded to different pixels, or refused.
# 2, with recipe 2: TIFFs of 16 bits whose zero is white, and of 12 bits; values without a white are refused.
DECODER_VERSION = 2

# Some libraries switch this on for the whole process; truncated images then get grey pixels instead of an error.
ImageFile.LOAD_TRUNCATED_IMAGES = False

# Pillow warns of what has half the pixels that it refuses: scans and panoramas.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Fit = Literal["squeeze", "crop"]

# Suffixes of the formats that are read. What a file is, its bytes say and not its name.
HEIF_SUFFIXES = (".heic", ".heif")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *HEIF_SUFFIXES,
)

DARK = (
    "of 16 bits a value only the lower 12 are used, and the upper 8 are read: multiply the values by 16 if the images "
    "are to be bright"
)

_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*")

# First bytes of files that are not an image, or no longer one -> what they are and the remedy.
_STARTS = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer and not the image: run `git lfs pull`",
    b"/annex/objects/": "a git-annex pointer and not the image: run `git annex get`",
    **dict.fromkeys(
        (b"\xff\xd8\xff", _PNG, b"GIF8", b"RIFF", *_TIFF), "it begins as an image, and is truncated or damaged"
    ),
}

# Brands in the first box of a file, by what reads it. Some files of either kind have `mif1` as their first brand.
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

NO_HEIF = "a HEIC image, which the extra heic of scale-ray reads"

_NO_WHITE = {
    "I": "its values are integers of 32 bits or with a sign, of which none is agreed to be white: store 8 or 16 bits",
    "F": "its values are floating-point numbers, of which none is agreed to be white: store 8 or 16 bits",
}


class UnreadableImage(UserError):
    """Bytes that are not a complete image; the message gives the reason."""


class MissingReader(UserError):
    """An image that a package reads which is not installed; the message names the remedy."""


def decode_image(data: bytes, size: int, fit: Fit = "squeeze") -> np.ndarray:
    """Decode an image file to (3, size, size) uint8 RGB.

    The EXIF orientation is applied and transparent images are put on white. Of 16 bits a value the upper 8 are taken,
    of an animation the first frame, and of several pages the first.

    Args:
        data: the bytes.
        size: side of the result in pixels.
        fit: `squeeze` resizes both sides, bilinear with antialiasing, and does not keep the aspect ratio, like
            ResizeImage of Transfer-Learning-Library (https://github.com/thuml/Transfer-Learning-Library,
            tllib/vision/transforms). `crop` keeps the middle square and resizes it, bicubic with antialiasing, as CLIP
            does (https://github.com/openai/CLIP, clip/clip.py).

    Raises:
        UnreadableImage: the bytes are not a complete image.
        MissingReader: a package must be installed first.
    """
    with open_image(data) as image:
        # JPEG only: the decoder may scale by 1/2, 1/4 or 1/8 while both sides are at least twice the final size.
        image.draft(None, (2 * size, 2 * size))
        upright = _upright(image)
        if fit == "crop":
            resized = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
        else:
            resized = upright.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def upright_rgb(data: bytes, size: int) -> Image.Image:
    """An image in RGB as `decode_image` sees it before it is resized; of a JPEG, a reduction to 2 `size` or more.

    Raises:
        UnreadableImage, MissingReader: as `decode_image`.
    """
    with open_image(data) as image:
        image.draft(None, (2 * size, 2 * size))
        return _upright(image)


@contextmanager
def open_image(data: bytes) -> Iterator[Image.Image]:
    """The image in a file's bytes, of which only the header has been read.

    Raises:
        UnreadableImage: it is none, or what the block reads of it is not complete.
        MissingReader: a package must be installed first.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    _find_reader(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except UserError:
        raise
    except UnidentifiedImageError:
        reasons = (reason for start, reason in _STARTS.items() if data.startswith(start))
        raise UnreadableImage(next(reasons, "not an image of any known format")) from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UnreadableImage(
            f"it has more than {most:,} pixels, which could fill the memory: make it smaller"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error) as error:
        raise UnreadableImage(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What is wrong, in words that are the same for every image of which it is."""
    said = " ".join(str(error).split()) or type(error).__name__
    if any(words in said.lower() for words in ("truncated", "end of file")):
        return "truncated: the file ends before the image does"
    return f"damaged ({said})"


def is_dark(data: bytes) -> bool:
    """Whether the bytes, of an image that can be decoded, have 16 bits a value and use 12 of them."""
    if not data.startswith((_PNG, *_TIFF)):
        return False
    with open_image(data) as image:
        # Of 16 bits a value, 8 are read: 4096 becomes 16.
        return has_16_bits(data, image) and bool(0 < np.asarray(_upright(image)).max() < 16)


def has_16_bits(data: bytes, image: Image.Image) -> bool:
    """Whether an image that `open_image` yields has 16 bits a value. Pillow's modes tell that of grey images alone."""
    if data.startswith(_PNG):
        return data[24] == 16  # https://www.w3.org/TR/png-3/#11IHDR
    return max(_tags(image).get(ExifTags.Base.BitsPerSample, (8,))) == 16


def _upright(image: Image.Image) -> Image.Image:
    """The image in RGB, turned as its EXIF orientation says."""
    if image.mode in _NO_WHITE:
        raise UnreadableImage(_NO_WHITE[image.mode])
    tags = _tags(image)  # before it is turned, because a copy has none
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return Image.fromarray(_upper_bits(np.asarray(upright), tags)).convert("RGB")  # convert() alone clips
    if upright.has_transparency_data:
        canvas = Image.new("RGBA", upright.size, "white")
        canvas.alpha_composite(upright.convert("RGBA"))
        return canvas.convert("RGB")
    return upright.convert("RGB")


def _upper_bits(values: np.ndarray, tags: Mapping[int, Any]) -> np.ndarray:
    """The upper 8 of 16 bits; of 12, which a TIFF may have, too."""
    (bits,) = tags.get(ExifTags.Base.BitsPerSample, (16,))
    upper = (values >> (bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    return 255 - upper if white_is_zero else upper  # Pillow turns values of 8 bits alone


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """What a TIFF says about its values; empty for other formats."""
    return getattr(image, "tag_v2", {})


def _find_reader(data: bytes) -> None:
    """Let Pillow read HEIF, or say what is missing."""
    if data[4:8] != b"ftyp":
        return
    brands = {data[start : start + 4] for start in range(8, min(int.from_bytes(data[:4]), 64), 4)}
    if brands & _AVIF_BRANDS:
        if not features.check("avif"):
            raise MissingReader("an AVIF image, which this build of Pillow does not read: pip install -U pillow")
    elif brands & _HEIF_BRANDS:
        if not reads_heif():
            raise MissingReader(NO_HEIF)
        _register_heif()


def reads_heif() -> bool:
    """Whether the extra `heic` is installed."""
    return find_spec("pillow_heif") is not None


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
