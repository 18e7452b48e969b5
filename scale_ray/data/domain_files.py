"""Which images a domain has, however they are given: class folders, folders without labels, lists, Hugging Face."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scale_ray.config import Catalogue, ConfigError, Place, Root, is_hub, is_list, suggest
from scale_ray.data.benchmarks import BENCHMARKS, DataError, canonical_domain
from scale_ray.data.cache import file_digests, forget_digests, read_bytes
from scale_ray.data.image_folder import (
    Listing,
    differing_classes,
    domain_folder,
    empty_classes,
    entries_below,
    image_names,
    is_image,
    list_images,
    single_class,
    too_deep,
    unrecordable_names,
)
from scale_ray.data.names import is_text, quoted
from scale_ray.data.pixels import HEIF_SUFFIXES, NO_HEIF, reads_heif
from scale_ray.data.unused import Unused, unused_below, unused_files
from scale_ray.errors import shown
from scale_ray.urls import is_url, redacted


@dataclass(frozen=True)
class DomainFiles:
    """The images of a domain before any of them is read.

    Attributes:
        name: canonical name of the domain.
        where: what messages call the place: a folder, a list file, a data set.
        names: of the N images, in the domain's order: by class, then by name, in ASCII order.
        labels: of the images, indices into `classes`; None where they have none.
        classes: names in ASCII order; empty without labels.
        read: gives the content of an image by its name. Raises DataError if it cannot be read.
        digests: gives sha256 (hex) of the content of all images, in order. Raises DataError likewise.
        forget: makes `digests` compute them anew.
        listing: class -> file names, where the images lie in class folders.
        unused: gives folder -> file in it -> why that is no image of the domain; see `unused_files`.
        anywhere: whether every machine can read the images, which lie at URLs and not in this machine's folders.
    """

    name: str
    where: str
    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    read: Callable[[str], bytes]
    digests: Callable[[], list[str]]
    forget: Callable[[], None] = lambda: None
    listing: Listing | None = None
    unused: Callable[[], dict[str, Unused]] = dict
    anywhere: bool = False

    def shown(self, name: str) -> str:
        """An image as messages name it."""
        return shown(redacted(self.path(name)))

    def path(self, name: str) -> str:
        """An image as tables name it."""
        return image_path(self.where, name)

    def content_digest(self, digests: Sequence[str]) -> str:
        """See `content_digest`, of these images with these digests."""
        return content_digest(self.names, self.labels, self.classes, digests, in_folders=self.listing is not None)


def content_digest(
    names: Sequence[str],
    labels: Sequence[int] | None,
    classes: Sequence[str],
    digests: Sequence[str],
    *,
    in_folders: bool,
) -> str:
    """sha256 (hex) over class, name and content of every image in order, without paths above it or times.

    Args:
        names, labels, classes: as in `DomainFiles`.
        digests: sha256 (hex) of each image's content.
        in_folders: whether the images lie in class folders. Then a name begins with its class, which is left out of
            it: a label map may have renamed the class.
    """
    total = hashlib.sha256()
    if not in_folders:
        total.update(b"not class folders\n")
    of_classes = [None] * len(names) if labels is None else [classes[label] for label in labels]
    for of_class, name, digest in zip(of_classes, names, digests, strict=True):
        named = name.partition("/")[2] if in_folders else name
        total.update(json.dumps([of_class, named, digest]).encode())
    return total.hexdigest()


def image_path(where: str, name: str) -> str:
    """A domain's place with the name of an image: a path, a URL, or `hf:NAME/ROW`.

    A list may name images by absolute paths and URLs, which stay as they are.
    """
    return name if is_url(name) else os.path.join(where, name)


def domain_files(benchmark: str, domain: str, root: Root | None) -> DomainFiles:
    """The images of one domain.

    Raises:
        ConfigError: the benchmark, the root or the catalogue has no such domain.
        DataError: a folder or a list cannot be read, has no images, or names that no record can hold.
    """
    if not isinstance(root, Catalogue):
        return class_folders(canonical_domain(benchmark, domain), domain_folder(benchmark, domain, root))
    name = canonical_domain(benchmark, domain)
    place = root.place(domain) or _place_of(benchmark, name, root)
    if place is None:
        raise ConfigError(
            f"no domain {shown(domain)!r}: {shown(suggest(domain, root.names))}the catalogue has: {quoted(root.names)}"
        )
    if is_hub(place.images[0]):
        from scale_ray.data.hub import hub_files

        return hub_files(name, place, root)
    if is_list(place.images[0]):
        from scale_ray.data.lists import list_files

        return list_files(name, place, root)
    if is_url(place.images[0]):
        from scale_ray.data.remote_folders import remote_class_folders, remote_unlabelled

        url = place.images[0]
        return remote_class_folders(name, url, root) if place.labelled else remote_unlabelled(name, url)
    if place.labelled:
        return class_folders(name, existing_folder(name, place.images[0]), root)
    return unlabelled_folders(name, [existing_folder(name, each) for each in place.images])


def _place_of(benchmark: str, name: str, root: Catalogue) -> Place | None:
    """Where a domain is that the catalogue names in another spelling of the benchmark's."""
    aliases = BENCHMARKS[benchmark].aliases
    return next((root.place(each) for each in root.names if aliases.get(each) == name), None)


