"""Domains as arrays: each image is decoded and resized once; later runs map the result from the cache into memory."""

import io
import json
import logging
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from scale_ray.config import TrialConfig
from scale_ray.data.benchmarks import BENCHMARKS, DataError, canonical_domain, check_benchmark
from scale_ray.data.cache import cache_folder, in_threads, open_or_build, read_bytes
from scale_ray.data.digits import SIDE, open_digits
from scale_ray.data.image_folder import (
    Listing,
    checked_listings,
    differing_counts,
    domain_folder,
    domain_folders,
    image_names,
    list_images,
    listing_digest,
)
from scale_ray.data.manifest import check_manifest, write_manifest
from scale_ray.errors import UserError

logger = logging.getLogger(__name__)

# Raise it, and RECIPE_VERSION with it, whenever the same file would be decoded to different pixels.
DECODER_VERSION = 1

# Some libraries switch this on for the whole process; truncated images then get grey pixels instead of an error.
ImageFile.LOAD_TRUNCATED_IMAGES = False


class UnreadableImage(UserError):
    """Bytes that are not a complete image; the message gives the reason."""


@dataclass(frozen=True)
class Domain:
    """One domain's images and labels.

    Attributes:
        name: canonical name.
        images: (N, 3, S, S) uint8 RGB; memory-mapped and read-only, or in memory.
        labels: (N,) int64, indices into `classes`.
        classes: names in ASCII order.
        skipped: `class/file` of the images that were left out as unreadable.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    skipped: tuple[str, ...]


def open_domains(
    benchmark: str, domains: Sequence[str], *, root: Path | None, resize: int, corrupt: Literal["error", "skip"]
) -> list[Domain]:
    """Open domains that are used together, in the given order. Images that are not in the cache are decoded first.

    Args:
        benchmark: a name in BENCHMARKS.
        domains: names in any accepted spelling.
        root: the folder that contains the domains' folders; not used by `digits`.
        resize: side in pixels to which every image is resized; the aspect ratio is not kept.
        corrupt: `error` stops at an unreadable image, `skip` leaves it out and lists it in `Domain.skipped`.

    Raises:
        ConfigError: the benchmark or a domain is unknown, or the root or a folder is missing.
        DataError: the domains' classes differ, a class has no images, or an image is unreadable.
    """
    check_benchmark(benchmark)
    names = [canonical_domain(benchmark, domain) for domain in domains]
    if benchmark == "digits":
        return [_open_digits(name, resize) for name in names]
    folders = {name: domain_folder(benchmark, name, root) for name in names}
    listings = checked_listings(benchmark, folders)
    for name in folders:
        _warn_of_counts(benchmark, name, listings[name])
    return [_open_folder(benchmark, name, folders[name], listings[name], resize, corrupt) for name in names]


def domain_names(benchmark: str, *, root: Path | None) -> list[str]:
    """Names of the domains that can be opened: the embedded ones of `digits`, else those with a folder in `root`."""
    check_benchmark(benchmark)
    return list(BENCHMARKS["digits"].domains) if benchmark == "digits" else list(domain_folders(benchmark, root))


def prepare(
    benchmark: str, *, root: Path | None = None, resize: int | None = None, corrupt: Literal["error", "skip"] = "error"
) -> list[Domain]:
    """Decode all domains of a benchmark into the cache. With `resize=None` the size is the benchmark's default."""
    size = resize or TrialConfig().replace(check_benchmark(benchmark).defaults).data.resize
    return open_domains(benchmark, domain_names(benchmark, root=root), root=root, resize=size, corrupt=corrupt)


def domain_digest(benchmark: str, domain: str, *, root: Path | None) -> str:
    """sha256 (hex) of a domain's content and labels; it does not depend on host, folder or order of files.

    Raises:
        ConfigError: the benchmark or the domain is unknown, or the root or the folder is missing.
    """
    name = canonical_domain(benchmark, domain)
    if benchmark == "digits":
        return open_digits(name)[2]
    folder = domain_folder(benchmark, name, root)
    return listing_digest(folder, list_images(folder))


