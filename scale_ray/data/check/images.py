"""Every image is read once: whether it is whole, what is odd about it, and what it looks like in few bytes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scale_ray.data.cache import in_threads
from scale_ray.data.check.findings import Finding, by_reason
from scale_ray.data.check.traits import DEEP, traits
from scale_ray.data.image_folder import Listing, image_names
from scale_ray.data.pixels import DARK, MissingReader, UnreadableImage, decode_image, is_dark, open_image
from scale_ray.errors import shown

# Side of the grey image that stands for an image where images are compared. JPEGs decode several times as fast to it
# as to the size of a training, and a file that is not whole is seen either way.
SIDE = 24

# An image whose shorter side has fewer pixels shows nothing.
_FEWEST = 8

_TINY = f"its shorter side has fewer than {_FEWEST} pixels: remove, unless that is the whole image"


@dataclass(frozen=True, slots=True)
class Look:
    """One image.

    Attributes:
        error: why it cannot be read; empty where it can.
        traits: what is odd about it.
        tiny: whether it has next to no pixels.
        dark: whether it is nearly black.
        digest: sha256 of the file.
        thumb: (SIDE * SIDE,) uint8, grey.
    """

    error: str = ""
    traits: tuple[str, ...] = ()
    tiny: bool = False
    dark: bool = False
    digest: bytes = b""
    thumb: np.ndarray | None = None


@dataclass(frozen=True)
class Images:
    """The images of all domains that can be read, one after the other.

    Attributes:
        domains: their names.
        names: `class/file` of each image.
        domain_of: (N,) index of each image's domain.
        digests: sha256 of each image's file.
        thumbs: (N, SIDE * SIDE) uint8, grey.
    """

    domains: tuple[str, ...]
    names: list[str]
    domain_of: np.ndarray
    digests: list[bytes]
    thumbs: np.ndarray

    def label(self, index: int) -> str:
        """The class of an image."""
        return self.names[index].partition("/")[0]

    def path(self, index: int) -> str:
        """`domain/class/file` of an image."""
        return f"{self.domains[self.domain_of[index]]}/{self.names[index]}"


def read_images(folders: Mapping[str, Path], listings: Mapping[str, Listing]) -> tuple[Images, list[Finding]]:
    """Read every image of every domain, in threads.

    Returns:
        What is needed to compare them, in some hundred bytes an image, and what was found about each for itself.
    """
    findings: list[Finding] = []
    names: list[str] = []
    domain_of: list[int] = []
    digests: list[bytes] = []
    thumbs = np.empty((sum(len(image_names(listing)) for listing in listings.values()), SIDE * SIDE), np.uint8)
    for number, (domain, folder) in enumerate(folders.items()):
        listed = image_names(listings[domain])
        looks = in_threads(partial(_look, folder), listed, f"checking {shown(domain)}")
        odd: list[tuple[str, str, str]] = []
        for name, look in zip(listed, looks, strict=True):
            odd += [(kind, name, reason) for kind, reason in _remarks(look)]
            if look.thumb is None:
                continue
            thumbs[len(names)] = look.thumb
            names.append(name)
            domain_of.append(number)
            digests.append(look.digest)
        for kind in ("unreadable", "tiny", "dark", "read"):
            findings += by_reason(kind, folder, ((name, reason) for of, name, reason in odd if of == kind))
    images = Images(
        tuple(folder.name for folder in folders.values()),
        names,
        np.array(domain_of, np.int64),
        digests,
        thumbs[: len(names)],
    )
    return images, findings


def _look(folder: Path, name: str) -> Look:
    try:
        data = (folder / name).read_bytes()
        with open_image(data) as image:
            odd, tiny = traits(name, data, image), min(image.size) < _FEWEST
        pixels = decode_image(data, SIDE)
    except OSError as error:
        return Look(f"cannot be read ({error.strerror}): check the file and its permissions")
    except (UnreadableImage, MissingReader) as error:
        return Look(str(error))
    return Look("", odd, tiny, is_dark(data), hashlib.sha256(data).digest(), _grey(pixels))


def _grey(pixels: np.ndarray) -> np.ndarray:
    """(SIDE * SIDE,) uint8 of (3, SIDE, SIDE), by the weights of ITU-R 601."""
    red, green, blue = pixels.astype(np.uint16)
    return ((77 * red + 150 * green + 29 * blue) >> 8).astype(np.uint8).ravel()


def _remarks(look: Look) -> list[tuple[str, str]]:
    """Kind of finding and reason, for one image."""
    if look.error:
        return [("unreadable", look.error)]
    remarks = [("read", trait) for trait in look.traits if not (look.dark and trait == DEEP)]
    remarks += [("tiny", _TINY)] if look.tiny else []
    return remarks + ([("dark", f"nearly black: {DARK}")] if look.dark else [])
