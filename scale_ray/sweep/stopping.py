"""How a study ends by order or with its budget: every training saves its state first.

The driver sets a flag in Ray's own key-value store, which the trials of its cluster ask once a second.
"""

import time
from collections.abc import Callable, Collection

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_exists, _internal_kv_put

from scale_ray.store.orders import Orders
from scale_ray.sweep.queue import StageQueue

# Seconds after which the study ends even where a training has not saved its state: it may hang, or make long steps.
_MOST_SECONDS = 120.0


class StopOrdered(KeyboardInterrupt):
    """The study ends by order, as after Ctrl-C."""


def end_if_ordered(orders: Callable[[], Orders], queue: StageQueue, written: int = 0) -> None:
    """End a run before anything trains, while its data is made ready.

    Args:
        orders: the latest ones.
        queue: learns that something was stored.
        written: bytes that were stored since the last call.

    Raises:
        StopOrdered: the orders say so.
    """
    if written:
        queue.has_saved()
    if orders().stop:
        raise StopOrdered


def is_set(flag: str) -> bool:
    """Whether the driver that set this flag wants its trials to save their state."""
    return bool(_internal_kv_exists(flag.encode()))


class Stopping:
    """Whether a study is ending, and what it still waits for.

    Args:
        flag: a name of the run's own.
        clock: seconds that never go back.
    """

    def __init__(self, flag: str, *, clock: Callable[[], float] = time.monotonic):
        self.flag, self._clock = flag, clock
        self._since: float | None = None
        self._saved: set[str] = set()

    @property
    def begun(self) -> bool:
        return self._since is not None

    def begin(self) -> None:
        """Tell the trials to save their state."""
        if self._since is None:
            self._since = self._clock()
            _internal_kv_put(self.flag.encode(), b"")

    def saved(self, key: str) -> None:
        """The stage has saved its state."""
        if self.begun:
            self._saved.add(key)

    def check(self, training: Collection[str]) -> None:
        """End the study once every stage of these has saved its state, or has had two minutes to do so.

        Args:
            training: keys of the stages that make steps now.

        Raises:
            StopOrdered: it ends.
        """
        if self._since is None:
            return
        if self._saved.issuperset(training) or self._clock() - self._since > _MOST_SECONDS:
            raise StopOrdered

    def end(self) -> None:
        """Take the flag away."""
        if self.begun:
            _internal_kv_del(self.flag.encode())
