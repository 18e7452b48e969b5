"""Room in the cache: what was not used for longest goes where a decoded domain needs its place."""

import os
import shutil
from pathlib import Path

from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import cache_folder, make_folder
from scale_ray.data.cached import KINDS, Entry, cache_entries, clear_cache
from scale_ray.errors import UserError

LIMIT = "SCALE_RAY_CACHE_GB"

# Of the disk, as a share, that stays free where no limit is set.
_LEAST_FREE = 0.05

# What can be made again from images or fetched from a store, and is large.
_MAY_GO = (KINDS["decoded"], KINDS["features"])


def make_room(needed: int) -> None:
    """Delete decoded images and features until so many bytes fit into the cache, the least recently used first.

    The cache may take what $SCALE_RAY_CACHE_GB says; without it, all but 5 % of the disk. Trainings that run are not
    disturbed: what they have mapped stays readable until they end.

    Raises:
        DataError: it does not fit even if all of that goes. Nothing is deleted then.
        UserError: the limit is no number.
    """
    entries = cache_entries()
    over = needed - _room(make_folder(cache_folder()), sum(entry.size for entry in entries))
    if over <= 0:
        return
    may_go = sorted((entry for entry in entries if entry.kind in _MAY_GO), key=lambda entry: entry.used)
    if sum(entry.size for entry in may_go) < over:
        most = os.environ.get(LIMIT)
        bound = f"{LIMIT} is {most}" if most else f"the disk keeps {_LEAST_FREE:.0%} free"
        raise DataError(
            f"{cache_folder()}: {_gigabytes(needed)} of decoded images do not fit, {_gigabytes(over)} too many "
            f"({bound}): free space, raise {LIMIT}, or name another folder in SCALE_RAY_CACHE"
        )
    going: list[Entry] = []
    for entry in may_go:
        if over <= 0:
            break
        going.append(entry)
        over -= entry.size
    clear_cache(going)


def _room(folder: Path, taken: int) -> float:
    """Bytes that the cache may still take."""
    written = os.environ.get(LIMIT)
    if not written:
        disk = shutil.disk_usage(folder)
        return disk.free - _LEAST_FREE * disk.total
    try:
        limit = float(written)
    except ValueError:
        raise UserError(f"{LIMIT}={written!r} is no number: write how many GB the cache may take, as in 200") from None
    return limit * 1e9 - taken


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
