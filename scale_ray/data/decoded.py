"""Domains as arrays: each image is decoded and resized once; later runs map the result from the cache into memory."""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from scale_ray.config import DEFAULTS, Catalogue, Root
from scale_ray.data.benchmarks import BENCHMARKS, DataError, canonical_domain, check_benchmark
from scale_ray.data.cache import cache_folder, open_or_build
from scale_ray.data.decoding import Decoded, Decoding, decode_all, load, unreadable
from scale_ray.data.digits import SIDE, open_digits
from scale_ray.data.domain_files import DomainFiles, checked_files, image_path
from scale_ray.data.image_folder import differing_counts, domain_folders, list_images
from scale_ray.data.manifest import check_manifest, write_manifest
from scale_ray.data.pixels import DARK, Fit
from scale_ray.data.room import make_room
from scale_ray.data.shards import fetch
from scale_ray.data.unused import count_unused, stray_folders
from scale_ray.data.warn import warn_once
from scale_ray.errors import shown
from scale_ray.store import Store, StoreError

logger = logging.getLogger(__name__)


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
    decoding = Decoding(resize, corrupt, fit)
    found = checked_files(benchmark, names, root)
    warn_of_files(benchmark, found, root)
    return [_open_listed(benchmark, found[name], decoding) for name in names]


def open_known(
    benchmark: str, domain: str, digest: str, decoding: Decoding, *, root: Root | None, store: Store | None
) -> Domain:
    """Open a domain whose content is known by its digest: from the cache, or else from the store, or else the root.

    The root is looked at only where neither the cache nor the store has the domain.

    Args:
        benchmark: a name in BENCHMARKS.
        domain: canonical name.
        digest: as `domain_digest` gives it.
        decoding: what is made of every image.
        root: as for `open_domains`.
        store: may have what `shards` put there.

    Raises:
        ConfigError: as `open_domains`.
        DataError: as `open_domains`; also if the root has other content by now.
    """
    if benchmark == "digits":
        found = _open_digits(domain, decoding.resize)
        if found.digest != digest:
            raise DataError(
                f"digits: this machine draws other images of {domain!r} than the one that planned the study: install "
                "the same versions of the packages on both"
            )
        return found

    def build(unfinished: Path) -> None:
        if store is not None and _fetched(store, domain, digest, decoding, unfinished, root):
            return
        files = checked_files(benchmark, [domain], root)[domain]
        digests = files.digests()
        if files.content_digest(digests) != digest:
            raise DataError(
                f"{shown(files.where)}: domain {domain!r} has changed since the study was planned: run again"
            )
        _decode(files, digests, decoding, unfinished)

    return _open(benchmark, domain, domain, digest, decoding, build)


def _fetched(store: Store, domain: str, digest: str, decoding: Decoding, unfinished: Path, root: Root | None) -> bool:
    """`fetch`; where the store cannot be read and there is a root, that is read."""
    try:
        return fetch(store, domain, digest, decoding, unfinished)
    except StoreError as error:
        if root is None:
            raise
        logger.warning("%s: reading the images at the root", error)
        return False


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
    size = resize or usual_size(benchmark)
    return open_domains(benchmark, domain_names(benchmark, root=root), root=root, resize=size, corrupt=corrupt)


def usual_size(benchmark: str) -> int:
    """Side in pixels to which a benchmark's images are decoded by default."""
    return DEFAULTS.replace(check_benchmark(benchmark).defaults).data.resize


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


def warn_of_files(benchmark: str, found: Mapping[str, DomainFiles], root: Root | None) -> None:
    """Say once of each domain, by name, where counts differ from the published ones and which files are not used."""
    for files in found.values():
        if files.listing is not None and (lines := differing_counts(benchmark, files.name, files.listing)):
            more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
            warn_once(
                f"{benchmark} differs from what is published: {'; '.join(lines[:3])}{more}: "
                f"`scale-ray data check {benchmark}` lists all differences"
            )
        unused = {
            image_path(folder, file): why
            for folder, of_folder in files.unused().items()
            for file, why in of_folder.items()
        }
        if unused:
            place = "CATALOGUE" if isinstance(root, Catalogue) else shlex.quote(shown(str(root)))
            told = f"`scale-ray data check {benchmark} --root {place} --all` names them"
            warn_once(f"{shown(files.name)}: {count_unused(unused)}; {told}")


def _open_listed(benchmark: str, files: DomainFiles, decoding: Decoding) -> Domain:
    digests = files.digests()

    def build(unfinished: Path) -> None:
        _decode(files, digests, decoding, unfinished)

    return _open(benchmark, files.name, files.where, files.content_digest(digests), decoding, build)


def _decode(files: DomainFiles, digests: Sequence[str], decoding: Decoding, unfinished: Path) -> None:
    make_room(len(files.names) * decoding.image_bytes)
    decode_all(files, digests, decoding, unfinished)


def _open(
    benchmark: str, name: str, where: str, digest: str, decoding: Decoding, fill: Callable[[Path], None]
) -> Domain:
    """Open a domain in the cache, where `fill` writes it into an empty folder if it is not there."""

    def build(unfinished: Path) -> None:
        fill(unfinished)
        write_manifest(unfinished, decoding.about(benchmark, name))

    folder = cache_folder() / "decoded" / decoding.key(digest)
    found = open_or_build(folder, _load, build, one_builds=True)
    if found.skipped and decoding.corrupt == "error":
        first, reason = next(iter(found.skipped.items()))
        raise unreadable(shown(image_path(where, first)), reason)
    there = () if found.labels is None else np.unique(found.labels)
    for label, class_name in enumerate(found.classes):
        if label not in there:
            raise DataError(
                f"{shown(image_path(where, class_name))}: every image of class '{shown(class_name)}' is unreadable: "
                "replace them"
            )
    if len(found.images) == 0:
        raise DataError(f"{shown(where)}: every image is unreadable: replace them")
    if found.dark:
        warn_once(
            f"{shown(name)}: {len(found.dark):,} images are nearly black (such as {shown(found.dark[0])}): {DARK}"
        )
    kept = tuple(each for each in found.names if each not in found.skipped)
    return Domain(name, found.images, found.labels, found.classes, tuple(found.skipped), digest, kept)


def _load(folder: Path) -> Decoded:
    check_manifest(folder)
    return load(folder)
