"""The cache folder: results that are expensive to compute are stored there once, atomically, and read by later runs.

Deleting the folder, or any part of it, is always safe.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import platformdirs
from filelock import FileLock, Timeout

from scale_ray.data.benchmarks import DataError
from scale_ray.data.warn import warn_once
from scale_ray.data.work import in_threads, tell_listeners
from scale_ray.errors import shown
from scale_ray.store.files import StoreError, replace_file

logger = logging.getLogger(__name__)

R = TypeVar("R")

ABANDONED_SECONDS = 24 * 3600
_LOCK_SECONDS = 1.0
_EVICTIONS = 3  # of a folder that was just made, after which it is an error
_STATE = 4  # numbers that `file_state` gives
_TICK_SECONDS = 0.02  # kernels advance the clock of their file systems every 1 to 10 ms


def cache_folder() -> Path:
    """The folder in $SCALE_RAY_CACHE or, if that is not set, `scale_ray` in the user's cache folder."""
    named = os.environ.get("SCALE_RAY_CACHE")
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_cache_dir("scale_ray"))


def open_or_build(
    folder: Path, load: Callable[[Path], R], build: Callable[[Path], None], *, one_builds: bool = False
) -> R:
    """Return `load(folder)`; if the folder is missing or damaged, `build` fills it first.

    Several processes may build at the same time, each in a folder of its own. The first to finish publishes its folder;
    the results of the others are discarded.

    Args:
        folder: a folder of the cache.
        load: reads the folder and returns anything but None. It raises OSError, ValueError, EOFError or KeyError if the
            folder is damaged.
        build: fills the empty folder that is passed to it.
        one_builds: if several processes of this machine need the folder, one builds it and the others wait.

    Raises:
        DataError: the cache folder cannot be written, or a damaged folder cannot be deleted.
    """
    if (loaded := _open(folder, load)) is not None:
        return loaded
    with _lock(folder) if one_builds else nullcontext():
        if one_builds and (loaded := _open(folder, load)) is not None:
            return loaded
        for _ in range(_EVICTIONS):
            with _publishing(folder) as unfinished:
                build(unfinished)
            try:
                return load(folder)
            except FileNotFoundError:  # another process has made room in the meantime
                continue
        return load(folder)


def _open(folder: Path, load: Callable[[Path], R]) -> R | None:
    """`load(folder)`; None if the folder is missing, or if it was damaged and has been deleted."""
    if not folder.is_dir():
        return None
    try:
        loaded = load(folder)
    except (OSError, ValueError, EOFError, KeyError) as error:
        logger.warning("cache %s is damaged (%s): building it again", folder, error)
        discard(folder)
        return None
    with suppress(OSError):  # the modification time is the time of last use; it cannot be set in other users' caches
        os.utime(folder)
    return loaded


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold this machine's lock on building the folder."""
    lock = FileLock(make_folder(cache_folder() / "locks") / folder.name)
    try:
        with suppress(NotImplementedError):  # on a file system without locks every process builds
            _acquire(lock)
    except OSError as error:
        raise _not_written(Path(lock.lock_file), error) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock) -> None:
    """Wait for a lock. That its holder works on, whose own watchdog would end it, is a sign of life of this process."""
    while True:
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            tell_listeners()
        else:
            return


