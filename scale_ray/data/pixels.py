"""From the bytes of an image file to RGB pixels. What is decoded may change only with DECODER_VERSION."""

import io
import struct
import zlib
from typing import Literal

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from scale_ray.errors import UserError

# Raise it, and RECIPE_VERSION with it, whenever the same file would be decoded to different pixels.
DECODER_VERSION = 1

# Some libraries switch this on for the whole process; truncated images then get grey pixels instead of an error.
ImageFile.LOAD_TRUNCATED_IMAGES = False

Fit = Literal["squeeze", "crop"]

DARK = (
    "of 16 bits a value only the lower 12 are used, and the upper 8 are read: multiply the values by 16 if the images "
    "are to be bright"
)

# First bytes of files that stand for an image -> what they are and the remedy.
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer and not the image: run `git lfs pull`",
    b"/annex/objects/": "a git-annex pointer and not the image: run `git annex get`",
}


class UnreadableImage(UserError):
    """Bytes that are not a complete image; the message gives the reason."""


def decode_image(data: bytes, size: int, fit: Fit = "squeeze") -> np.ndarray:
    """Decode an image file to (3, size, size) uint8 RGB.

    The EXIF orientation is applied and transparent images are put on white; of an animation, the first frame is taken.

    Args:
        data: the bytes.
        size: side of the result in pixels.
        fit: `squeeze` resizes both sides, bilinear with antialiasing, and does not keep the aspect ratio, like
            ResizeImage of Transfer-Learning-Library (https://github.com/thuml/Transfer-Learning-Library,
            tllib/vision/transforms). `crop` keeps the middle square and resizes it, bicubic with antialiasing, as CLIP
            does (https://github.com/openai/CLIP, clip/clip.py).

    Raises:
        UnreadableImage: the bytes are not a complete image.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            # JPEG only: the decoder may scale by 1/2, 1/4 or 1/8 while both sides are at least twice the final size.
            image.draft(None, (2 * size, 2 * size))
            upright = _to_rgb(ImageOps.exif_transpose(image))
            if fit == "crop":
                resized = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
            else:
                resized = upright.resize((size, size), Image.Resampling.BILINEAR)
    except UnidentifiedImageError:
        reasons = (reason for start, reason in _POINTERS.items() if data.startswith(start))
        raise UnreadableImage(next(reasons, "not an image of any known format")) from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise UnreadableImage(str(error) or type(error).__name__) from error
    return np.asarray(resized).transpose(2, 0, 1)


def is_dark(data: bytes) -> bool:
    """Whether the bytes, of an image that can be decoded, are a PNG with 16 bits a value that uses 12 of them."""
    # Byte 24 is the number of bits: https://www.w3.org/TR/png-3/#11IHDR
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[24] != 16:
        return False
    with Image.open(io.BytesIO(data)) as image:
        # Of 16 bits a value, 8 are read: 4096 becomes 16.
        return bool(0 < np.asarray(_to_rgb(image)).max() < 16)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")  # convert() alone clips
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image.convert("RGB")
