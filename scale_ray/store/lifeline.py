"""Proof that a process has ended: a locked file of its machine, which the kernel unlocks when the process ends.

Process ids and names of machines prove nothing here: clones of a machine and containers may share them. A file of this
machine that is the announced one and that nobody locks does. Where the file cannot be made or seen, there is no proof.
"""

import fcntl
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path


class Lifeline:
    """A locked file in the machine's temporary folder, named by a driver's id. It ends with this process.

    Attributes:
        identity: of the file, for `is_cut`: boot of the machine, device, inode. None where no such file can be made.
    """

    def __init__(self, driver_id: str):
        self.identity: str | None = None
        self._path, self._handle = _path(driver_id), -1
        if _boot() is None:
            return
        with suppress(OSError):
            self._handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)  # closed in child programs
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.identity = _identity(self._handle)

    def end(self) -> None:
        """Remove the file and its lock."""
        if self._handle >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._handle)
            self._handle = -1


def is_cut(driver_id: str, identity: str | None) -> bool:
    """Whether the process that made this lifeline is known to have ended; False if this process cannot tell."""
    if identity is None:
        return False
    try:
        handle = os.open(_path(driver_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # another machine's, or of another user
    try:
        if _identity(handle) != identity:
            return False  # a copy
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def remove_lifeline(driver_id: str) -> None:
    """Remove the file of a dead driver, if it is on this machine and of this user."""
    with suppress(OSError):
        _path(driver_id).unlink(missing_ok=True)


def _path(driver_id: str) -> Path:
    return Path(tempfile.gettempdir(), f"scale_ray-driver-{driver_id}")


def _identity(handle: int) -> str:
    status = os.fstat(handle)
    return f"{_boot()} {status.st_dev} {status.st_ino}"


@cache
def _boot() -> str | None:
    """Names the boot of the machine: its temporary folder may be shared with others, or outlive the boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
