"""Which drivers are alive. Each driver announces itself in the store, and the others judge it by its announcement.

    drivers/<id>.json  rewritten with a rising counter at every heartbeat

A driver is dead when its announcement has not changed for the expiry, counting only time in which the observer was able
to read the store, or when it is gone. It is dead at once where its process is known to have ended (`lifeline`). Clocks
of different machines are never compared.

An id comes from the file's name alone. A file whose name is no driver's is left alone, with a warning. An announcement
that cannot be read is that of a driver that says nothing more: it counts as alive until the expiry has passed.
"""

import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scale_ray.records import now
from scale_ray.store.doing import Doing
from scale_ray.store.files import Files
from scale_ray.store.lifeline import is_cut

logger = logging.getLogger(__name__)

DRIVER_ID = "[0-9a-f]{32}"
_FILE = re.compile(rf"({DRIVER_ID})\.json")

Clock = Callable[[], float]


def uptime() -> float:
    """Seconds of a clock that never goes back and includes the time when the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))  # macOS has only the second


class Announcement(BaseModel):
    """A driver as other drivers see it."""

    model_config = ConfigDict(frozen=True)

    id: str = Field("", exclude=True)  # the file's name says it
    counter: int
    host: str
    pid: int
    since: str  # ISO 8601, UTC, by the clock of its host
    lifeline: str | None = None  # see `Lifeline.identity`
    doing: Doing | None = None  # as of the heartbeat; None before the first training


def announcement(driver_id: str, lifeline: str | None) -> Announcement:
    """The announcement of this process as a driver, before its first heartbeat."""
    return Announcement(id=driver_id, counter=0, host=platform.node(), pid=os.getpid(), since=now(), lifeline=lifeline)


def driver_file(driver_id: str) -> str:
    """The name of the driver's announcement in the store."""
    return f"drivers/{driver_id}.json"


@dataclass(frozen=True)
class _Seen:
    driver: Announcement
    content: bytes
    at: float  # when the last reading of it ended
    silence: float = 0.0  # seconds for which the content has been the same


class Others:
    """What one process knows about the drivers of a store.

    Args:
        files: the store's files.
        refresh_seconds: how long one reading of the announcements stays valid. No driver is declared dead on an older
            one.
        expiry: seconds of silence after which a driver is dead.
        clock: seconds that never go back.
    """

    def __init__(self, files: Files, *, refresh_seconds: float, expiry: float, clock: Clock = uptime):
        self._files, self._refresh_seconds, self._expiry, self._clock = files, refresh_seconds, expiry, clock
        # The dict is replaced and never modified, so reads need no lock.
        self._seen: dict[str, _Seen] = {}
        self._refreshed = float("-inf")
        self._lock = threading.Lock()
        self._named: set[str] = set()  # files that a warning has named
        self.own: set[str] = set()  # ids of the observing process: it is alive

    def alive(self) -> list[Announcement]:
        """The live drivers."""
        self._refresh_if_old()
        return [seen.driver for seen in self._seen.values() if not self._is_dead(seen)]

    def dead(self) -> list[str]:
        """Ids of dead drivers whose announcements still exist."""
        self._refresh_if_old()
        return [driver_id for driver_id, seen in self._seen.items() if self._is_dead(seen)]

    def forget(self, dead: Iterable[str]) -> None:
        """These drivers' announcements have been removed."""
        gone = frozenset(dead)
        with self._lock:
            self._seen = {driver_id: seen for driver_id, seen in self._seen.items() if driver_id not in gone}

    def find(self, driver_id: str) -> Announcement | None:
        """The driver if it is alive, else None."""
        self._refresh_if_old()
        seen = self._seen.get(driver_id)
        if seen is None:  # it may have announced itself since
            content = self._files.read(driver_file(driver_id))
            if content is None:
                return None
            seen = _Seen(_parse(driver_id, content), content, self._clock())
            with self._lock:
                self._seen = {driver_id: seen} | self._seen
        return None if self._is_dead(seen) else seen.driver

    def known(self) -> set[str]:
        """Ids of all drivers that were not dead when the announcements were last read. It takes no request."""
        return {driver_id for driver_id in self._seen if self.may_live(driver_id)}

    def may_live(self, driver_id: str) -> bool:
        """False if the driver was dead when the announcements were last read. It takes no request."""
        seen = self._seen.get(driver_id)
        return seen is None or seen.silence < self._expiry

    def refresh(self) -> None:
        """Read all announcements, and add to the silence of every driver whose announcement has not changed."""
        with self._lock:
            began, ids = self._clock(), []
            for name in self._files.names("drivers"):
                if match := _FILE.fullmatch(name):
                    ids.append(match[1])
                elif name not in self._named:
                    self._named.add(name)
                    logger.warning("%s: no driver's announcement: left alone", self._files.locate(f"drivers/{name}"))
            contents = dict(self._files.read_many(map(driver_file, ids)))
            self._seen = {
                driver_id: self._see(driver_id, contents[driver_file(driver_id)], began)
                for driver_id in ids
                if driver_file(driver_id) in contents
            }
            self._refreshed = self._clock()

    def _see(self, driver_id: str, content: bytes, began: float) -> _Seen:
        """What is known about a driver by a reading that began at this moment and has just ended."""
        moment, before = self._clock(), self._seen.get(driver_id)
        if before is None or before.content != content:
            return _Seen(_parse(driver_id, content), content, moment)
        # A long gap between two readings says little about the others: the store may have been unavailable to them
        # too, or this process was paused. So one reading counts at most a quarter of the expiry.
        passed = max(0.0, min(began - before.at, self._expiry / 4))
        return _Seen(before.driver, content, moment, before.silence + passed)

    def _refresh_if_old(self) -> None:
        if self._clock() - self._refreshed >= self._refresh_seconds:
            self.refresh()

    def _is_dead(self, seen: _Seen) -> bool:
        if seen.silence >= self._expiry:
            return True
        return seen.driver.id not in self.own and is_cut(seen.driver.id, seen.driver.lifeline)


def _parse(driver_id: str, content: bytes) -> Announcement:
    try:
        return Announcement.model_validate_json(content).model_copy(update={"id": driver_id})
    except ValidationError:
        return Announcement(id=driver_id, counter=0, host="unknown", pid=0, since="unknown")
