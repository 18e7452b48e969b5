"""Domains as arrays: each image is decoded and resized once; later runs map the result from the cache into memory."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from scale_ray.config import Catalogue, Root, TrialConfig
from scale_ray.data.benchmarks import BENCHMARKS, DataError, canonical_domain, check_benchmark
from scale_ray.data.cache import cache_folder, open_or_build
from scale_ray.data.digits import SIDE, open_digits
from scale_ray.data.domain_files import DomainFiles, checked_files
from scale_ray.data.image_folder import Listing, differing_counts, domain_folders, list_images
from scale_ray.data.manifest import check_manifest, write_manifest
from scale_ray.data.pixels import DARK, DECODER_VERSION, Fit, MissingReader, UnreadableImage, decode_image, is_dark
from scale_ray.data.unused import count_unused, stray_folders
from scale_ray.data.warn import warn_once
from scale_ray.data.work import in_threads
from scale_ray.errors import shown


@dataclass(frozen=True)
class Domain:
    """One domain's images and labels.

    Attributes:
        name: canonical name.
        images: (N, 3, S, S) uint8 RGB; memory-mapped and read-only, or in memory.
        labels: (N,) int64, indices into `classes`; None where the images have none.
        classes: names in ASCII order; empty without labels.
        skipped: names of the images that were left out as unreadable: `class/file`, or the path below the domain.
        digest: sha256 (hex) of the content that the images and labels were made from, as `domain_digest` gives it.
        files: names of the N images; empty for drawn digits.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    digest: str
    files: tuple[str, ...] = ()

    @property
    def known_labels(self) -> np.ndarray:
        """The labels of a domain that is known to have some, such as every source."""
        assert self.labels is not None, f"{self.name} has no labels"
        return self.labels


@dataclass(frozen=True)
class Content:
    """What a domain consists of.

    Attributes:
        digest: sha256 (hex) over names, labels and contents.
        images: sha256 of the content of every image; empty for drawn digits.
    """

    digest: str
    images: tuple[bytes, ...]


def open_domains(
    benchmark: str,
    domains: Sequence[str],
    *,
    root: Root | None,
    resize: int,
    corrupt: Literal["error", "skip"],
    fit: Fit = "squeeze",
) -> list[Domain]:
    """Open domains that are used together, in the given order. Images that are not in the cache are decoded first.

    Args:
        benchmark: a name in BENCHMARKS.
        domains: names in any accepted spelling.
        root: the folder that contains the domains' folders, or a catalogue; not used by `digits`.
        resize: side in pixels to which every image is resized.
        corrupt: `error` stops at an unreadable image, `skip` leaves it out and lists it in `Domain.skipped`.
        fit: how images become squares, see `decode_image`; drawn digits are squares.

    Raises:
        ConfigError: the benchmark or a domain is unknown, or the root or a folder is missing.
        DataError: the domains' classes differ, a class has no images, or an image is unreadable.
    """
    names = [canonical_domain(benchmark, domain) for domain in domains]
    if benchmark == "digits":
        return [_open_digits(name, resize) for name in names]
    found = checked_files(benchmark, names, root)
    for files in found.values():
        if files.listing is not None:
            _warn_of_counts(benchmark, files.name, files.listing)
        _warn_of_unused(benchmark, files, root)
    return [_open_files(benchmark, found[name], resize, corrupt, fit) for name in names]


def domain_names(benchmark: str, *, root: Root | None) -> list[str]:
    """Names of the domains that can be opened: the embedded ones of `digits`, a catalogue's, or those in `root`."""
    check_benchmark(benchmark)
    if benchmark == "digits":
        return list(BENCHMARKS["digits"].domains)
    if isinstance(root, Catalogue):
        return root.names
    folders = domain_folders(benchmark, root)
    if BENCHMARKS[benchmark].domains:  # one of its domains that is empty is a fault of the data
        return list(folders)
    strays = stray_folders(folders, {name: list_images(folder) for name, folder in folders.items()})
    return [name for name in folders if name not in strays]


def prepare(
    benchmark: str, *, root: Root | None = None, resize: int | None = None, corrupt: Literal["error", "skip"] = "error"
) -> list[Domain]:
    """Decode all domains of a benchmark into the cache. With `resize=None` the size is the benchmark's default."""
    size = resize or TrialConfig().replace(check_benchmark(benchmark).defaults).data.resize
    return open_domains(benchmark, domain_names(benchmark, root=root), root=root, resize=size, corrupt=corrupt)


def domain_digest(benchmark: str, domain: str, *, root: Root | None) -> str:
    """sha256 (hex) of a domain's content and labels; it does not depend on host, folder or order of files.

    Raises: as `domain_content`.
    """
    return domain_content(benchmark, domain, root=root).digest


def domain_content(benchmark: str, domain: str, *, root: Root | None) -> Content:
    """Digests of a domain and of its images.

    Raises:
        ConfigError: the benchmark or the domain is unknown, or the root or the folder is missing.
        DataError: its images cannot be used: see `checked_files`.
    """
    name = canonical_domain(benchmark, domain)
    if benchmark == "digits":
        return Content(open_digits(name)[2], ())
    files = checked_files(benchmark, [name], root)[name]
    digests = files.digests()
    return Content(files.content_digest(digests), tuple(map(bytes.fromhex, digests)))


def _open_digits(name: str, resize: int) -> Domain:
    images, labels, digest = open_digits(name)
    if resize != SIDE:
        square, bilinear = (resize, resize), Image.Resampling.BILINEAR
        resized = [Image.fromarray(image.transpose(1, 2, 0)).resize(square, bilinear) for image in images]
        images = np.stack([np.asarray(image).transpose(2, 0, 1) for image in resized])
    classes = BENCHMARKS["digits"].classes
    assert classes is not None
    return Domain(name, images, labels, classes, (), digest)


