"""A running service: its table, its watches of stores, and the thread that reconciles."""

import asyncio
import logging
import threading
import time
from typing import Any, Self

from scale_ray.config import ConfigError
from scale_ray.service.answers import StudyAnswer
from scale_ray.service.database import OVER, Database, StudyRow
from scale_ray.service.feed import Feed
from scale_ray.service.jobs import Jobs
from scale_ray.service.planner import Planner
from scale_ray.service.reconcile import Reconciler
from scale_ray.service.settings import ServiceSettings
from scale_ray.service.studies import Studies
from scale_ray.service.watch import Counts, StoreWatch
from scale_ray.store import Store
from scale_ray.urls import is_url

logger = logging.getLogger(__name__)

# Seconds between two rounds, and between two looks at a store on an object store, where a listing costs money.
ROUND_SECONDS = 2.0
_LOOK_SECONDS = 10.0


class Service:
    """Everything of a service but its HTTP.

    Args:
        settings: of the service.
        jobs: of the cluster; by default those of `settings.ray`.
        seconds: between two rounds.

    Attributes:
        rounds: how many have ended.
        faults: how many rounds have ended with an error that nobody expected.
    """

    def __init__(self, settings: ServiceSettings, jobs: Jobs | None = None, *, seconds: float = ROUND_SECONDS):
        self.settings, self.database, self.planner = settings, Database(settings.database), Planner()
        self.jobs = jobs or Jobs(settings.ray, settings.python)
        self.studies = Studies(self.database, self.planner, settings)
        self.watches = {
            name: StoreWatch(Store(location, create=True)) for name, location in sorted(settings.stores.items())
        }
        self.reconciler = Reconciler(settings, self.database, self.jobs, self.counts, time.time)
        self.rounds = self.faults = 0
        self._seconds, self._looked = seconds, dict.fromkeys(self.watches, float("-inf"))
        self._viewers: dict[str, int] = dict.fromkeys(self.watches, 0)  # store -> pages that show it
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reconciler", daemon=True)
        self._feeds: dict[str, Feed] = {}
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=30)
        self.planner.close()
        self.database.close()

    def watch_of(self, row: StudyRow) -> StoreWatch:
        """The watch of a study's store.

        Raises:
            ConfigError: the settings do not name the store any more.
        """
        if row.store not in self.watches:
            raise ConfigError(f"study {row.name!r}: its store {row.store!r} is no longer in the service's settings")
        return self.watches[row.store]

    def counts(self, row: StudyRow, fresh: bool) -> Counts:
        """How far a study is, by the last look at its store, or by one now."""
        if fresh:
            self.watch_of(row).look()
        return self.watch_of(row).counts(row.name, row.cells)

    def feed(self, row: StudyRow) -> Feed:
        """What the pages of a study are told."""
        name, watch = row.name, self.watch_of(row)

        def of_study() -> dict[str, Any]:
            lefts = [found.seconds_left for found in watch.doing(name)]
            known = [round(left) for left in lefts if left is not None]
            study = StudyAnswer.of(self.studies.find(name)).model_dump()
            broken = watch.problems(name)
            left = max(known, default=None)
            return {"study": study, "seconds_left": left, "cluster": self.cluster_text(), "broken": broken}

        return self._feeds.setdefault(name, Feed(of_study, lambda: watch.cells(name)))

    def cluster_text(self) -> str:
        """`2 nodes, 12 of 16 CPUs and 3 of 4 GPUs in use`, or why nobody knows."""
        cluster = self.reconciler.cluster
        if self.reconciler.problem or cluster is None:
            return self.reconciler.problem or "not asked yet"
        parts = [
            f"{cluster.used.get(name, 0):g} of {total:g} {name}s" for name, total in cluster.total.items() if total
        ]
        nodes = f"{cluster.nodes} node{'s' if cluster.nodes != 1 else ''}"
        return f"{nodes}, {' and '.join(parts) or 'none of its CPUs'} in use"

    def listen(self, store: str) -> "Listener":
        """For the block, be told of every round, and keep the store's watch up to date."""
        return Listener(self, store)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def _work(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self.round()
            except Exception:
                self.faults += 1
                logger.exception("a round has failed; the next one follows")
            self._over.wait(max(0.0, self._seconds - (time.monotonic() - began)))

    def round(self) -> None:
        """Look at the stores that somebody needs, reconcile, and tell the listeners."""
        needed = {row.store for row in self.database.studies() if row.state not in OVER}
        for name, watch in self.watches.items():
            if (name in needed or self._viewers[name] or not watch.looks) and self._is_due(name):
                self._looked[name] = time.monotonic()
                watch.look()
        self.reconciler.round()
        self.rounds += 1
        for loop, event in list(self._listeners):
            loop.call_soon_threadsafe(event.set)

    def _is_due(self, name: str) -> bool:
        every = _LOOK_SECONDS if is_url(self.watches[name].store.location) else 0.0
        return time.monotonic() - self._looked[name] >= every

    def _enter(self, store: str, listener: tuple[asyncio.AbstractEventLoop, asyncio.Event]) -> None:
        self._viewers[store] += 1
        self._listeners.add(listener)

    def _leave(self, store: str, listener: tuple[asyncio.AbstractEventLoop, asyncio.Event]) -> None:
        self._viewers[store] -= 1
        self._listeners.discard(listener)


class Listener:
    """Waits for rounds of a service, in an event loop."""

    def __init__(self, service: Service, store: str):
        self._service, self._store, self._event = service, store, asyncio.Event()

    def __enter__(self) -> Self:
        self._key = (asyncio.get_running_loop(), self._event)
        self._service._enter(self._store, self._key)
        return self

    def __exit__(self, *_: object) -> None:
        self._service._leave(self._store, self._key)

    async def wait(self, seconds: float) -> bool:
        """Wait for the next round, or so many seconds; return whether there was one."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
