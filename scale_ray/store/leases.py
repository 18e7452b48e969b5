"""Leases: several drivers divide the work on one store, so that no two of them do the same part at the same time.

    leases/<key>.<n>.<driver id>  empty; the driver does the work `key`, or is about to; n counts its leases

Guarantee: at most one driver holds a key, as long as the file system shows every write to all readers at once: a local
folder, S3, GCS, or NFS as Linux mounts it. It rests on these rules:

1. To acquire a key, a driver writes its lease and then lists all leases. Only if no other live driver has a lease of
   the key does it hold the key; otherwise it removes its own lease and tries again later. Of two drivers that both have
   written before either lists, both see the other. So both may give way, but never do both proceed.
2. A name is written once: its driver counts its leases, and ids of drivers are random. Whoever lists the names knows
   the holders without reading a file, and what removes a lease, however late, cannot meet one that came after it.
3. A driver that was silent for nearly the expiry acts no more under its id (`alive_for_others`), before any other can
   count it as dead (`scale_ray.store.liveness`). A heartbeat that ends later than that does not count either. So the
   death of an id is final, and all that bears a dead id may be removed at any time.
4. Such a driver (it was paused, suspended, cut off from the store) goes on under a new id. It acquires anew what it
   held, by rule 1, and so keeps what nobody has taken meanwhile. A driver whose announcement was removed does the same.

What a guarantee by leases cannot do: work that was begun under a lease goes on by itself after the lease is lost. A
driver must ask `leased` before it starts or writes anything, and work that runs elsewhere may be done twice. Both
drivers then write the same record, each atomically, so only time is lost. The clock of rule 3 includes the time of a
suspended machine, but not that of a virtual machine whose host stops its clocks: `holds` asks the store.

A file whose name is no lease is left alone, with a warning. A lease of version 0.1.0 (`<key>.<n>`) is such a file.
"""

import logging
import re
import threading
from collections.abc import Iterable
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self
from uuid import uuid4

from scale_ray.store.doing import Doing
from scale_ray.store.files import Files, StoreError
from scale_ray.store.lifeline import Lifeline, remove_lifeline
from scale_ray.store.liveness import DRIVER_ID, Announcement, Clock, Others, announcement, driver_file, uptime

__all__ = ["BEAT_SECONDS", "EXPIRY_SECONDS", "Announcement", "Driver", "live_holders"]

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0

_LEASE = re.compile(rf"(.+)\.\d+\.({DRIVER_ID})")


class _Lease(NamedTuple):
    file: str
    key: str
    driver: str


def live_holders(files: Files) -> dict[str, Announcement]:
    """key -> its holder, for one who only reads the store.

    One look sees no silence: a driver that was killed on another machine counts as alive here.
    """
    others = Others(files, refresh_seconds=BEAT_SECONDS, expiry=EXPIRY_SECONDS)
    leases = [match for name in files.names("leases") if (match := _LEASE.fullmatch(name))]
    found = {match[1]: others.find(match[2]) for match in leases}
    return {key: driver for key, driver in found.items() if driver is not None}


