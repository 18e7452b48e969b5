"""How image files become one array of pixels, and how a folder of the cache holds a decoded domain."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from scale_ray.data.benchmarks import DataError
from scale_ray.data.domain_files import DomainFiles
from scale_ray.data.pixels import (
    DECODER_VERSION,
    Fit,
    MissingReader,
    UnreadableImage,
    decode_image,
    is_dark,
)
from scale_ray.data.work import in_threads
from scale_ray.errors import shown


@dataclass(frozen=True)
class Decoding:
    """What is made of every image of a domain.

    Attributes:
        resize: side of the square in pixels.
        corrupt: `error` stops at an unreadable image, `skip` leaves it out.
        fit: how an image becomes a square, see `decode_image`.
    """

    resize: int
    corrupt: Literal["error", "skip"] = "error"
    fit: Fit = "squeeze"

    def key(self, digest: str) -> str:
        """Names the pixels of a domain by what determines them, its content's digest (hex) among it."""
        return f"{digest[:32]}-{self.resize}{'-crop' if self.fit == 'crop' else ''}-v{DECODER_VERSION}"

    def about(self, benchmark: str, domain: str) -> str:
        """The pixels of a domain as `scale-ray data cache` describes them."""
        return f"{benchmark} {domain}, {self.resize} px{', cropped' if self.fit == 'crop' else ''}"

    @property
    def image_bytes(self) -> int:
        """Bytes of the pixels of one image."""
        return 3 * self.resize**2


class Decoded(NamedTuple):
    """A decoded domain.

    Attributes:
        images: (N, 3, S, S) uint8 RGB, memory-mapped and read-only.
        labels: (N,) int64; None where the images have none.
        names: of all images that were to be decoded, in order.
        classes: names of the classes; empty without labels.
        skipped: name -> reason of the images that are unreadable and left out.
        dark: names of the images that are nearly black.
    """

    images: np.ndarray
    labels: np.ndarray | None
    names: tuple[str, ...]
    classes: tuple[str, ...]
    skipped: dict[str, str]
    dark: list[str]


class Pixels(NamedTuple):
    """One decoded image: (3, S, S) uint8, and whether it is nearly black."""

    array: np.ndarray
    dark: bool


def decode(files: DomainFiles, name: str, data: bytes, digest: str, decoding: Decoding) -> Pixels | UnreadableImage:
    """The pixels of one image of a domain; what is wrong with it where unreadable images are left out.

    Raises:
        DataError: the bytes are not those of the digest, a package that reads them is missing, or the image is
            unreadable and `decoding.corrupt` is `error`.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        files.forget()
        raise DataError(
            f"{files.shown(name)}: changed while the images were read: wait until nothing is written there any "
            "more, then run again"
        )
    try:
        return Pixels(decode_image(data, decoding.resize, decoding.fit), is_dark(data))
    except MissingReader as error:  # never skipped: the same files would be other data once it is installed
        raise DataError(f"{files.shown(name)}: {error}") from error
    except UnreadableImage as error:
        if decoding.corrupt == "skip":
            return error
        raise unreadable(files.shown(name), str(error)) from error


def unreadable(image: str, reason: str) -> DataError:
    return DataError(
        f"{image}: unreadable image ({reason}): replace it, or leave such images out: --set data.corrupt=skip; "
        "`scale-ray data check BENCHMARK --root IMAGES --all` names them all"
    )


def decode_all(files: DomainFiles, digests: Sequence[str], decoding: Decoding, unfinished: Path) -> None:
    """Decode a domain into an empty folder of the cache.

    Args:
        files: the domain.
        digests: sha256 (hex) of its images, in order.
        decoding: how.
        unfinished: the folder.

    Raises:
        DataError: as `decode`.
    """
    digest_of = dict(zip(files.names, digests, strict=True))
    images = in_threads(
        lambda name: decode(files, name, files.read(name), digest_of[name], decoding),
        files.names,
        f"decoding {shown(files.name)} to {decoding.resize} px",
    )
    with DecodedFolder(unfinished, decoding.resize) as folder:
        for name, image in zip(files.names, images, strict=True):
            if isinstance(image, UnreadableImage):
                folder.skip(name, str(image))
            else:
                folder.add(image.array.tobytes(), [name] if image.dark else [])
        folder.finish(files.names, files.labels, files.classes)


class DecodedFolder:
    """Writes a decoded domain into a folder of the cache, image after image.

    It is written as a stream, because a full disk kills a process that writes through a memory map.
    """

    def __init__(self, folder: Path, size: int):
        self._folder, self._size = folder, size
        self._count = 0
        self._skipped: dict[str, str] = {}
        self._dark: list[str] = []

    def __enter__(self) -> "DecodedFolder":
        self._file = (self._folder / "images.npy").open("wb")
        _write_header(self._file, 0, self._size)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, pixels: bytes, dark: Iterable[str]) -> None:
        """Add the pixels of one image or of several, and the names of the nearly black ones among them."""
        self._file.write(pixels)
        self._count += len(pixels) // (3 * self._size**2)
        self._dark += dark

    def skip(self, name: str, reason: str) -> None:
        self._skipped[name] = reason

    def finish(self, names: Sequence[str], labels: Sequence[int] | None, classes: Sequence[str]) -> None:
        """Write what there is beside the pixels: of all images, the left-out ones among them, in order.

        Raises:
            ValueError: they are not as many as the pixels and the left-out ones together.
        """
        self._file.seek(0)
        _write_header(self._file, self._count, self._size)
        known = [-1] * len(names) if labels is None else labels
        kept = [label for name, label in zip(names, known, strict=True) if name not in self._skipped]
        if len(kept) != self._count:
            raise ValueError(f"{self._count:,} images are there, and labels of {len(kept):,}")
        np.save(self._folder / "labels.npy", np.array(kept, np.int64))
        for name, content in {
            "skipped": self._skipped,
            "dark": self._dark,
            "names": {"names": list(names), "classes": list(classes), "labelled": labels is not None},
        }.items():
            (self._folder / f"{name}.json").write_text(json.dumps(content))


def load(folder: Path) -> Decoded:
    """The decoded domain in a folder of the cache, whose manifest has been checked.

    Raises:
        OSError, ValueError, KeyError: it is damaged, or an older version has written it.
    """
    images = np.asarray(np.load(folder / "images.npy", mmap_mode="r"))
    labels = np.load(folder / "labels.npy")
    if not (folder / "names.json").exists():
        raise ValueError("an older version has written it")
    if len(labels) != len(images):
        raise ValueError(f"{len(images):,} images are there, and labels of {len(labels):,}")
    skipped, dark, names = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("skipped", "dark", "names"))
    return Decoded(
        images,
        labels if names["labelled"] else None,
        tuple(names["names"]),
        tuple(names["classes"]),
        skipped,
        dark,
    )


def _write_header(file: BinaryIO, count: int, size: int) -> None:
    """Write the .npy header. NumPy pads it so that its length does not depend on `count` (GROWTH_AXIS_MAX_DIGITS)."""
    shape = (count, 3, size, size)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