def _warn_of_counts(benchmark: str, domain: str, listing: Listing) -> None:
    if lines := differing_counts(benchmark, domain, listing):
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        warn_once(
            f"{benchmark} differs from what is published: {'; '.join(lines[:3])}{more}: "
            f"`scale-ray data check {benchmark}` lists all differences"
        )


def _warn_of_unused(benchmark: str, files: DomainFiles, root: Root | None) -> None:
    unused = {
        str(folder / file): why for folder, of_folder in files.unused().items() for file, why in of_folder.items()
    }
    if unused:
        place = "CATALOGUE" if isinstance(root, Catalogue) else shlex.quote(shown(str(root)))
        told = f"`scale-ray data check {benchmark} --root {place} --all` names them"
        warn_once(f"{shown(files.name)}: {count_unused(unused)}; {told}")


def _open_files(benchmark: str, files: DomainFiles, resize: int, corrupt: Literal["error", "skip"], fit: Fit) -> Domain:
    digests = files.digests()
    digest = files.content_digest(digests)

    def build(unfinished: Path) -> None:
        _decode_all(files, digests, resize, corrupt, fit, unfinished)
        write_manifest(unfinished, f"{benchmark} {files.name}, {resize} px{cropped}")

    cropped = ", cropped" if fit == "crop" else ""
    key = f"{digest[:32]}-{resize}{'-crop' if cropped else ''}-v{DECODER_VERSION}"
    images, labels, skipped, dark = open_or_build(cache_folder() / "decoded" / key, _load, build)
    if skipped and corrupt == "error":
        first, reason = next(iter(skipped.items()))
        raise _unreadable(files.shown(first), reason)
    for label, class_name in enumerate(files.classes):
        if label not in labels:
            raise DataError(
                f"{files.shown(class_name)}: every image of class '{shown(class_name)}' is unreadable: replace them"
            )
    if len(images) == 0:
        raise DataError(f"{shown(files.where)}: every image is unreadable: replace them")
    if dark:
        warn_once(f"{shown(files.name)}: {len(dark):,} images are nearly black (such as {shown(dark[0])}): {DARK}")
    kept = tuple(name for name in files.names if name not in skipped)
    known = None if files.labels is None else labels
    return Domain(files.name, images, known, files.classes, tuple(skipped), digest, kept)


def _load(stored: Path) -> tuple[np.ndarray, np.ndarray, dict[str, str], list[str]]:
    check_manifest(stored)
    images = np.asarray(np.load(stored / "images.npy", mmap_mode="r"))
    labels = np.load(stored / "labels.npy")
    dark = stored / "dark.json"  # older versions have not written it
    return (
        images,
        labels,
        json.loads((stored / "skipped.json").read_bytes()),
        json.loads(dark.read_bytes()) if dark.exists() else [],
    )


def _decode_all(
    files: DomainFiles,
    digests: Sequence[str],
    size: int,
    corrupt: Literal["error", "skip"],
    fit: Fit,
    unfinished: Path,
) -> None:
    """Write images, labels (-1 where there are none) and what is odd about them into a folder of the cache."""
    digest_of = dict(zip(files.names, digests, strict=True))

    def decode(name: str) -> tuple[np.ndarray, bool] | UnreadableImage:
        data = files.read(name)
        if hashlib.sha256(data).hexdigest() != digest_of[name]:
            files.forget()
            raise DataError(
                f"{files.shown(name)}: changed while the images were read: wait until nothing is written there any "
                "more, then run again"
            )
        try:
            return decode_image(data, size, fit), is_dark(data)
        except MissingReader as error:  # never skipped: the same files would be other data once it is installed
            raise DataError(f"{files.shown(name)}: {error}") from error
        except UnreadableImage as error:
            if corrupt == "skip":
                return error
            raise _unreadable(files.shown(name), str(error)) from error

    labels: list[int] = []
    skipped: dict[str, str] = {}
    dark: list[str] = []
    classes = [-1] * len(files.names) if files.labels is None else files.labels
    # Written as a stream, because a full disk kills a process that writes through a memory map.
    with (unfinished / "images.npy").open("wb") as file:
        _write_header(file, 0, size)
        results = in_threads(decode, files.names, f"decoding {shown(files.name)} to {size} px")
        for name, label, result in zip(files.names, classes, results, strict=True):
            if isinstance(result, UnreadableImage):
                skipped[name] = str(result)
                continue
            pixels, is_nearly_black = result
            file.write(pixels.tobytes())
            labels.append(label)
            if is_nearly_black:
                dark.append(name)
        file.seek(0)
        _write_header(file, len(labels), size)
    np.save(unfinished / "labels.npy", np.array(labels, np.int64))
    (unfinished / "skipped.json").write_text(json.dumps(skipped))
    (unfinished / "dark.json").write_text(json.dumps(dark))


def _write_header(file: BinaryIO, count: int, size: int) -> None:
    """Write the .npy header. NumPy pads it so that its length does not depend on `count` (GROWTH_AXIS_MAX_DIGITS)."""
    shape = (count, 3, size, size)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _unreadable(image: str, reason: str) -> DataError:
    return DataError(
        f"{image}: unreadable image ({reason}): replace it, or leave such images out: --set data.corrupt=skip; "
        "`scale-ray data check BENCHMARK --root IMAGES --all` names them all"
    )