@contextmanager
def _publishing(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which is renamed to `folder` if the block ends without an error, and deleted otherwise."""
    make_folder(folder.parent)
    try:
        _remove_abandoned(folder)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield unfinished
            unfinished.chmod(0o755)  # with mkdtemp's 0700 other users of a shared cache could not read it
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process was faster, and its folder has the same content
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise _not_written(folder, error) from error


def make_folder(folder: Path) -> Path:
    """Create a folder of the cache if it is missing, and return it.

    Raises:
        DataError: it cannot be created.
    """
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
    """Delete a folder or file of the cache. It is renamed first, so that no process opens a partly deleted folder.

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
        pass  # another process has deleted it
    except OSError as error:
        raise DataError(
            f"{path}: cannot be deleted ({error.strerror}): check its owner, or name another folder in SCALE_RAY_CACHE"
        ) from error


def _remove_abandoned(folder: Path) -> None:
    """Delete old unfinished folders of killed processes, which can be gigabytes."""
    for path in folder.parent.glob(f".{folder.name}.*"):
        with suppress(FileNotFoundError):  # its process has finished in the meantime
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def file_digests(folder: Path, names: Sequence[str], *, of: str = "") -> list[str]:
    """sha256 (hex) of the content of each named file, in order.

    Digests are stored in the cache, in one file per folder and purpose. A file with the noted size, times of
    modification and of change, and inode is not read again. No program can set the time of change, so content that
    another program has replaced is always seen. Where the cache cannot be written, digests are computed and not stored.

    Args:
        folder: where the files are.
        names: their paths below it, or absolute ones.
        of: what else uses other files of this folder: a list file, a domain.

    Raises:
        DataError: a file cannot be read.
    """
    folder = folder.resolve()

    def states(wanted: Sequence[str]) -> dict[str, list]:
        return {name: file_state(os.path.join(folder, name)) for name in wanted}

    return noted_digests(
        _digests_file(folder, of),
        names,
        states,
        lambda name: read_bytes(folder / name),
        shown(folder.name),
        let_times_differ,
    )


def noted_digests(
    path: Path,
    names: Sequence[str],
    states: Callable[[Sequence[str]], dict[str, list]],
    read: Callable[[str], bytes],
    what: str,
    settle: Callable[[Sequence[list]], None] = lambda changed: None,
) -> list[str]:
    """sha256 (hex) of the content of each name, in order; content whose state is the noted one is not read again.

    Args:
        path: the file of the cache with states and digests.
        names: what is read.
        states: the state of each name, which changes whenever its content does; of JSON.
        read: gives the content of a name.
        what: describes it in the progress display.
        settle: called with the changed states before they are read.

    Raises:
        DataError: a state or content cannot be read.
    """
    known, found = _read_digests(path), states(names)
    changed = [name for name in names if known.get(name, [])[:-1] != found[name]]
    if changed:
        settle([found[name] for name in changed])

        def digest(name: str) -> str:
            return hashlib.sha256(read(name)).hexdigest()

        fresh = dict(zip(changed, in_threads(digest, changed, f"hashing {what}"), strict=True))
        known = {name: [*found[name], fresh.get(name) or known[name][-1]] for name in names}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(known).encode())
        except (OSError, StoreError) as error:
            reason = error.__cause__ or error
            warn_once(
                f"{path.parent}: digests of files cannot be written ({getattr(reason, 'strerror', None) or reason}): "
                "every process computes them; to keep them, name another folder in SCALE_RAY_CACHE"
            )
    return [known[name][-1] for name in names]


def forget_digests(folder: Path, *, of: str = "") -> None:
    """Compute the digests of a folder's files anew when they are next asked for."""
    forget_noted(_digests_file(folder.resolve(), of))


def forget_noted(path: Path) -> None:
    """Compute what `noted_digests` has noted there anew when it is next asked for."""
    with suppress(OSError):
        path.unlink()


def file_state(path: str) -> list[int]:
    """What changes whenever the content of a file does: size, times of modification and of change in ns, inode.

    Raises:
        DataError: there is no such file, or it cannot be looked at.
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise _not_read(Path(path), error) from error
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def let_times_differ(states: Iterable[list]) -> None:
    """Wait a tick of the file system's clock if a file was just changed: another change in that tick would not show.

    States of other things than files are left alone.
    """
    changes = [state[2] for state in states if len(state) == _STATE]
    if any(abs(time.time_ns() - changed) < _TICK_SECONDS * 1e9 for changed in changes):
        time.sleep(_TICK_SECONDS)


def _digests_file(folder: Path, of: str = "") -> Path:
    return digests_path(os.fsencode(folder) + (b"\n" + os.fsencode(of) if of else b""))


def digests_path(key: bytes) -> Path:
    """The file of the cache in which the digests of that key are noted."""
    return cache_folder() / "file_digests" / f"{hashlib.sha256(key).hexdigest()[:32]}.json"


def _read_digests(path: Path) -> dict[str, list]:
    """File name -> [*_state, sha256], with fewer numbers by older versions; empty if no file can be read."""
    try:
        known = json.loads(path.read_bytes())
        if not isinstance(known, dict) or not all(isinstance(noted, list) for noted in known.values()):
            raise ValueError("it does not hold digests")
        return known
    except OSError:  # there is none, or it is another user's; if it cannot be replaced either, that is said
        return {}
    except (ValueError, RecursionError) as error:
        logger.warning("cache %s is damaged (%s): building it again", path, error)
        return {}


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _not_read(path, error) from error


def _not_read(path: Path, error: OSError) -> DataError:
    return DataError(f"{shown(path)}: cannot be read ({error.strerror}): check the file and its permissions")
