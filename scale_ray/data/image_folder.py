"""Image folders: root/domain/class/*.{jpg,jpeg,png,webp}.

A listing maps the classes of one domain to their file names. Both are sorted in ASCII order, so that labels do not
depend on the file system.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from scale_ray.config import ConfigError, suggest
from scale_ray.data.benchmarks import BENCHMARKS, DataError, canonical_domain
from scale_ray.data.cache import file_digests

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

Listing = dict[str, list[str]]


def domain_folders(benchmark: str, root: Path | None) -> dict[str, Path]:
    """The benchmark's domains with a folder in `root`: canonical name -> folder, ordered by folder name.

    Raises:
        ConfigError: `root` is None or not a folder, or two folders are the same domain.
    """
    if root is None:
        raise ConfigError(f"{benchmark}: where are the images? name the folder that holds its domains: --root FOLDER")
    if not root.is_dir():
        parent = next(parent for parent in root.absolute().parents if parent.is_dir())
        hint = suggest(root.name, (path.name for path in parent.iterdir() if path.is_dir()))
        raise ConfigError(f"--root {root}: no such folder: {hint}{parent} is the last part of that path that exists")
    known = BENCHMARKS[benchmark].domains
    found: dict[str, Path] = {}
    for folder in _folders(root):
        domain = BENCHMARKS[benchmark].aliases.get(folder.name, folder.name)
        if known and domain not in known:
            continue
        if domain in found:
            raise ConfigError(
                f"--root {root}: {found[domain].name!r} and {folder.name!r} are both domain {domain!r}: move one away"
            )
        found[domain] = folder
    return found


def domain_folder(benchmark: str, domain: str, root: Path | None) -> Path:
    """The folder of one domain, whose name may have any accepted spelling.

    Raises:
        ConfigError: as for `domain_folders`; or the benchmark or the root has no such domain. The message lists the
            folders in the root.
    """
    name = canonical_domain(benchmark, domain)
    found = domain_folders(benchmark, root)
    if name not in found:
        assert root is not None
        held = [folder.name for folder in _folders(root)]
        raise ConfigError(
            f"--root {root}: no folder for domain {name!r}: {suggest(name, held)}it holds: {', '.join(held) or 'none'}"
        )
    return found[name]


def list_images(folder: Path) -> Listing:
    """The listing of one domain. A class without images has an empty list; hidden files and folders are left out.

    Raises:
        DataError: a folder cannot be read.
    """
    try:
        return {
            path.name: sorted(entry.name for entry in os.scandir(path) if _is_image(entry)) for path in _folders(folder)
        }
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}): check the folder's permissions"
        ) from error


def list_ignored(folder: Path) -> list[str]:
    """Relative paths, sorted, of files in a domain's folder that are not used: not hidden, and no images of a class."""
    ignored = [entry.name for entry in os.scandir(folder) if not entry.is_dir() and not _is_hidden(entry.name)]
    for path in _folders(folder):
        ignored += [
            f"{path.name}/{entry.name}"
            for entry in os.scandir(path)
            if not (_is_image(entry) or _is_hidden(entry.name))
        ]
    return sorted(ignored)


def empty_classes(folder: Path, listing: Listing) -> list[str]:
    """One line for each class folder without images, or one line for a domain without class folders."""
    if not listing:
        return [f"{folder}: no class folders in it: images must be in {folder.name}/CLASS/"]
    return [
        f"{folder / name}: no {', '.join(SUFFIXES)} of class {name!r}: add some, or remove the class from every domain"
        for name, images in listing.items()
        if not images
    ]


def differing_classes(benchmark: str, listings: Mapping[str, Listing]) -> list[str]:
    """One line for each domain with classes other than the benchmark's, or (image_folder) than the other domains'."""
    published = BENCHMARKS[benchmark].classes
    wanted = set(published) if published else {name for listing in listings.values() for name in listing}
    lines = []
    for domain, listing in listings.items():
        lacks, more = sorted(wanted - set(listing)), sorted(set(listing) - wanted)
        differences = [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"also has {', '.join(more)}"] * bool(more)
        if differences:
            lines.append(f"{domain} {' and '.join(differences)}")
    return lines


def differing_counts(benchmark: str, domain: str, listing: Listing) -> list[str]:
    """One line for each published image count, of a class or else of the domain, that differs from what was found."""
    entry = BENCHMARKS[benchmark]
    if domain in entry.class_counts:
        published = entry.class_counts[domain]
        return [
            f"{domain}/{name}: {len(images)} images, published: {published[name]}"
            for name, images in listing.items()
            if name in published and len(images) != published[name]
        ]
    found = sum(map(len, listing.values()))
    wanted = entry.images.get(domain, found)
    return [f"{domain}: {found} images, published: {wanted}"] if found != wanted else []


def checked_listings(benchmark: str, folders: Mapping[str, Path]) -> dict[str, Listing]:
    """The listings of domains that are used together, by canonical name.

    Raises:
        DataError: a class has no images, or the domains' classes differ; the message lists all differences.
    """
    listings = {domain: list_images(folder) for domain, folder in folders.items()}
    for domain, folder in folders.items():
        if lines := empty_classes(folder, listings[domain]):
            raise DataError(lines[0])
    if lines := differing_classes(benchmark, listings):
        against = f"{benchmark}'s" if BENCHMARKS[benchmark].classes else "the same in every domain"
        raise DataError(f"classes are not {against}: {'; '.join(lines)}: rename, add or remove those folders")
    return listings


def image_names(listing: Listing) -> list[str]:
    """`class/file` of every image, in the order of the domain's images."""
    return [f"{name}/{file}" for name, images in listing.items() for file in images]


def listing_digest(folder: Path, listing: Listing) -> str:
    """sha256 (hex) over (class, file name, sha256 of the content) in order, without paths or modification times."""
    names = image_names(listing)
    total = hashlib.sha256()
    for name, digest in zip(names, file_digests(folder, names), strict=True):
        total.update(json.dumps([*name.split("/"), digest]).encode())
    return total.hexdigest()


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(SUFFIXES) and not _is_hidden(entry.name) and entry.is_file()
