"""Which drivers are alive. Each driver announces itself in the store, and the others judge it by its announcement.

    drivers/<id>.json  rewritten with a rising counter at every heartbeat

Clocks of different machines are never compared. On the same host, a driver is dead as soon as its process no longer
exists. On another host, it is dead when its counter has not changed for the expiry, counting only time in which the
observer was able to read the store.
"""

import os
import platform
import threading
import time
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from scale_ray.records import now
from scale_ray.store.files import Files, StoreError


class Announcement(BaseModel):
    """A driver as other drivers see it. Fields that need Linux's /proc are None on other systems."""

    model_config = ConfigDict(frozen=True)

    id: str
    counter: int
    host: str
    pid: int
    since: str  # ISO 8601, UTC, by the clock of its host
    boot: str | None  # identifies the boot of the machine
    pid_namespace: str | None
    process_start: str | None  # clock ticks since boot: distinguishes the process from a later one with its pid


def announcement(driver_id: str) -> Announcement:
    """The announcement of this process as a driver, before its first heartbeat."""
    process = _process(os.getpid())
    return Announcement(
        id=driver_id,
        counter=0,
        host=platform.node(),
        pid=os.getpid(),
        since=now(),
        boot=_boot(),
        pid_namespace=_pid_namespace(),
        process_start=process[1] if process else None,
    )


def driver_file(driver_id: str) -> str:
    """The name of the driver's announcement in the store."""
    return f"drivers/{driver_id}.json"


class Others:
    """What one driver knows about the other drivers of a store.

    Args:
        files: the store's files.
        own_id: id of the observing driver, which is left out.
        refresh_seconds: how long one reading of the announcements stays valid. No driver is declared dead on an older
            one.
        expiry: seconds of silence after which a driver is dead.
    """

    def __init__(self, files: Files, own_id: str, *, refresh_seconds: float, expiry: float):
        self._files, self._own_id, self._refresh_seconds, self._expiry = files, own_id, refresh_seconds, expiry
        # id -> (announcement, seconds of silence). The dict is replaced and never modified, so reads need no lock.
        self._seen: dict[str, tuple[Announcement, float]] = {}
        self._refreshed = float("-inf")
        self._lock = threading.Lock()

    def alive(self) -> list[Announcement]:
        """The live drivers."""
        self._refresh_if_old()
        return [driver for driver, silence in self._seen.values() if not self._is_dead(driver, silence)]

    def dead(self) -> list[str]:
        """Ids of dead drivers whose announcements still exist."""
        self._refresh_if_old()
        return [driver.id for driver, silence in self._seen.values() if self._is_dead(driver, silence)]

    def find(self, driver_id: str) -> Announcement | None:
        """The driver if it is alive, else None. Its announcement is read again before it is declared dead."""
        self._refresh_if_old()
        driver, silence = self._seen.get(driver_id, (None, 0.0))
        if driver is not None and not self._is_dead(driver, silence):
            return driver
        content = self._files.read(driver_file(driver_id))
        if content is None:
            return None
        current = self._parse(driver_file(driver_id), content)
        if driver is not None and current.counter == driver.counter:
            return None
        with self._lock:
            self._seen = self._seen | {driver_id: (current, 0.0)}
        return None if _is_gone(current) else current

    def refresh(self) -> None:
        """Read all announcements, and add to the silence of every driver whose counter has not changed."""
        with self._lock:
            began = time.monotonic()
            names = [f"drivers/{name}" for name in self._files.names("drivers")]
            announced = [self._parse(name, content) for name, content in self._files.read_many(names)]
            # A long gap between two readings says little about the others: the store may have been unavailable to them
            # too, or this process was paused. So one reading counts at most a quarter of the expiry.
            passed = min(began - self._refreshed, self._expiry / 4)
            seen = {}
            for driver in announced:
                before, silence = self._seen.get(driver.id, (None, 0.0))
                same = before is not None and before.counter == driver.counter
                seen[driver.id] = (driver, silence + passed if same else 0.0)
            seen.pop(self._own_id, None)
            self._seen, self._refreshed = seen, time.monotonic()

    def _refresh_if_old(self) -> None:
        if time.monotonic() - self._refreshed >= self._refresh_seconds:
            self.refresh()

    def _is_dead(self, driver: Announcement, silence: float) -> bool:
        return silence >= self._expiry or _is_gone(driver)

    def _parse(self, name: str, content: bytes) -> Announcement:
        try:
            return Announcement.model_validate_json(content)
        except ValidationError as error:
            raise StoreError(
                f"{self._files.locate(name)}: not a driver's announcement ({error.errors()[0]['msg']}): delete it"
            ) from None


def _is_gone(driver: Announcement) -> bool:
    """Whether the driver's process is known to have ended; False if this process cannot tell."""
    if driver.process_start is None:
        return False
    if (driver.boot, driver.pid_namespace, driver.host) != (_boot(), _pid_namespace(), platform.node()):
        return False
    try:
        os.kill(driver.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # the process exists and belongs to another user
    process = _process(driver.pid)
    return process is not None and (process[0] in "ZX" or process[1] != driver.process_start)


def _process(pid: int) -> tuple[str, str] | None:
    """State and start time of a process, from /proc (man 5 proc_pid_stat); None if it cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


@cache
def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


@cache
def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
