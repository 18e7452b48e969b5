"""Class folders and folders of images at a URL: s3://bucket/photos is what the folder photos is on a disk.

A listing gives names, sizes and versions of all files in some requests; the content of an image is read when its digest
is not known yet, and to decode it.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from scale_ray.config import Catalogue
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import digests_path, forget_noted, noted_digests
from scale_ray.data.domain_files import DomainFiles, in_class_folders
from scale_ray.data.image_folder import Listing, is_hidden
from scale_ray.data.locations import folders_below, listed_below, read_file, unreachable
from scale_ray.data.pixels import SUFFIXES
from scale_ray.data.unused import FORMAT, NO_CLASS, SUBFOLDER
from scale_ray.errors import shown
from scale_ray.urls import redacted

_IN_CLASS = 2  # parts of the path of an image in a class folder: CLASS/image


def remote_class_folders(name: str, url: str, catalogue: Catalogue) -> DomainFiles:
    """A domain whose class folders lie at a URL. A label map renames classes.

    Raises:
        DataError: nothing there can be listed, or no class folder has an image.
    """
    found = _listed(url)
    listing: Listing = {}
    for path in found:
        parts = path.split("/")
        if len(parts) == _IN_CLASS and _is_image(path):
            listing.setdefault(parts[0], []).append(parts[1])
    if not listing:
        deep = next((path for path in found if path.count("/") >= _IN_CLASS and _is_image(path)), None)
        said = f"images lie deeper than CLASS/image (such as {shown(deep)})" if deep else "no class folders in it"
        raise DataError(f"{_shown(url)}: {said}: images must be in {_shown(url)}/CLASS/")
    unused = {path: _reason(path) for path in found if path.count("/") != 1 or not _is_image(path)}
    return in_class_folders(
        name,
        url,
        {each: sorted(listing[each]) for each in sorted(listing)},
        catalogue,
        read=partial(_read, url),
        digests=lambda names: _digests(url, names, found, name),
        forget=lambda: forget_noted(_noted(url)),
        unused=lambda: {url: unused},
        anywhere=True,
    )


def remote_unlabelled(name: str, url: str) -> DomainFiles:
    """Images without labels, at any depth below a URL.

    Raises:
        DataError: nothing there can be listed, or there is no image.
    """
    found = _listed(url)
    names = tuple(path for path in found if _is_image(path))
    if not names:
        raise DataError(f"{_shown(url)}: no image in it: name a folder that has some")
    return DomainFiles(
        name,
        url,
        names,
        None,
        (),
        read=partial(_read, url),
        digests=lambda: _digests(url, names, found, name),
        forget=lambda: forget_noted(_noted(url)),
        unused=lambda: {url: {path: FORMAT for path in found if not _is_image(path)}},
        anywhere=True,
    )


def remote_domains(url: str) -> list[str]:
    """Names of the folders directly below a URL, in ASCII order.

    Raises:
        DataError: nothing there can be listed, or there is no folder.
    """
    try:
        names = [each for each in folders_below(url) if not is_hidden(each)]
    except OSError as error:
        raise unreachable(url, error) from None
    if not names:
        raise DataError(f"--root {_shown(url)}: no folder in it: images must be in {_shown(url)}/DOMAIN/CLASS/")
    return names


@cache
def _listed(url: str) -> Mapping[str, list]:
    """Path below the URL, in ASCII order, -> size and version of every file that is not hidden."""
    try:
        found = listed_below(url)
    except OSError as error:
        raise unreachable(url, error) from None
    return {path: state for path, state in found.items() if not any(map(is_hidden, path.split("/")))}


def forget_listings() -> None:
    """List URLs again: what lies there may have changed since this process listed it."""
    _listed.cache_clear()


def _digests(url: str, names: Sequence[str], states: Mapping[str, list], what: str) -> list[str]:
    return noted_digests(
        _noted(url), names, lambda wanted: {name: states[name] for name in wanted}, partial(_read, url), shown(what)
    )


def _noted(url: str) -> Path:
    return digests_path(os.fsencode(url))


def _read(url: str, name: str) -> bytes:
    try:
        return read_file(f"{url}/{name}")
    except OSError as error:
        raise unreachable(f"{url}/{name}", error) from None


def _is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _reason(path: str) -> tuple[str, str]:
    depth = path.count("/")
    return NO_CLASS if depth == 0 else FORMAT if depth == 1 else SUBFOLDER


def _shown(url: str) -> str:
    return shown(redacted(url))
