"""Ends a process whose training hangs: a collective that waits for a lost GPU, a file system that does not answer.

Such a call never returns, so no exception can end it, and the trial would keep its GPU. When the process ends, the GPU
is free for others, and the stage is tried again from its checkpoint.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from scale_ray.config import Execution
from scale_ray.records import Ran, now
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.training.failures import TrainingHung, leave_failure

_TICK = 1.0  # seconds

EXIT_STATUS = 70


class Watchdog:
    """Counts the seconds since the last sign of life. A pause of the whole process does not count.

    Args:
        seconds: without a sign of life after which the process ends; 0 for never.
        on_hang: called before that, with one sentence; it has a minute to return.

    The count begins with the first sign of life.
    """

    def __init__(self, seconds: float, on_hang: Callable[[str], None]):
        self._seconds, self._on_hang = seconds, on_hang
        # Only the watching thread counts, and only the training notes: neither can undo what the other does.
        self._ticks = 0
        self._last_life: int | None = None  # the tick of the last sign of life; None while nothing is counted
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def beat(self) -> None:
        """A sign of life."""
        self._last_life = self._ticks

    def rest(self) -> None:
        """Count nothing until the next sign of life."""
        self._last_life = None

    def waiting(self, call: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        """The same call, in which no seconds are counted: the training waits for somebody else."""

        def wait(value: dict[str, Any]) -> None:
            self.rest()
            call(value)
            self.beat()

        return wait

    def _watch(self) -> None:
        # Seconds are counted by ticks and not by a clock: a process that was stopped (SIGSTOP) has not hung.
        while not self._over.wait(_TICK):
            self._ticks += 1
            last = self._last_life
            if last is not None and (self._ticks - last) * _TICK > self._seconds:
                self._end()

    def _end(self) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__ or 2)
        told = threading.Thread(
            target=self._on_hang, args=(f"no sign of life for {self._seconds:,.0f} s",), daemon=True
        )
        told.start()
        told.join(timeout=60 * _TICK)  # the store may be what hangs
        os._exit(EXIT_STATUS)


def watching(stage: Stage, execution: Execution, store: Store, ran: Ran) -> Watchdog:
    """A watchdog that leaves the record of a training that hangs."""
    started, began = now(), time.monotonic()

    def leave(problem: str) -> None:
        leave_failure(TrainingHung(problem), stage, execution, store, ran, started, time.monotonic() - began)

    return Watchdog(execution.hang_after, leave)