def decode_image(data: bytes, size: int) -> np.ndarray:
    """Decode an image file to (3, size, size) uint8 RGB.

    The EXIF orientation is applied and transparent images are put on white. Resizing is bilinear with antialiasing and
    does not keep the aspect ratio, like ResizeImage of Transfer-Learning-Library
    (https://github.com/thuml/Transfer-Learning-Library, tllib/vision/transforms).

    Raises:
        UnreadableImage: the bytes are not a complete image.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            # JPEG only: the decoder may scale by 1/2, 1/4 or 1/8 while both sides are at least twice the final size.
            image.draft(None, (2 * size, 2 * size))
            resized = _to_rgb(ImageOps.exif_transpose(image)).resize((size, size), Image.Resampling.BILINEAR)
    except UnidentifiedImageError:
        raise UnreadableImage("not an image of any known format") from None
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")  # convert() alone clips
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image.convert("RGB")


def _open_digits(name: str, resize: int) -> Domain:
    images, labels, _ = open_digits(name)
    if resize != SIDE:
        square, bilinear = (resize, resize), Image.Resampling.BILINEAR
        resized = [Image.fromarray(image.transpose(1, 2, 0)).resize(square, bilinear) for image in images]
        images = np.stack([np.asarray(image).transpose(2, 0, 1) for image in resized])
    classes = BENCHMARKS["digits"].classes
    assert classes is not None
    return Domain(name, images, labels, classes, ())


def _warn_of_counts(benchmark: str, domain: str, listing: Listing) -> None:
    if lines := differing_counts(benchmark, domain, listing):
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        logger.warning(
            "%s differs from what is published: %s%s: `scale-ray data check %s` lists all differences",
            benchmark,
            "; ".join(lines[:3]),
            more,
            benchmark,
        )


def _open_folder(
    benchmark: str, name: str, folder: Path, listing: Listing, resize: int, corrupt: Literal["error", "skip"]
) -> Domain:
    key = f"{listing_digest(folder, listing)[:32]}-{resize}-v{DECODER_VERSION}"

    def build(unfinished: Path) -> None:
        _decode_all(folder, listing, resize, corrupt, unfinished)
        write_manifest(unfinished, f"{benchmark} {name}, {resize} px")

    images, labels, skipped = open_or_build(cache_folder() / "decoded" / key, _load, build)
    if skipped and corrupt == "error":
        first, reason = next(iter(skipped.items()))
        raise _unreadable(folder / first, reason)
    for label, class_name in enumerate(listing):
        if label not in labels:
            raise DataError(f"{folder / class_name}: every image of class {class_name!r} is unreadable: replace them")
    return Domain(name, images, labels, tuple(listing), tuple(skipped))


def _load(stored: Path) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    check_manifest(stored)
    images = np.asarray(np.load(stored / "images.npy", mmap_mode="r"))
    labels = np.load(stored / "labels.npy")
    return images, labels, json.loads((stored / "skipped.json").read_bytes())


def _decode_all(folder: Path, listing: Listing, size: int, corrupt: Literal["error", "skip"], unfinished: Path) -> None:
    def decode(name: str) -> np.ndarray | UnreadableImage:
        try:
            return decode_image(read_bytes(folder / name), size)
        except UnreadableImage as error:
            if corrupt == "skip":
                return error
            raise _unreadable(folder / name, str(error)) from error

    labels: list[int] = []
    skipped: dict[str, str] = {}
    names = image_names(listing)
    classes = [label for label, images in enumerate(listing.values()) for _ in images]
    # Written as a stream, because a full disk kills a process that writes through a memory map.
    with (unfinished / "images.npy").open("wb") as file:
        _write_header(file, 0, size)
        results = in_threads(decode, names, f"decoding {folder.name} to {size} px")
        for name, label, result in zip(names, classes, results, strict=True):
            if isinstance(result, UnreadableImage):
                skipped[name] = str(result)
            else:
                file.write(result.tobytes())
                labels.append(label)
        file.seek(0)
        _write_header(file, len(labels), size)
    np.save(unfinished / "labels.npy", np.array(labels, np.int64))
    (unfinished / "skipped.json").write_text(json.dumps(skipped))


def _write_header(file: BinaryIO, count: int, size: int) -> None:
    """Write the .npy header. NumPy pads it so that its length does not depend on `count` (GROWTH_AXIS_MAX_DIGITS)."""
    shape = (count, 3, size, size)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: unreadable image ({reason}): replace it, or set data.corrupt to 'skip'; "
        "`scale-ray data check` lists all such images"
    )
