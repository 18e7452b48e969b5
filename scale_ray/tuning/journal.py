"""Optuna's journal in a file of the store: JSON lines, each with the sha256 of what is before it in the line.

Lines without a digest are of earlier versions or of Optuna's dashboard, and are taken as they are.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from scale_ray.store import StoreError


def open_journal(path: Path, *, writing: bool = True) -> JournalStorage:
    """The journal at a path, created where it is missing. A writing caller must be the only driver that writes to it.

    Args:
        path: of the file.
        writing: False leaves the file as it is, with the half line that another driver may be writing now.

    Raises:
        StoreError: the file cannot be read or written, or is no whole journal.
    """
    try:
        if writing:
            _drop_torn_line(path)
        _check_lines(path, whole=writing)
        # The other lock that Optuna has is a symbolic link, which some file systems lack.
        return JournalStorage(_Backend(str(path), lock_obj=JournalFileOpenLock(str(path))))
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}): check the file and its permissions") from None
    except Exception as error:  # of what Optuna makes of the lines, which may be anybody's
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise StoreError(f"{path}: not a readable journal ({reason}): {remedy(path)}") from error


def remedy(path: Path) -> str:
    """What to do with a journal that nobody can go on with."""
    return f"move {path.parent} away and run the search again; its records stay"


class _Backend(JournalFileBackend):
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs([{**log, "sha256": _digest(log)} for log in logs])
        except OSError as error:
            raise StoreError(f"{self._file_path}: cannot be written ({error.strerror}): check its disk") from None


def _drop_torn_line(path: Path) -> None:
    """Remove half a line that a killed writer may have left: the next entry would be appended to it."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def _check_lines(path: Path, *, whole: bool) -> None:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not whole and not line.endswith(b"\n"):
                break
            try:
                log = json.loads(line)
                digest = log.pop("sha256", None)
            except (ValueError, AttributeError, TypeError, RecursionError):
                raise ValueError(f"line {number} is no entry") from None
            if digest not in (None, _digest(log)):
                raise ValueError(f"the bytes of line {number} are not those that were written")


def _digest(log: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(log, separators=(",", ":")).encode()).hexdigest()
