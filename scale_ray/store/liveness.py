"""Which drivers are alive: each announces itself in the store, and is judged by what it lets others see.

    drivers/<id>.json  rewritten all the time with a rising counter

No clocks of different machines are compared. A driver is dead at once where its process is seen to be gone, which needs
the same host; elsewhere when its counter stood still for the expiry while the observer was able to look.
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
    """A driver as others see it. What only Linux tells is None elsewhere."""

    model_config = ConfigDict(frozen=True)

    id: str
    counter: int
    host: str
    pid: int
    since: str  # ISO 8601, UTC, by its own clock
    boot: str | None  # which start of the machine
    pid_namespace: str | None
    process_start: str | None  # ticks after boot: tells the process from a later one of the same pid


def announcement(driver_id: str) -> Announcement:
    """This process as a driver, before its first heartbeat."""
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
    """The announcement's name in the store."""
    return f"drivers/{driver_id}.json"


class Others:
    """What one driver knows of the others.

    Args:
        files: of the store.
        own_id: the driver that is not another.
        look_every: seconds for which a look at the announcements is good; nothing is called dead on an old one.
        expiry: seconds of silence after which a driver is dead.
    """

    def __init__(self, files: Files, own_id: str, *, look_every: float, expiry: float):
        self._files, self._own_id, self._look_every, self._expiry = files, own_id, look_every, expiry
        self._seen: dict[str, tuple[Announcement, float]] = {}  # with seconds of silence; replaced, never changed
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def alive(self) -> list[Announcement]:
        """The live ones, by id."""
        self._look_if_old()
        return [driver for driver, silence in self._seen.values() if not self._is_dead(driver, silence)]

    def dead(self) -> list[str]:
        """Ids of those that are dead and whose announcements are still there."""
        self._look_if_old()
        return [driver.id for driver, silence in self._seen.values() if self._is_dead(driver, silence)]

    def find(self, driver_id: str) -> Announcement | None:
        """The driver if it is alive; before it is called dead, or gone, its announcement is read again."""
        self._look_if_old()
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

    def look(self) -> None:
        """Read all announcements, and count the silence of those that say what they said before."""
        with self._lock:
            began = time.monotonic()
            names = [f"drivers/{name}" for name in self._files.names("drivers")]
            announced = [self._parse(name, content) for name, content in self._files.read_many(names)]
            # A gap in which this observer did not look says little about others: the store may have been out of reach
            # for them too, or this process paused. So expiry takes several looks.
            passed = min(began - self._looked, self._expiry / 4)
            seen = {}
            for driver in announced:
                before, silence = self._seen.get(driver.id, (None, 0.0))
                same = before is not None and before.counter == driver.counter
                seen[driver.id] = (driver, silence + passed if same else 0.0)
            seen.pop(self._own_id, None)
            self._seen, self._looked = seen, time.monotonic()

    def _look_if_old(self) -> None:
        if time.monotonic() - self._looked >= self._look_every:
            self.look()

    def _is_dead(self, driver: Announcement, silence: float) -> bool:
        return silence >= self._expiry or _is_gone(driver)

    def _parse(self, name: str, content: bytes) -> Announcement:
        try:
            return Announcement.model_validate_json(content)
        except ValidationError as error:
            raise StoreError(
                f"{self._files.locate(name)}: no driver's announcement ({error.errors()[0]['msg']}): delete it"
            ) from None


def _is_gone(driver: Announcement) -> bool:
    """Whether its process is seen to be no more; False where this process cannot see it."""
    if driver.process_start is None:
        return False
    if (driver.boot, driver.pid_namespace, driver.host) != (_boot(), _pid_namespace(), platform.node()):
        return False
    try:
        os.kill(driver.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's: it is there
    process = _process(driver.pid)
    return process is not None and (process[0] in "ZX" or process[1] != driver.process_start)


def _process(pid: int) -> tuple[str, str] | None:
    """State and start time of a process, from /proc (man 5 proc_pid_stat); None where there is none to read."""
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
