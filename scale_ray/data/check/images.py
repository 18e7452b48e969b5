"""Every image is read once: whether it is whole, what is odd about it, and what it looks like in few bytes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from scale_ray.data.benchmarks import DataError
from scale_ray.data.check.findings import Finding, by_reason
from scale_ray.data.check.traits import DEEP, traits
from scale_ray.data.domain_files import DomainFiles, image_path
from scale_ray.data.pixels import DARK, MissingReader, UnreadableImage, decode_image, is_dark, open_image
from scale_ray.data.work import in_threads
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
        folders: of the domains; a message about an image joins the folder and the name.
        names: of each image, as its domain has them: `class/file` where images lie in class folders.
        labels: the class of each image; empty without labels.
        domain_of: (N,) index of each image's domain.
        digests: sha256 of each image's file.
        thumbs: (N, SIDE * SIDE) uint8, grey.
    """

    domains: tuple[str, ...]
    folders: tuple[str, ...]
    names: list[str]
    labels: list[str]
    domain_of: np.ndarray
    digests: list[bytes]
    thumbs: np.ndarray

    def path(self, index: int) -> str:
        return image_path(self.folders[self.domain_of[index]], self.names[index])


def read_images(domains: Mapping[str, DomainFiles]) -> tuple[Images, list[Finding]]:
    """Read every image of every domain, in threads.

    Returns:
        What is needed to compare them, in some hundred bytes an image, and what was found about each for itself.
    """
    findings: list[Finding] = []
    names: list[str] = []
    labels: list[str] = []
    domain_of: list[int] = []
    digests: list[bytes] = []
    thumbs = np.empty((sum(len(files.names) for files in domains.values()), SIDE * SIDE), np.uint8)
    for number, (domain, files) in enumerate(domains.items()):
        looks = in_threads(partial(_look, files), files.names, f"checking {shown(domain)}")
        odd: list[tuple[str, str, str]] = []
        for place, (name, look) in enumerate(zip(files.names, looks, strict=True)):
            odd += [(kind, name, reason) for kind, reason in _remarks(look)]
            if look.thumb is None:
                continue
            thumbs[len(names)] = look.thumb
            names.append(name)
            labels.append("" if files.labels is None else files.classes[files.labels[place]])
            domain_of.append(number)
            digests.append(look.digest)
        for kind in ("unreadable", "tiny", "dark", "read"):
            findings += by_reason(kind, files.where, ((name, reason) for of, name, reason in odd if of == kind))
    images = Images(
        tuple(domains),
        tuple(files.where for files in domains.values()),
        names,
        labels,
        np.array(domain_of, np.int64),
        digests,
        thumbs[: len(names)],
    )
    return images, findings


def _look(files: DomainFiles, name: str) -> Look:
    try:
        data = files.read(name)
        with open_image(data) as image:
            odd, tiny = traits(name, data, image), min(image.size) < _FEWEST
        pixels = decode_image(data, SIDE)
    except DataError as error:  # which names the image, as the finding does
        return Look(str(error).removeprefix(f"{files.shown(name)}: "))
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
