"""Local files that are written as a whole or not at all, and what killed writers leave of them."""

import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# What a killed writer leaves: the file's name, hidden, and eight characters.
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}", re.DOTALL)


# How often a write is tried whose temporary file another process removes as a killed writer's.
_ATTEMPTS = 3


def prove_writable(folder: Path) -> None:
    """Write a file as every later one is written: permissions alone do not say that it works."""
    path = folder / f".proof.{secrets.token_hex(4)}"  # hidden: other drivers list the folder
    try:
        write_whole(path, b"proof")
    finally:
        path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once, flushed to disk before, also beside a process that calls `remove_temporaries`."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _whole_file(path) as file:
                file.write(content)
            return
        except FileNotFoundError:
            if attempt == _ATTEMPTS or not path.parent.is_dir():
                raise


def remove_temporaries(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what killed writers left in a folder. A writer that is at work writes again, see `write_whole`.

    Args:
        folder: its folders are left alone.
        names: remove only what writers of these files left. Only a store's own folders may go without it: elsewhere a
            hidden file of another program may look alike.
    """
    for entry in folder.iterdir():
        found = _TEMPORARY.fullmatch(entry.name)
        if found is None or (names is not None and found[1] not in names):
            continue
        with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
            entry.unlink()


def _new_file(folder: Path, name: str) -> tuple[int, str]:
    """An open descriptor and the path of a new temporary file, with the rights that the umask gives to any new file.

    tempfile would give 0600, which excludes other users of a shared store, and some file systems refuse a chmod.
    """
    while True:
        path = os.fspath(folder / f".{name}.{secrets.token_hex(4)}")
        with suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes `path`, at once, when the block ends without an error, flushed to disk."""
    handle, name = _new_file(path.parent, path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
