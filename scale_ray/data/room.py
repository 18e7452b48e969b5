"""Room in the cache: what was not used for longest goes where a decoded domain needs its place."""

import math
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import cache_folder, make_folder
from scale_ray.data.cached import KINDS, cache_entries, clear_cache
from scale_ray.errors import UserError

LIMIT = "SCALE_RAY_CACHE_GB"

# What was opened within this time may be read by a training: it stays.
_IN_USE_SECONDS = 600

# What can be made again from images or fetched from a store, and is large.
_MAY_GO = (KINDS["decoded"], KINDS["features"])


def make_room(needed: int) -> None:
    """Delete decoded images and features until so many bytes fit into the cache, the least recently used first.

    The cache may take what $SCALE_RAY_CACHE_GB says; without it, the whole disk. What was opened within the last ten
    minutes stays, so that a limit which is too low for one study is told, and not paid for by every trial. Two
    processes that make room at a time may both count the same free space: then a disk without any limit may fill up.

    Raises:
        DataError: it does not fit even if all that may go goes. Nothing is deleted then.
        UserError: the limit is no number of GB.
    """
    entries = cache_entries()
    over = needed - _room(make_folder(cache_folder()), sum(entry.size for entry in entries))
    if over <= 0:
        return
    recent = time.time() - _IN_USE_SECONDS
    idle = (entry for entry in entries if entry.kind in _MAY_GO and entry.used < recent)
    may_go = sorted(idle, key=lambda entry: entry.used)
    if sum(entry.size for entry in may_go) < over:
        most = os.environ.get(LIMIT)
        bound = f"{LIMIT} is {most}" if most else "the disk is full"
        raise DataError(
            f"{cache_folder()}: {_gigabytes(needed)} of decoded images do not fit, {_gigabytes(over)} too many "
            f"({bound}): free space, raise {LIMIT}, or name another folder in SCALE_RAY_CACHE"
        )
    for entry in may_go:
        if over <= 0:
            break
        with suppress(DataError):  # another user's, in a shared cache
            clear_cache([entry])
            over -= entry.size


def _room(folder: Path, taken: int) -> float:
    """Bytes that the cache may still take."""
    written = os.environ.get(LIMIT)
    if not written:
        return shutil.disk_usage(folder).free
    try:
        limit = float(written)
    except ValueError:
        limit = math.nan
    if not (math.isfinite(limit) and limit > 0):
        raise UserError(f"{LIMIT}={written!r}: write how many GB the cache may take, as in 200")
    return limit * 1e9 - taken


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
