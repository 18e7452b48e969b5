"""Leases: several drivers on one store share the work out, and do no part of it twice at the same time.

    leases/<key>.<n>  who does the work `key`, by driver id; n rises with every takeover

The guarantee: at most one live driver holds a key. The exception: a driver that was silent for longer than the expiry
(paused, suspended, cut off from the store) counts as dead, and others take its keys. If it comes back, some work may be
done twice. Both write the same record, each whole: time is lost and nothing else. Who is dead: see `drivers`.

A key is taken by creating its next generation, which only one of several can do; then the taker looks again, and gives
way if anybody alive has the key under another generation: somebody slow may have acted on what it saw long ago. So of
two who meet both may give way, and ask again later; never do both go on. It needs a file system on which everybody sees
at once what anybody wrote: a local folder, S3, GCS, NFS as Linux mounts it.
"""

import logging
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self
from uuid import uuid4

from scale_ray.store.files import Files, StoreError
from scale_ray.store.liveness import Announcement, Others, announcement, driver_file

__all__ = ["BEAT_SECONDS", "EXPIRY_SECONDS", "Announcement", "Driver"]

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0


class Driver:
    """One driver on a store, from `with` to its end: announces itself, takes keys and gives them back.

    Args:
        files: of the store.
        beat: seconds between two heartbeats.
        expiry: seconds of silence after which a driver counts as dead; the same for all drivers of a store.

    Raises:
        StoreError: by every method, where the store refuses or stays out of reach. A heartbeat that fails is logged and
            tried again: see `alive_for_others`.
    """

    def __init__(self, files: Files, *, beat: float = BEAT_SECONDS, expiry: float = EXPIRY_SECONDS):
        self.id = uuid4().hex
        self._files, self._beat_seconds, self._expiry = files, beat, expiry
        self._announcement = announcement(self.id)
        self._others = Others(files, self.id, look_every=beat / 3, expiry=expiry)
        self._held: dict[str, str] = {}  # key -> its lease
        self._lock = threading.RLock()
        self._last_beat = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="driver heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._files.make_folders(["drivers", "leases"])
        self._beat()
        self.sweep()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=self._beat_seconds)
        if not self.alive_for_others():
            return  # the store is out of reach: no good to wait for it here, as what is left expires
        try:
            for key in list(self._held):
                self.release(key)
            self.sweep()
            self._files.delete(driver_file(self.id))
        except StoreError as problem:
            logger.warning("the driver's traces stay until they expire: %s", problem)

    def alive_for_others(self) -> bool:
        """Whether no other driver can take this one for dead. If not, it must hand out no new work until it can."""
        return _uptime() - self._last_beat < self._expiry - self._beat_seconds

    def others(self) -> list[Announcement]:
        """The other live drivers (host, pid, since when), as of a few seconds ago."""
        return self._others.alive()

    def acquire(self, key: str) -> bool:
        """Take the key, of a dead driver too. False: somebody has it, this driver included, or is just taking it.

        After True look again whether the work is done: it may have been finished before the key came free. After False
        ask again later. Always False while this driver is not `alive_for_others`.
        """
        with self._lock:
            if key in self._held or not self.alive_for_others():
                return False
            found = self._leases_of(key)
            lease = next((name for name, driver_id in found.items() if driver_id == self.id), None)
            if lease is None:
                if self._anyone_alive(found):
                    return False
                lease = f"leases/{key}.{1 + max(map(_generation, found), default=0)}"
                if not self._files.create(lease, self.id.encode()):
                    return False
            # Else a lease of ours that could not be given back. In both cases: are we alone?
            found = self._leases_of(key)
            found.pop(lease, None)
            if self._anyone_alive(found) or not self.alive_for_others():
                self._files.delete(lease, holding=self.id.encode())
                return False
            for old in found:
                self._files.delete(old)
            self._held[key] = lease
            return True

    def release(self, key: str) -> None:
        """Give the key back; nothing where this driver does not have it."""
        with self._lock:
            lease = self._held.pop(key, None)
            if lease is not None:
                # Another's by now if this driver was silent for too long: then it is not ours to remove.
                self._files.delete(lease, holding=self.id.encode())

    def holder(self, key: str) -> Announcement | None:
        """The live driver that has the key; this one too."""
        return self.holders().get(key)

    def holders(self) -> dict[str, Announcement]:
        """The live driver of every key that has one: one listing, whatever the number of keys."""
        found = {key: map(self._find, leases.values()) for key, leases in self._leases().items()}
        return {key: driver for key, drivers in found.items() for driver in drivers if driver is not None}

    def sweep(self) -> None:
        """Remove what dead drivers left."""
        with self._lock:
            for key, leases in self._leases().items():
                # Taken and given back: a file removed without that could be a newer one of its name, and somebody's.
                if not self._anyone_alive(leases) and self.acquire(key):
                    self.release(key)
            for driver_id in self._others.dead():
                self._files.delete(driver_file(driver_id))

    def _anyone_alive(self, leases: dict[str, str]) -> bool:
        return any(self._find(driver_id) is not None for driver_id in leases.values())

    def _find(self, driver_id: str) -> Announcement | None:
        return self._announcement if driver_id == self.id else self._others.find(driver_id)

    def _leases(self) -> dict[str, dict[str, str]]:
        """key -> lease -> id of its driver, of all leases there are."""
        names = self._files.names("leases")
        found: dict[str, dict[str, str]] = {_key(name): {} for name in names}
        for lease, driver_id in self._read(names):
            found[_key(lease)][lease] = driver_id
        return found

    def _leases_of(self, key: str) -> dict[str, str]:
        """lease -> id of its driver, of all leases of the key."""
        return dict(self._read([name for name in self._files.names("leases") if _key(name) == key]))

    def _read(self, names: list[str]) -> Iterator[tuple[str, str]]:
        for lease, driver_id in self._files.read_many(f"leases/{name}" for name in names):
            yield lease, driver_id.decode()

    def _beat(self) -> None:
        began = _uptime()  # others may see the beat as early as this
        self._announcement = self._announcement.model_copy(update={"counter": self._announcement.counter + 1})
        self._files.write(driver_file(self.id), self._announcement.model_dump_json(indent=1).encode())
        self._last_beat = began

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            try:
                self._beat()
                self._others.look()  # so that silence is counted whether or not anybody asks
            except StoreError as error:
                logger.warning("driver heartbeat: %s", error)


def _key(lease: str) -> str:
    return lease.removeprefix("leases/").rpartition(".")[0]


def _generation(lease: str) -> int:
    return int(lease.rpartition(".")[2])


def _uptime() -> float:
    """Seconds of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
