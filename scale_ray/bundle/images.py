"""Images that a person names: files, folders, patterns, URLs, or objects of Pillow, NumPy and torch."""

import glob
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from scale_ray.config import DataConfig
from scale_ray.data.benchmarks import DataError
from scale_ray.data.image_folder import entries_below, is_image
from scale_ray.data.locations import files_below, read_file, reason_of
from scale_ray.data.pixels import SUFFIXES, UnreadableImage, decode_image
from scale_ray.errors import shown
from scale_ray.urls import is_url, redacted

# A path or URL; a Pillow image; (H, W) or (H, W, channels) of NumPy; (3, H, W) of torch, uint8 or floats in [0, 1].
AnyImage = str | Path | Image.Image | np.ndarray | Tensor


class Listed(NamedTuple):
    """Images by path or URL, in order and each once, and how many other files the folders among them hold."""

    paths: list[str]
    others: int


def images_named(named: Iterable[str | Path]) -> Listed:
    """The images that these names stand for.

    Args:
        named: files, whatever their suffix; folders, of which the images at any depth are taken that a training would
            take; patterns as in `photos/**/*.jpg`; URLs of object stores (s3://…, gs://…), as files or as folders.

    Raises:
        DataError: a name stands for nothing, or a folder cannot be read.
    """
    paths: list[str] = []
    others = 0
    for name in map(str, named):
        found, left = _in_url(name) if is_url(name) else _in_files(name)
        if not found:
            what = "no image in it" if left or os.path.isdir(name) else "no such file or folder, and no file matches it"
            raise DataError(f"{shown(redacted(name))}: {what}: name images, folders of images, or a pattern in quotes")
        paths += found
        others += left
    return Listed(list(dict.fromkeys(paths)), others)


def _in_files(name: str) -> tuple[list[str], int]:
    matches = [name] if os.path.exists(name) else sorted(glob.glob(os.path.expanduser(name), recursive=True))
    images: list[str] = []
    others = 0
    for match in matches:
        if not os.path.isdir(match):
            images.append(match)
            continue
        entries = list(entries_below(Path(match)))
        found = sorted(entry.path for entry in entries if is_image(entry))
        images += found
        others += len(entries) - len(found)
    return images, others


def _in_url(url: str) -> tuple[list[str], int]:
    """As `_in_files`, on an object store; a pattern is not expanded there."""
    try:
        files = files_below(url)
    except OSError as error:
        raise DataError(
            f"{shown(redacted(url))}: cannot be listed ({reason_of(error)}): check the URL and your access"
        ) from error
    images = [file for file in files if file == url or file.lower().endswith(SUFFIXES)]
    return images, len(files) - len(images)


def read_pixels(image: AnyImage, data: DataConfig) -> np.ndarray:
    """(3, R, R) uint8 RGB, as the trial's images were decoded: R is `data.resize`.

    A file goes through the decoder of all images; what is decoded already is only resized by it.

    Raises:
        UnreadableImage: there are no pixels to be had; the message gives the reason.
        MissingReader: a package must be installed first.
    """
    return decode_image(_encoded(image), data.resize, data.fit)


def _encoded(image: AnyImage) -> bytes:
    if isinstance(image, str | Path):
        try:
            return read_file(str(image))
        except OSError as error:
            raise UnreadableImage(f"cannot be read ({reason_of(error)})") from error
    if isinstance(image, Tensor | np.ndarray) and 0 in image.shape:
        raise UnreadableImage(f"no pixels: its shape is {tuple(image.shape)}")
    if isinstance(image, Tensor):
        image = _of_tensor(image)
    if isinstance(image, np.ndarray):
        image = _of_array(image)
    if not isinstance(image, Image.Image):
        raise UnreadableImage(f"a {type(image).__name__}: give a path, or an image of Pillow, NumPy or torch")
    try:
        upright = ImageOps.exif_transpose(image)
        file = io.BytesIO()
        lossless = "PNG" if upright.mode in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA") else "TIFF"
        upright.save(file, lossless, **({"compress_level": 0} if lossless == "PNG" else {}))
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(str(error)) from error
    return file.getvalue()


def _of_array(image: np.ndarray) -> Image.Image:
    try:
        return Image.fromarray(image)
    except (TypeError, ValueError) as error:
        raise UnreadableImage(
            f"an array of {image.dtype} of the shape {image.shape}: give uint8, (height, width, 3)"
        ) from error


def _of_tensor(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of a tensor (3, H, W)."""
    if image.ndim != 3 or len(image) not in (1, 3) or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise UnreadableImage(
            f"a tensor of {image.dtype} of the shape {tuple(image.shape)}: give (3, height, width), uint8 or floats in "
            "[0, 1]"
        )
    image = image.detach().cpu()
    if image.is_floating_point():
        if not (image.min() >= 0 and image.max() <= 1):  # not a number is refused too
            raise UnreadableImage("a tensor with numbers outside [0, 1]: give the image before any normalisation")
        image = (image * 255).round().to(torch.uint8)
    return image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