def checked_files(benchmark: str, domains: Sequence[str], root: Root | None) -> dict[str, DomainFiles]:
    """The images of domains that are used together, by canonical name.

    Raises:
        ConfigError: as `domain_files`.
        DataError: as `domain_files`; also a class without images, one class only, HEIC images that nothing here reads,
            or classes that differ between domains with labels. The message lists all differences.
    """
    found = {canonical_domain(benchmark, name): domain_files(benchmark, name, root) for name in domains}
    for files in found.values():
        if lines := wrong_names(files):
            more = f" ({len(lines):,} such names there)" if len(lines) > 1 else ""
            raise DataError(f"{lines[0]}{more}")
        if lines := wrong_classes(files) + unread_heif(files):
            raise DataError(lines[0])
    labelled = {name: images_by_class(files) for name, files in found.items() if files.labels is not None}
    if lines := differing_classes(benchmark, labelled):
        raise DataError(lines[0])
    return found


def class_folders(name: str, folder: Path, root: Catalogue | None = None) -> DomainFiles:
    """A folder of class folders. A catalogue's label map renames classes."""
    return in_class_folders(
        name,
        str(folder),
        list_images(folder),
        root,
        read=lambda image: read_bytes(folder / image),
        digests=lambda names: file_digests(folder, names),
        forget=lambda: forget_digests(folder),
        unused=lambda: {str(folder): unused_files(folder)},
    )


def in_class_folders(
    name: str,
    where: str,
    listing: Listing,
    catalogue: Catalogue | None,
    *,
    read: Callable[[str], bytes],
    digests: Callable[[Sequence[str]], list[str]],
    forget: Callable[[], None],
    unused: Callable[[], dict[str, Unused]],
    anywhere: bool = False,
) -> DomainFiles:
    """A domain whose images lie in class folders, in the order of the classes' names.

    Args:
        name: of the domain.
        where: the folder or URL of the class folders.
        listing: its class folders and the images in them.
        catalogue: its label map renames classes.
        digests: gives those of the images of these names.
        read, forget, unused, anywhere: as in `DomainFiles`.

    Raises:
        ConfigError: two class folders get the same name.
    """
    named = {catalogue.class_name(each) if catalogue else each: each for each in listing}
    if len(named) < len(listing):
        raise ConfigError(f"label_map: two class folders of {shown(where)} get the same name: map each to its own")
    classes = tuple(sorted(named)) if catalogue else tuple(named)
    names = image_names({named[each]: listing[named[each]] for each in classes})
    return DomainFiles(
        name,
        where,
        tuple(names),
        tuple(label for label, each in enumerate(classes) for _ in listing[named[each]]),
        classes,
        read=read,
        digests=lambda: digests(names),
        forget=forget,
        listing=listing,
        unused=unused,
        anywhere=anywhere,
    )


