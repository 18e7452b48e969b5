"""Tells one tracker in a thread of its own, so that a tracker that is slow or away holds up nobody else."""

import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

from scale_ray.track.content import Outcome, Run
from scale_ray.track.tracker import Tracker
from scale_ray.track.trackers import reason

# Seconds for which a tracker is told nothing after it has failed.
_PAUSE = 30.0

# Seconds of waiting at the end after which it is said what the wait is for.
_SAY_AFTER = 5.0


class _Work(NamedTuple):
    """What a sender is to do."""

    do: Callable[[], None]
    needed: bool  # it brings a record, which the tracker lacks without it
    tries: bool  # it is done even where the tracker has just failed


class Sender:
    """Tells one tracker, in a thread of its own, what is put to it, and gets over whatever the tracker raises.

    Attributes:
        lacks: whether the tracker lacks what a record says.
    """

    def __init__(self, shown: str, tracker: Tracker, say: Callable[[str], None]):
        self.shown, self.tracker, self.lacks = shown, tracker, False
        self._say = say
        self._begun: dict[str, Run] = {}
        self._works = SimpleQueue[_Work | None]()
        self._pause_until, self._warned = 0.0, False
        self._moved = time.monotonic()
        self._thread = Thread(target=self._work_off, name=f"tell {shown}", daemon=True)
        self._thread.start()

    def put(self, do: Callable[[], None], *, needed: bool = False, tries: bool = False) -> None:
        """Do this after what was put before; see `_Work`."""
        self._works.put(_Work(do, needed, tries))

    def close(self) -> None:
        """Leave the runs that have no record, and end."""
        self.put(self._leave_all)
        self.put(self.tracker.close, tries=True)
        self._works.put(None)

    def ended(self, seconds: float) -> bool:
        """Wait for the end, for so many seconds without any progress; whether it has come."""
        begun = time.monotonic()
        self._thread.join(min(seconds, _SAY_AFTER))
        if self._thread.is_alive() and seconds > _SAY_AFTER:
            self._say(f"{self.shown}: still sending")
        while self._thread.is_alive() and time.monotonic() - max(begun, self._moved) < seconds:
            self._thread.join(0.1)
        return not self._thread.is_alive()

    # In the thread

    def has(self, cell: str) -> None:
        """The tracker shows the record of this cell."""
        self._begun.pop(cell, None)
        self._moved = time.monotonic()

    def begin(self, run: Run) -> None:
        if run.cell not in self._begun:
            self.tracker.begin(run)
            self._begun[run.cell] = run

    def point(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self.begin(run)
        self.tracker.add(run, step, metrics)

    def end(self, run: Run, outcome: Outcome) -> None:
        self.tracker.end(run, outcome)
        self.has(run.cell)

    def leave(self, run: Run, reason: str) -> None:
        if self._begun.pop(run.cell, None) is not None:
            self.tracker.leave(run, reason)

    def _leave_all(self) -> None:
        for run in list(self._begun.values()):
            self.leave(run, "interrupted")

    def _work_off(self) -> None:
        while (work := self._works.get()) is not None:
            if not work.tries and time.monotonic() < self._pause_until:
                self.lacks |= work.needed
                continue
            try:
                work.do()
                self._moved = time.monotonic()
            except Exception as error:  # noqa: BLE001 - of the tracker's own package, which has errors of every kind
                self._pause_until = time.monotonic() + _PAUSE
                self.lacks |= work.needed
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._say(f"warning: {self.shown}: {reason(error)}: the study goes on, and what is missed is sent later")
