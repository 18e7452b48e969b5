"""Manifests of cache folders: the sha256 of every file, so that a damaged file is detected before it is used."""

import hashlib
import json
import logging
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from scale_ray.store.files import StoreError, replace_file

logger = logging.getLogger(__name__)

NAME = "manifest.json"


def write_manifest(folder: Path, about: str) -> None:
    """Write the manifest of a finished folder: sha256, size, times and inode of every file.

    Args:
        folder: contains files only.
        about: description of the content, as text.
    """
    files = {path.name: {"sha256": _sha256(path), **_state(path)} for path in sorted(folder.iterdir())}
    (folder / NAME).write_text(json.dumps({"about": about, "files": files}))


def check_manifest(folder: Path) -> None:
    """Check that the files are those that were written.

    A file with the recorded size, times and inode is not read. One with other times or another inode, as in a copy of
    the cache or under a manifest of an older version, is hashed and, if its content is unchanged, recorded as it is.
    Where the manifest cannot be written, this process remembers it.

    Raises:
        ValueError, KeyError: the content of a file has changed, or the manifest is damaged or missing.
        OSError: a file is missing or cannot be read.
    """
    manifest = _read(folder)
    outdated = False
    for name, recorded in manifest["files"].items():
        path = folder / name
        state = _state(path)
        if recorded["bytes"] != state["bytes"]:
            raise ValueError(f"{name} has {state['bytes']:,} bytes, not the {recorded['bytes']:,} that were written")
        if any(recorded.get(key) != value for key, value in state.items()):
            if _digest(path, tuple(state.values())) != recorded["sha256"]:
                raise ValueError(f"the bytes of {name} are not those that were written")
            recorded |= state
            outdated = True
    if outdated:
        with suppress(StoreError):  # not writable in other users' caches
            replace_file(folder / NAME, json.dumps(manifest).encode())


def read_about(folder: Path) -> str:
    """The description of the folder's content; empty if there is no readable manifest."""
    try:
        return str(_read(folder)["about"])
    except (OSError, ValueError, KeyError):
        return ""


def _read(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"it has no {NAME}; an older version has written it") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"{NAME} is not a manifest")
    return manifest


@cache
def _digest(path: Path, state: tuple[int, ...]) -> str:
    logger.info("%s: its times or its inode have changed: hashing it", path)
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {
        "bytes": stat.st_size,
        "changed_ns": stat.st_mtime_ns,
        "status_changed_ns": stat.st_ctime_ns,
        "inode": stat.st_ino,
    }
