"""Image folders: root/domain/class/image, where an image is a file with one of SUFFIXES, in upper or lower case.

A listing maps the classes of one domain to their file names. Both are sorted in ASCII order, so that labels do not
depend on the file system.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from scale_ray.config import ConfigError, suggest
from scale_ray.data.benchmarks import BENCHMARKS, DataError, canonical_domain
from scale_ray.data.names import is_text, look_alikes, quoted
from scale_ray.data.pixels import SUFFIXES
from scale_ray.errors import shown

# What systems put into folders by themselves. It is never used, like hidden files and folders.
SYSTEM_NAMES = frozenset(
    {"$RECYCLE.BIN", "@eaDir", "System Volume Information", "Thumbs.db", "__MACOSX", "desktop.ini", "lost+found"}
)

Listing = dict[str, list[str]]


def domain_folders(benchmark: str, root: Path | None) -> dict[str, Path]:
    """The benchmark's domains with a folder in `root`: canonical name -> folder, ordered by folder name.

    Raises:
        ConfigError: `root` is None or not a folder, its path is not UTF-8, or two folders are the same domain.
        DataError: `root` cannot be read.
    """
    if root is None:
        raise ConfigError(f"{benchmark}: where are the images? name the folder that holds its domains: --root FOLDER")
    if not is_text(root.absolute()):
        raise ConfigError(
            f"--root {shown(root.absolute())}: this path is not UTF-8, so no record can name it: rename that folder"
        )
    if root.is_file():
        raise ConfigError(
            f"--root {shown(root)}: a file and not a folder: unpack it, or name the folder that holds the domains, a "
            "catalogue (.toml) or a list (.csv, .parquet)"
        )
    if not root.is_dir():
        parent = next(parent for parent in root.absolute().parents if parent.is_dir())
        hint = suggest(root.name, (path.name for path in parent.iterdir() if path.is_dir()))
        raise ConfigError(
            f"--root {shown(root)}: no such folder: {shown(hint)}{shown(parent)} is the last part of that path that "
            "exists"
        )
    known = BENCHMARKS[benchmark].domains
    found: dict[str, Path] = {}
    for folder in folders_in(root):
        domain = BENCHMARKS[benchmark].aliases.get(folder.name, folder.name)
        if known and domain not in known:
            continue
        if domain in found:
            raise ConfigError(
                f"--root {shown(root)}: {found[domain].name!r} and {folder.name!r} are both domain {domain!r}: move "
                "one away"
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
        held = [folder.name for folder in folders_in(root)]
        hint = next((f"{line}; " for other in held for line in look_alikes([name, other])), shown(suggest(name, held)))
        raise ConfigError(
            f"--root {shown(root)}: no folder for domain '{shown(name)}': {hint}it holds: "
            f"{', '.join(map(shown, held)) or 'none'}"
        )
    return found[name]


def list_images(folder: Path) -> Listing:
    """The listing of one domain. A class without images has an empty list; hidden files and folders are left out.

    Raises:
        DataError: a folder cannot be read.
    """
    return {path.name: sorted(entry.name for entry in _scan(path) if is_image(entry)) for path in folders_in(folder)}


def unrecordable_names(folder: Path, listing: Listing) -> list[str]:
    """One line for each name, of domain, class or image, that is not UTF-8; records, which are, cannot hold it."""
    wrong = [
        name for name in ("", *listing, *image_names(listing)) if not is_text(name.rpartition("/")[2] or folder.name)
    ]
    return [f"{shown(folder / name)}: its name is not UTF-8: rename it" for name in wrong]


def empty_classes(folder: Path, listing: Listing) -> list[str]:
    """One line for each class folder without images, or one line for a domain without class folders.

    Folders that hold class folders come first: their line says that the folder above the right one was named.
    """
    if not listing:
        return [f"{shown(folder)}: no class folders in it: images must be in {shown(folder.name)}/CLASS/"]
    above, empty = [], []
    for path in (folder / name for name, images in listing.items() if not images):
        below = next((each for each in folders_in(path) if any(is_image(entry) for entry in _scan(each))), None)
        if below is None:
            told = f"{shown(path)}: no image of class '{shown(path.name)}'"
            empty.append(f"{told}: add some, or remove the class from every domain")
        else:
            above.append(
                f"{shown(path)}: its images lie in folders within it, such as {shown(below.name)}: if these are the "
                f"classes, name {shown(path)}; if not, move the images up"
            )
    return [*above, *empty]


def too_deep(folder: Path, listing: Listing) -> list[str]:
    """One line for a domain whose images all lie in folders within its class folders."""
    if any(listing.values()):
        return []
    for name in listing:
        for below in folders_in(folder / name):
            if images := sorted(entry.name for entry in _scan(below) if is_image(entry)):
                return [
                    f"{shown(folder)}: images lie one folder deeper than CLASS/image (such as "
                    f"{shown(f'{name}/{below.name}/{images[0]}')}): move the class folders up, or write --root "
                    f"{shown(folder)} if its folders are the domains"
                ]
    return []


def single_class(folder: Path | str, listing: Listing) -> list[str]:
    """One line for a domain with one class, on which every classifier is right."""
    if len(listing) != 1:
        return []
    return [f"{shown(folder)}: one class only, {quoted(listing)}: a classifier needs two; images are in DOMAIN/CLASS/"]


def differing_classes(benchmark: str, listings: Mapping[str, Listing]) -> list[str]:
    """One line that names each domain with classes other than the benchmark's, or (image_folder) the other domains'.

    It also names each group of names that look the same, if this is all that tells some classes apart.
    """
    published = BENCHMARKS[benchmark].classes
    wanted = set(published) if published else {name for listing in listings.values() for name in listing}
    lines, differing = [], set()
    for domain, listing in listings.items():
        lacks, more = sorted(wanted - set(listing)), sorted(set(listing) - wanted)
        differences = [f"lacks {quoted(lacks)}"] * bool(lacks) + [f"also has {quoted(more)}"] * bool(more)
        if differences:
            lines.append(f"{shown(domain)} {' and '.join(differences)}")
        differing |= {*lacks, *more}
    if not lines:
        return []
    against = f"{benchmark}'s" if published else "the same in every domain"
    said = "; ".join(lines + look_alikes(differing))
    return [f"classes are not {against}: {said}: rename, add or remove those folders"]


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


def image_names(listing: Listing) -> list[str]:
    """`class/file` of every image, in the order of the domain's images."""
    return [f"{name}/{file}" for name, images in listing.items() for file in images]


def folders_in(path: Path) -> list[Path]:
    """The folders in a folder that may be domains or classes, in ASCII order.

    Raises:
        DataError: it cannot be read.
    """
    return sorted(path / entry.name for entry in _scan(path) if not is_hidden(entry.name) and is_folder(entry))


def entries_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies at any depth of a folder and is no folder, in no order. What is hidden, and the folders that links lead
    to, are left out.

    Raises:
        DataError: a folder cannot be read.
    """
    waiting = [folder]
    while waiting:
        for entry in _scan(waiting.pop()):
            if is_hidden(entry.name):
                continue
            if not is_folder(entry):
                yield entry
            elif not entry.is_symlink():
                waiting.append(Path(entry.path))


def system_folders(path: Path) -> list[str]:
    """Names of the folders in a folder that a system has put there."""
    return [entry.name for entry in _scan(path) if entry.name in SYSTEM_NAMES and is_folder(entry)]


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_NAMES


def is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(SUFFIXES) and not is_hidden(entry.name) and is_regular(entry)


def is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file or a link to one; a link that leads nowhere, in a circle or where nobody may look is not."""
    try:
        return entry.is_file()
    except OSError:
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"{shown(folder)}: cannot be read ({error.strerror}): check the folder's permissions"
        ) from error
