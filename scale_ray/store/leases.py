"""Leases: several drivers divide the work on one store, so that no two of them do the same part at the same time.

    leases/<key>.<n>  id of the driver that does the work `key`; the generation n rises with every takeover

Guarantee: at most one live driver holds a key. Exception: a driver that is silent for longer than the expiry (paused,
suspended, cut off from the store) counts as dead, and other drivers take its keys. If it resumes, some work may be done
twice. Both drivers then write the same record, each atomically, so only time is lost. `scale_ray.store.liveness`
decides which drivers are dead.

To acquire a key, a driver creates the lease file of the next generation; exclusive creation lets only one of several
succeed. The driver then reads all leases of the key again. If another live driver holds the key under a different
generation, the driver removes its own lease and backs off, because a slow driver may have acted on an outdated view.
When two drivers collide, both may back off and try again later, but they never both proceed. The file system must make
every write visible to all readers at once: a local folder, S3, GCS, or NFS as Linux mounts it.
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
    """One driver on a store. Inside the `with` block it sends heartbeats, and can acquire and release keys.

    Args:
        files: the store's files.
        beat: seconds between two heartbeats.
        expiry: seconds of silence after which a driver counts as dead; must be the same for all drivers of a store.

    Raises:
        StoreError: from every method, if the store refuses a call or stays unavailable. A failed heartbeat is only
            logged, and the next one is sent as usual: see `alive_for_others`.
    """

    def __init__(self, files: Files, *, beat: float = BEAT_SECONDS, expiry: float = EXPIRY_SECONDS):
        self.id = uuid4().hex
        self._files, self._beat_seconds, self._expiry = files, beat, expiry
        self._announcement = announcement(self.id)
        self._others = Others(files, self.id, refresh_seconds=beat / 3, expiry=expiry)
        self._held: dict[str, str] = {}  # key -> name of its lease file
        self._lock = threading.RLock()
        self._last_beat = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="driver heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._files.make_folders(["drivers", "leases"])
        self._beat()
        self.remove_leftovers()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=self._beat_seconds)
        if not self.alive_for_others():
            return  # the store is unavailable; do not wait for it, the leases expire by themselves
        try:
            for key in list(self._held):
                self.release(key)
            self.remove_leftovers()
            self._files.delete(driver_file(self.id))
        except StoreError as problem:
            logger.warning("the driver's leases stay until they expire: %s", problem)

    def resign(self) -> None:
        """Free all keys for other drivers at once, with one request: without its announcement a driver is dead.

        The process must end then.
        """
        self._stop.set()
        self._files.delete(driver_file(self.id))

    def alive_for_others(self) -> bool:
        """Whether no other driver can regard this one as dead yet. While False, it must start no new work."""
        return _uptime() - self._last_beat < self._expiry - self._beat_seconds

    def others(self) -> list[Announcement]:
        """The other live drivers (host, pid, start time), as of a few seconds ago."""
        return self._others.alive()

    def acquire(self, key: str) -> bool:
        """Acquire the key if no live driver holds it; a dead driver's lease is taken over.

        Returns:
            True if this call acquired the key. Check again whether the work is done, because another driver may have
            finished it before it released the key. False if a driver holds the key (this one included) or is about to
            acquire it: try again later. Always False while this driver is not `alive_for_others`.
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
            # Otherwise an earlier `release` of this driver failed and left its lease. In both cases, check for others.
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
        """Release the key; do nothing if this driver does not hold it."""
        with self._lock:
            lease = self._held.pop(key, None)
            if lease is not None:
                # After a long silence of this driver the file may belong to another one, and must stay.
                self._files.delete(lease, holding=self.id.encode())

    def holder(self, key: str) -> Announcement | None:
        """The live driver that holds the key, which may be this one; None if there is none."""
        return self.holders().get(key)

    def holders(self) -> dict[str, Announcement]:
        """key -> its live holder, for every key that has one. It takes one listing for any number of keys."""
        found = {key: map(self._find, leases.values()) for key, leases in self._leases().items()}
        return {key: driver for key, drivers in found.items() for driver in drivers if driver is not None}

    def remove_leftovers(self) -> None:
        """Remove the leases and announcements of dead drivers."""
        with self._lock:
            for key, leases in self._leases().items():
                # Acquire before removing: otherwise the file could by now be a live driver's lease of the same name.
                if not self._anyone_alive(leases) and self.acquire(key):
                    self.release(key)
            for driver_id in self._others.dead():
                self._files.delete(driver_file(driver_id))

    def _anyone_alive(self, leases: dict[str, str]) -> bool:
        return any(self._find(driver_id) is not None for driver_id in leases.values())

    def _find(self, driver_id: str) -> Announcement | None:
        return self._announcement if driver_id == self.id else self._others.find(driver_id)

    def _leases(self) -> dict[str, dict[str, str]]:
        """key -> lease file -> id of its driver, for all leases in the store."""
        names = self._files.names("leases")
        found: dict[str, dict[str, str]] = {_key(name): {} for name in names}
        for lease, driver_id in self._read(names):
            found[_key(lease)][lease] = driver_id
        return found

    def _leases_of(self, key: str) -> dict[str, str]:
        """lease file -> id of its driver, for all leases of the key."""
        return dict(self._read([name for name in self._files.names("leases") if _key(name) == key]))

    def _read(self, names: list[str]) -> Iterator[tuple[str, str]]:
        for lease, driver_id in self._files.read_many(f"leases/{name}" for name in names):
            yield lease, driver_id.decode()

    def _beat(self) -> None:
        began = _uptime()  # the earliest moment at which others can see this heartbeat
        self._announcement = self._announcement.model_copy(update={"counter": self._announcement.counter + 1})
        self._files.write(driver_file(self.id), self._announcement.model_dump_json(indent=1).encode())
        self._last_beat = began

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            try:
                self._beat()
                self._others.refresh()  # counts the silence of others even if nothing asks for it
            except StoreError as error:
                logger.warning("driver heartbeat: %s", error)


def _key(lease: str) -> str:
    return lease.removeprefix("leases/").rpartition(".")[0]


def _generation(lease: str) -> int:
    return int(lease.rpartition(".")[2])


def _uptime() -> float:
    """Seconds of a monotonic clock that includes the time when the machine is suspended, if the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