def unlabelled_folders(name: str, folders: Sequence[Path]) -> DomainFiles:
    """Images without labels, at any depth of these folders. With several, a name begins with its folder's.

    Raises:
        DataError: there are none, or two folders have the same name.
    """
    repeated = [each for each, times in Counter(folder.name for folder in folders).items() if times > 1]
    if repeated:
        raise DataError(f"domain {name!r}: two of its folders are called {shown(repeated[0])!r}: rename one of them")
    found: dict[str, Path] = {}
    for folder in folders:
        prefix = f"{folder.name}/" if len(folders) > 1 else ""
        found |= {f"{prefix}{image}": folder / image for image in images_below(folder)}
    names = sorted(found)
    if not names:
        raise DataError(f"{', '.join(map(shown, folders))}: no image in it: name a folder that has some")
    where = folders[0] if len(folders) == 1 else Path(os.path.commonpath([folder.absolute() for folder in folders]))
    return DomainFiles(
        name,
        str(where),
        tuple(names),
        None,
        (),
        read=lambda image: read_bytes(found[image]),
        digests=lambda: file_digests(where, [str(found[each].absolute()) for each in names], of=name),
        forget=lambda: forget_digests(where, of=name),
        unused=lambda: {str(folder): unused_below(folder) for folder in folders},
    )


def images_below(folder: Path) -> list[str]:
    """Paths of the images at any depth of a folder, in ASCII order.

    What is hidden is left out, and so are links that lead to a folder or nowhere.

    Raises:
        DataError: a folder cannot be read.
    """
    return sorted(os.path.relpath(entry.path, folder) for entry in entries_below(folder) if is_image(entry))


def existing_folder(name: str, path: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        what = "no folder" if folder.exists() else "no such folder"
        raise ConfigError(f"domain {shown(name)!r}: {shown(path)}: {what}: name the folder of its images")
    return folder


def wrong_names(files: DomainFiles) -> list[str]:
    """One line for each name that is not UTF-8; records, which are, cannot hold it."""
    if files.listing is not None and not is_url(files.where):
        return unrecordable_names(Path(files.where), files.listing)
    return [f"{files.shown(name)}: its name is not UTF-8: rename it" for name in files.names if not is_text(name)]


def wrong_classes(files: DomainFiles) -> list[str]:
    """What is wrong with a domain's classes, one line each; empty without labels."""
    if files.listing is not None and not is_url(files.where):
        problems = (too_deep, empty_classes, single_class)
        return [line for find in problems for line in find(Path(files.where), files.listing)]
    if files.labels is None:
        return []
    counts = Counter(files.labels)
    if empty := [each for label, each in enumerate(files.classes) if not counts[label]]:
        return [f"{shown(files.where)}: no image of class {quoted(empty)}: add some, or remove the class"]
    if len(files.classes) == 1:
        return [f"{shown(files.where)}: one class only, {quoted(files.classes)}: a classifier needs two"]
    return []


def unread_heif(files: DomainFiles) -> list[str]:
    """One line for a domain with HEIC images where the package that reads them is missing."""
    found = [] if reads_heif() else [name for name in files.names if name.lower().endswith(HEIF_SUFFIXES)]
    return [f"{files.shown(found[0])}: {NO_HEIF} ({len(found):,} such images there)"] if found else []


def images_by_class(files: DomainFiles) -> Listing:
    """Class -> names of its images, of a domain with labels."""
    assert files.labels is not None
    found: Listing = {each: [] for each in files.classes}
    for name, label in zip(files.names, files.labels, strict=True):
        found[files.classes[label]].append(name)
    return found
