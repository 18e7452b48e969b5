"""What a folder of the cache held when it was made: each file's sha256, so that damage is found before it is used."""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from scale_ray.store.files import StoreError, replacing

logger = logging.getLogger(__name__)

NAME = "manifest.json"


def write_manifest(folder: Path, about: str) -> None:
    """Note every file of a finished folder: sha256, size, time of change.

    Args:
        folder: holds files alone.
        about: what they are, for people.
    """
    files = {path.name: {"sha256": _sha256(path), **_state(path)} for path in sorted(folder.iterdir())}
    (folder / NAME).write_text(json.dumps({"about": about, "files": files}))


def check_manifest(folder: Path) -> None:
    """Find out whether the files are as they were written.

    One of the noted size and time of change is not read: gigabytes are hashed when they are written, and again only
    where something touched them.

    Raises:
        ValueError, KeyError: a file has other bytes, or the manifest is damaged or missing.
        OSError: a file is missing or cannot be read.
    """
    manifest = _read(folder)
    touched = False
    for name, noted in manifest["files"].items():
        path = folder / name
        state = _state(path)
        if noted["bytes"] != state["bytes"]:
            raise ValueError(f"{name} has {state['bytes']:,} bytes, not the {noted['bytes']:,} that were written")
        if noted["changed_ns"] != state["changed_ns"]:
            logger.info("%s: touched since it was written: hashing it", path)
            if _sha256(path) != noted["sha256"]:
                raise ValueError(f"the bytes of {name} are not those that were written")
            noted |= state
            touched = True
    if touched:
        with suppress(StoreError), replacing(folder / NAME) as file:  # in a cache of others it is hashed every time
            file.write(json.dumps(manifest).encode())


def read_about(folder: Path) -> str:
    """What the folder holds, for people; empty where that is not known."""
    try:
        return str(_read(folder)["about"])
    except (OSError, ValueError, KeyError):
        return ""


def _read(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"it has no {NAME}, as those of older versions") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"{NAME} is none")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