class Driver:
    """One driver on a store. Inside the `with` block it sends heartbeats, and can acquire and release keys.

    Args:
        files: the store's files.
        beat: seconds between two heartbeats.
        expiry: seconds of silence after which a driver counts as dead; must be the same for all drivers of a store.
        clock: seconds that never go back, and go on while the machine is suspended.

    Attributes:
        id: names this driver in the store, from its first heartbeat on; another one after a long silence.
        doing: what it trains, for the next heartbeat to say; replaced by the thread that knows.

    Raises:
        StoreError: from every method, if the store refuses a call or stays unavailable. A failed heartbeat is only
            logged, and the next one is sent as usual: see `alive_for_others`.
    """

    def __init__(
        self, files: Files, *, beat: float = BEAT_SECONDS, expiry: float = EXPIRY_SECONDS, clock: Clock = uptime
    ):
        self._files, self._beat_seconds, self._expiry, self._clock = files, beat, expiry, clock
        self._others = Others(files, refresh_seconds=beat / 3, expiry=expiry, clock=clock)
        self._ids = self._others.own  # its own id and those that it gave up
        self._count = count(1)  # of its leases
        self._held: dict[str, str] = {}  # key -> its lease file
        self._elsewhere: dict[str, set[str]] = {}  # key -> other drivers with a lease of it, by the last listing
        self._named: set[str] = set()  # files that a warning has named
        self._lock = threading.RLock()  # for what changes the own leases
        self._beating = threading.RLock()  # for what changes the own announcement
        self._ended = False
        self._last_beat = float("-inf")
        self.id = ""
        self.doing: Doing | None = None
        self._lifeline: Lifeline | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="driver heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._files.make_folders(["drivers", "leases"])
        self.beat()
        self.look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=self._beat_seconds)
        self.end()

    def end(self) -> None:
        """Release all keys, remove what dead drivers left, and say goodbye."""
        try:
            if self.alive_for_others():  # else the store is unavailable: do not wait for it, the leases expire
                self.release(*self._held)
                self.look()
                self.resign()
        except StoreError as problem:
            logger.warning("the driver's leases stay until they expire: %s", problem)

    def resign(self) -> None:
        """Free all keys for other drivers at once, with one request: without its announcement a driver is dead.

        Nothing may be done under the leases any more. Where the store is out of reach, the lifeline stays: its lock
        ends with this process, which proves its death to drivers on this machine.
        """
        self._stop.set()
        with self._beating:
            self._ended = True
            self._files.delete(driver_file(self.id))
            if self._lifeline is not None:
                self._lifeline.end()

    def alive_for_others(self) -> bool:
        """Whether no other driver can regard this one as dead yet. While False, it must start no new work."""
        return self._clock() - self._last_beat < self._expiry - self._beat_seconds

    def others(self, *, now: bool = False) -> list[Announcement]:
        """The other live drivers (host, pid, start time), as of a few seconds ago.

        Args:
            now: ask the store. Before anything is removed that a driver may need which has just begun.
        """
        if now:
            self._others.refresh()
        return [driver for driver in self._others.alive() if driver.id not in self._ids]

    def heard(self) -> list[Announcement]:
        """The other drivers that give a sign of life while this waits for one, at most until all count as dead.

        One look counts a driver as alive that was killed on another machine, and so does every process that only looks
        once. A driver whose announcement changes and cannot be read is returned after two expiries.
        """
        before, latest = {other.id: other.counter for other in self.others(now=True)}, self._clock() + 2 * self._expiry
        while others := self.others(now=True):
            heard = [other for other in others if other.counter != before.get(other.id)]
            if heard or self._clock() > latest:
                return heard or others
            self._stop.wait(self._beat_seconds / 10)
        return []

    @property
    def alone(self) -> bool:
        """Whether there was no other driver when the announcements were last read. It takes no request."""
        return self._others.known() <= self._ids

    def acquire(self, *keys: str) -> bool:
        """Acquire all of the keys or none; dead drivers' leases are taken over.

        Returns:
            True if this call acquired the keys. Check again whether the work is done, because another driver may have
            finished it before it released a key. False if a driver holds one (this one included) or is about to acquire
            it: try again later, after a time of random length. Always False while this driver is not
            `alive_for_others`.
        """
        with self._lock:
            if not self.alive_for_others() or not self._held.keys().isdisjoint(keys):
                return False
            leases = self._write_leases(keys)
            if len(self._uncontested(leases)) < len(leases):
                self._files.delete_many(leases.values())
                return False
            self._held |= leases
            return True

    def release(self, *keys: str) -> None:
        """Release the keys; do nothing for those that this driver does not hold."""
        with self._lock:
            self._files.delete_many([self._held.pop(key) for key in keys if key in self._held])

    def leased(self, *keys: str) -> bool:
        """Whether this driver still holds all of the keys, by what it knows: it takes no request."""
        return self._held.keys() >= set(keys) and self.alive_for_others()

    def holds(self, key: str) -> bool:
        """Whether this driver still holds the key, which the store is asked as well.

        False after a long silence until the next heartbeat has made sure of the key, and for good if another driver
        has taken it over. Ask before each step that must not be done twice.
        """
        lease = self._held.get(key)
        return lease is not None and self._files.exists(lease) and self.leased(key) and self._held.get(key) == lease

    def elsewhere(self, *keys: str) -> bool:
        """Whether another driver holds one of the keys, as of the last listing: it takes no request."""
        view = self._elsewhere
        return any(self._others.may_live(driver_id) for key in keys for driver_id in view.get(key, ()))

    def holder(self, key: str) -> Announcement | None:
        """The live driver that holds the key, which may be this one; None if there is none."""
        return self._holders(lease for lease in self._list() if lease.key == key).get(key)

    def holders(self) -> dict[str, Announcement]:
        """key -> its live holder, or one that is about to acquire it. One listing for any number of keys."""
        return self._holders(self._list())

    def _holders(self, leases: Iterable[_Lease]) -> dict[str, Announcement]:
        leases = list(leases)
        drivers = {driver_id: self._others.find(driver_id) for driver_id in {lease.driver for lease in leases}}
        drivers[self.id] = self._announcement
        return {lease.key: driver for lease in leases if (driver := drivers[lease.driver]) is not None}

    def look(self) -> None:
        """List all leases, and remove what dead drivers left.

        The number of requests does not grow with the number of leases: one listing of the leases, one of the drivers,
        one reading of each announcement, one deletion for a thousand files.
        """
        found = self._list()
        alive = {driver_id for driver_id in dict.fromkeys(lease.driver for lease in found) if self._is_rival(driver_id)}
        self._note(lease for lease in found if lease.driver in alive)
        with self._lock:  # after it, no lease of the listing is one that is being acquired
            kept = set(self._held.values())
            files = [lease.file for lease in found if lease.driver not in alive and lease.file not in kept]
        dead = [driver_id for driver_id in self._others.dead() if driver_id != self.id]
        self._files.delete_many([*files, *map(driver_file, dead)])
        self._others.forget(dead)  # before the files that prove their deaths go
        for driver_id in dead:
            remove_lifeline(driver_id)

    def beat(self) -> None:
        """Send a heartbeat. After a silence in which others may have counted this driver as dead, change the id."""
        with self._beating:
            if self._ended:  # it must not announce itself again
                return
            if not self.alive_for_others() or not self._files.exists(driver_file(self.id)):
                self._begin_anew()
                return
            began = self._clock()  # the earliest moment at which others can see this heartbeat
            self._announce()
            if self.alive_for_others():  # else the heartbeat came too late: see rule 3
                self._last_beat = began

    def _begin_anew(self) -> None:
        """Take a new id, and acquire again what was held under the last one."""
        with self._lock:
            before, former = self._held, [driver_file(driver_id) for driver_id in sorted(self._ids)]
            self._held, self._last_beat = {}, float("-inf")
            try:
                self._take_id()
                began = self._clock()
                self._announce()
                self._last_beat = began
                leases = self._write_leases(before)
                free = self._uncontested(leases) if leases else set()
                self._held = {key: leases[key] for key in free}
            except StoreError:
                self._held, self._last_beat = before, float("-inf")  # the next heartbeat tries again
                raise
            lost = [lease for key, lease in leases.items() if key not in free]
            self._files.delete_many([*lost, *before.values(), *former])
            if former:
                logger.warning(
                    "this driver goes on under a new id: others have taken %d of its %d leases over",
                    len(lost),
                    len(before),
                )

    def _take_id(self) -> None:
        if self._lifeline is not None:
            self._lifeline.end()
        self.id = uuid4().hex
        self._ids.add(self.id)
        self._lifeline = Lifeline(self.id)
        self._announcement = announcement(self.id, self._lifeline.identity)

    def _announce(self) -> None:
        update = {"counter": self._announcement.counter + 1, "doing": self.doing}
        self._announcement = self._announcement.model_copy(update=update)
        self._files.write(driver_file(self.id), self._announcement.model_dump_json(indent=1).encode())

    def _write_leases(self, keys: Iterable[str]) -> dict[str, str]:
        """key -> the file of a new lease."""
        leases = {key: f"leases/{key}.{next(self._count)}.{self.id}" for key in keys}
        for lease in leases.values():
            self._files.write(lease, b"")
        return leases

    def _uncontested(self, leases: dict[str, str]) -> set[str]:
        """The keys of these leases, which were just written, that no other live driver has a lease of."""
        others = [lease for lease in self._list() if lease.key in leases and lease.file not in leases.values()]
        contested = {lease.key for lease in others if self._is_rival(lease.driver)}
        if not self.alive_for_others():
            return set()
        free = leases.keys() - contested
        # Of dead drivers, and of this one where an earlier release failed. They go before the work begins: see `holds`.
        self._files.delete_many([lease.file for lease in others if lease.key in free])
        return free

    def _is_rival(self, driver_id: str) -> bool:
        return driver_id not in self._ids and self._others.find(driver_id) is not None

    def _list(self) -> list[_Lease]:
        """All leases in the store, by one listing."""
        leases = []
        for name in self._files.names("leases"):
            if match := _LEASE.fullmatch(name):
                leases.append(_Lease(f"leases/{name}", match[1], match[2]))
            elif name not in self._named:
                self._named.add(name)
                logger.warning("%s: no lease: left alone", self._files.locate(f"leases/{name}"))
        self._note(leases)
        return leases

    def _note(self, leases: Iterable[_Lease]) -> None:
        """These are all leases, for `elsewhere`."""
        elsewhere: dict[str, set[str]] = {}
        for lease in leases:
            if lease.driver not in self._ids:
                elsewhere.setdefault(lease.key, set()).add(lease.driver)
        self._elsewhere = elsewhere

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            try:
                self.beat()
                self._others.refresh()  # counts the silence of others even if nothing asks for it
            except StoreError as error:
                logger.warning("driver heartbeat: %s", error)
