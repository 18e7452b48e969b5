"""What lies in the cache folder, and its deletion. Only folders that scale_ray made are ever touched."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from scale_ray.data.cache import ABANDONED_SECONDS, cache_folder, discard
from scale_ray.data.manifest import read_about

# Folders of the cache -> what each of their folders holds.
KINDS = {"decoded": "decoded images", "digits-v*": "drawn digits", "features": "features of a frozen encoder"}


@dataclass(frozen=True)
class Entry:
    """Something in the cache.

    Attributes:
        kind: what it is, for people.
        about: what it holds, for people.
        paths: the folder, or the files, that it is made of.
        size: in bytes.
        used: when it was last opened or made, in seconds since 1970.
        busy: a running process may be filling it.
    """

    kind: str
    about: str
    paths: tuple[Path, ...]
    size: int
    used: float
    busy: bool = False


def cache_entries() -> list[Entry]:
    """All that scale_ray keeps in the cache folder, ordered by kind and name."""
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
    """Delete entries. Trials that have opened them read on: their arrays stay mapped until the last one ends.

    Raises:
        DataError: something cannot be deleted.
    """
    for entry in entries:
        for path in entry.paths:
            discard(path)


def _entry(kind: str, about: str, *paths: Path) -> Entry:
    size, used = 0, 0.0
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):  # someone is deleting it, or it is another's
            used = max(used, path.stat().st_mtime)
            size += sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    return Entry(kind, about, paths, size, used)
