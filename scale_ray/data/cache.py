"""The cache folder: what is costly to make is made once, whole or not at all, and read by every later run.

Deleting the folder, or any part of it, is always safe.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import platformdirs
from filelock import FileLock
from rich.console import Console
from rich.progress import track

from scale_ray.data.benchmarks import DataError
from scale_ray.store.files import replacing

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

ABANDONED_SECONDS = 24 * 3600
_PLAIN_LINE_SECONDS = 10


def cache_folder() -> Path:
    """The folder named by $SCALE_RAY_CACHE, or the user's cache folder."""
    named = os.environ.get("SCALE_RAY_CACHE")
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_cache_dir("scale_ray"))


def open_or_build(
    folder: Path, load: Callable[[Path], R], build: Callable[[Path], None], *, one_builds: bool = False
) -> R:
    """`load(folder)`, after `build` has filled it where it is missing or damaged.

    Processes may race: each builds apart, the first one's folder stays, the others' work is dropped.

    Args:
        folder: a folder of the cache.
        load: reads it, and returns anything but None; raises OSError, ValueError, EOFError or KeyError where it is
            damaged.
        build: fills the empty folder that it is given.
        one_builds: of several processes on a machine one builds and the others wait.
    """
    if (loaded := _open(folder, load)) is not None:
        return loaded
    with _alone(folder) if one_builds else nullcontext():
        if one_builds and (loaded := _open(folder, load)) is not None:
            return loaded
        with _publishing(folder) as unfinished:
            build(unfinished)
        return load(folder)


def _open(folder: Path, load: Callable[[Path], R]) -> R | None:
    """None where it is missing, or damaged and now gone."""
    if not folder.is_dir():
        return None
    try:
        loaded = load(folder)
    except (OSError, ValueError, EOFError, KeyError) as error:
        logger.warning("cache %s is damaged (%s): it is made anew", folder, error)
        discard(folder)
        return None
    with suppress(OSError):  # its time says when it was last used; in a cache of others it stays
        os.utime(folder)
    return loaded


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine is making the folder."""
    lock = FileLock(make_folder(cache_folder() / "locks") / folder.name)
    try:
        with suppress(NotImplementedError):  # a file system without locks: each builds apart
            lock.acquire()
    except OSError as error:
        raise _not_written(Path(lock.lock_file), error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _publishing(folder: Path) -> Iterator[Path]:
    """A new folder that becomes `folder`, in one move, when the block ends without an error."""
    make_folder(folder.parent)
    try:
        _remove_abandoned(folder)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield unfinished
            unfinished.chmod(0o755)  # mkdtemp's 0700 would lock colleagues out of a shared cache
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first, and its folder holds the same
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise _not_written(folder, error) from error


def make_folder(folder: Path) -> Path:
    """The folder of the cache, made where it is missing; DataError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(folder, error) from error
    return folder


def _not_written(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder}: cannot be written ({error.strerror}): free space, or name another folder in SCALE_RAY_CACHE"
    )


def discard(path: Path) -> None:
    """Move a folder or file of the cache out of the way in one step, so that nobody opens half of it, and delete it.

    Raises:
        DataError: it cannot be deleted.
    """
    try:
        away = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            path.rename(away / path.name)
        finally:
            shutil.rmtree(away, ignore_errors=True)
    except FileNotFoundError:
        pass  # another process was quicker
    except OSError as error:
        raise DataError(
            f"{path}: cannot be deleted ({error.strerror}): check whose it is, or name another folder in "
            "SCALE_RAY_CACHE"
        ) from error


def _remove_abandoned(folder: Path) -> None:
    """Delete what killed processes left unfinished: it can be gigabytes."""
    for path in folder.parent.glob(f".{folder.name}.*"):
        with suppress(FileNotFoundError):  # its process has just finished
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def file_digests(folder: Path, names: Sequence[str]) -> list[str]:
    """sha256 (hex) of the bytes of each named file, in order.

    Digests are kept in the cache, one file a folder: what has the same size and time of change is not read again.

    Raises:
        DataError: a file cannot be read.
    """
    folder = folder.resolve()
    kept_at = cache_folder() / "file_digests" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"
    make_folder(kept_at.parent)
    kept = _read_kept(kept_at)
    stats = {name: (folder / name).stat() for name in names}
    states = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    changed = [name for name in names if kept.get(name, [])[:2] != states[name]]
    if changed:

        def digest(name: str) -> str:
            return hashlib.sha256(read_bytes(folder / name)).hexdigest()

        fresh = dict(zip(changed, in_threads(digest, changed, f"hashing {folder.name}"), strict=True))
        kept = {name: [*states[name], fresh.get(name) or kept[name][2]] for name in names}
        with replacing(kept_at) as file:
            file.write(json.dumps(kept).encode())
    return [kept[name][2] for name in names]


def _read_kept(path: Path) -> dict[str, list]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logger.warning("cache %s is damaged (%s): it is made anew", path, error)
        return {}


def read_bytes(path: Path) -> bytes:
    """A file's content; DataError where the file system does not give it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the file and its permissions") from error


def in_threads(
    work: Callable[[T], R], items: Sequence[T], what: str, *, threads: int | None = None, together: int = 256
) -> Iterator[R]:
    """`work(item)` for each item, in order; progress is shown on stderr.

    Args:
        threads: how many work; None is one for every CPU that this process may use.
        together: how many results may wait in memory.
    """

    def results() -> Iterator[R]:
        pool = ThreadPoolExecutor(threads or cpus())
        try:
            for start in range(0, len(items), together):
                yield from pool.map(work, items[start : start + together])
        finally:
            pool.shutdown(cancel_futures=True)

    return progress(results(), len(items), what)


def cpus() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, with a bar on stderr where it is a terminal, and a plain line now and then where it is not."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, description=what, total=total, console=console, transient=True)
        return
    print(f"{what}: {total:,}", file=sys.stderr)
    next_line = time.monotonic() + _PLAIN_LINE_SECONDS
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() > next_line:
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr)
            next_line = time.monotonic() + _PLAIN_LINE_SECONDS
