"""Listing and deletion of the cache. Only entries that scale_ray has written are listed or deleted."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from scale_ray.data.cache import ABANDONED_SECONDS, cache_folder, discard
from scale_ray.data.manifest import read_about

# Glob pattern of folders in the cache -> what the folders in them contain.
KINDS = {"decoded": "decoded images", "digits-v*": "drawn digits", "features": "features of a frozen encoder"}


@dataclass(frozen=True)
class Entry:
    """An entry of the cache.

    Attributes:
        kind: kind of its content, as text.
        about: description of its content, as text.
        paths: the folder or the files that it consists of.
        size: in bytes.
        used: when it was last opened or written, in seconds since 1970.
        busy: whether a running process may still be writing it.
    """

    kind: str
    about: str
    paths: tuple[Path, ...]
    size: int
    used: float
    busy: bool = False


def cache_entries() -> list[Entry]:
    """All entries of the cache, ordered by kind and name."""
    entries = []
    for pattern, kind in KINDS.items():
        for path in sorted(cache_folder().glob(f"{pattern}/*")):
            entry = _entry(kind, read_about(path) or path.name, path)
            if path.name.startswith("."):
                busy = time.time() - entry.used < ABANDONED_SECONDS
                entry = replace(entry, kind="unfinished", about=kind, busy=busy)
            entries.append(entry)
    if digests := sorted(cache_folder().glob("file_digests/*.json")):
        entries.append(_entry("file digests", f"of {len(digests)} folders", *digests))
    return entries


def clear_cache(entries: list[Entry]) -> None:
    """Delete entries. Running trials are not affected: the arrays that they have mapped stay readable until they end.

    Raises:
        DataError: an entry cannot be deleted.
    """
    for entry in entries:
        for path in entry.paths:
            discard(path)


def _entry(kind: str, about: str, *paths: Path) -> Entry:
    size, used = 0, 0.0
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):  # it is being deleted, or belongs to another user
            used = max(used, path.stat().st_mtime)
            size += sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    return Entry(kind, about, paths, size, used)
