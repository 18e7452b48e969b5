"""What lies in an image folder and is not used: files that are no image of a class, folders that are no domain."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from scale_ray.data.image_folder import Listing, entries_below, folders_in, is_folder, is_hidden, is_image, is_regular
from scale_ray.data.pixels import SUFFIXES
from scale_ray.errors import shown

# Reasons, each as a message writes it of one file and of several.
FORMAT = ("of a format that is not read", "of formats that are not read")
SUBFOLDER = ("in a subfolder of a class", "in subfolders of classes")
NO_CLASS = ("not in a class folder", "not in a class folder")
DANGLING = ("dangling link", "dangling links")
SPECIAL = ("not a regular file", "not regular files")

# File -> its reason.
Unused = dict[str, tuple[str, str]]

_REASONS = (FORMAT, SUBFOLDER, NO_CLASS, SPECIAL, DANGLING)

# Suffixes of images of other formats.
_OTHERS = (
    *(".dng", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".raf", ".rw2"),  # raw photos
    *(".jp2", ".jxl", ".pgm", ".pnm", ".ppm", ".svg", ".tga"),
)

# What is to be done about each.
_REMEDIES = {
    SUBFOLDER: "in a folder within a class folder: move up into the class folder",
    NO_CLASS: "not in a class folder: move into the folder of a class",
    DANGLING: "a link that leads nowhere",
    SPECIAL: "not a regular file",
}


def unused_files(folder: Path) -> Unused:
    """Relative path, sorted, -> reason of every file of a domain's folder that is no image of a class.

    Hidden files and folders are left out.
    """
    found = {entry.name: _reason(entry, NO_CLASS) for entry in _shown(folder) if not is_folder(entry)}
    for path in folders_in(folder):
        for entry in _shown(path):
            if is_folder(entry):
                found |= {f"{path.name}/{entry.name}{name}": SUBFOLDER for name in _files_below(entry)}
            elif not is_image(entry):
                found[f"{path.name}/{entry.name}"] = _reason(entry, FORMAT)
    return dict(sorted(found.items()))


def unused_below(folder: Path) -> Unused:
    """Relative path, sorted, -> reason of every file at any depth of a folder of images that is none."""
    others = (entry for entry in entries_below(folder) if not is_image(entry))
    return dict(sorted((os.path.relpath(entry.path, folder), _reason(entry, FORMAT)) for entry in others))


def why_unused(name: str, reason: tuple[str, str]) -> str:
    """`not used: …`, why and what to do, in words that are the same for all such files."""
    if reason == FORMAT:
        suffix = shown(_suffix(name))
        remedy = f"{suffix} is not read: convert to PNG" if suffix in _OTHERS else f"no image by its suffix ({suffix})"
    else:
        remedy = _REMEDIES[reason]
    return f"not used: {remedy}"


def is_named_as_image(name: str) -> bool:
    """Whether a file's suffix is that of an image, of a format that is read or another."""
    return _suffix(name) in (*SUFFIXES, *_OTHERS)


def count_unused(unused: Mapping[str, tuple[str, str]]) -> str:
    """`5 files are not used: 3 of formats that are not read (.bmp .heic .tif), 1 dangling link, …`."""
    counts = Counter(unused.values())
    parts = {reason: f"{counts[reason]:,} {reason[counts[reason] > 1]}" for reason in _REASONS if counts[reason]}
    if FORMAT in parts:
        suffixes = sorted({_suffix(name) for name, reason in unused.items() if reason == FORMAT})
        parts[FORMAT] += f" ({shown(' '.join(suffixes[:8]))}{' …' if len(suffixes) > 8 else ''})"
    files = "1 file is" if len(unused) == 1 else f"{len(unused):,} files are"
    return f"{files} not used: {', '.join(parts.values())}"


def stray_folders(folders: Mapping[str, Path], listings: Mapping[str, Listing]) -> list[str]:
    """Names of the folders that are no domains: no image of any format lies in them, and no class of a domain."""
    empty = [name for name in listings if not any(listings[name].values())]
    classes = {label for name, listing in listings.items() if name not in empty for label in listing}
    return [name for name in empty if not classes & set(listings[name]) and not _holds_images(folders[name])]


def _shown(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not is_hidden(entry.name))


def _reason(entry: os.DirEntry[str], usual: tuple[str, str]) -> tuple[str, str]:
    if is_regular(entry):
        return usual
    return DANGLING if entry.is_symlink() else SPECIAL


def _files_below(entry: os.DirEntry[str]) -> Iterator[str]:
    """Path below the entry, with a slash before it, of every file there; a link to a folder counts as one file."""
    if entry.is_symlink():
        yield ""
        return
    for folder, _, files in os.walk(entry.path):
        yield from (f"{folder[len(entry.path) :]}/{name}" for name in files if not is_hidden(name))


def _suffix(name: str) -> str:
    return Path(name).suffix.lower() or "none"


def _holds_images(folder: Path) -> bool:
    return any(is_named_as_image(name) for _, _, files in os.walk(folder) for name in files if not is_hidden(name))
