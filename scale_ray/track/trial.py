"""Tells trackers of one training in this process, without Ray."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from scale_ray.cell import Cell
from scale_ray.records import CurvePoint, Record
from scale_ray.store import Store
from scale_ray.track.sending import UNPLANNED
from scale_ray.track.tracker import Tracker
from scale_ray.track.tracking import Tracking


class TrackedTrial:
    """What trackers are told of the training within the block.

    Args:
        trackers, store, say: see `Tracking`.
    """

    def __init__(self, trackers: Mapping[str, Tracker], store: Store | None, say: Callable[[str], None]):
        self._tracking = Tracking(trackers, UNPLANNED, [], store, say)
        self._cell: Cell | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cell is not None and isinstance(error, Exception):
            self._tracking.end(self._cell)
            self._tracking.leave(self._cell, "failed")  # where no store has a record of it
            self._tracking.complete(cells=[self._cell])
        self._tracking.__exit__(kind, error, trace)

    def begun(self, cell: Cell) -> None:
        """The training of this cell begins."""
        self._cell = cell
        self._tracking.begin(cell)

    def point(self, point: CurvePoint) -> None:
        """A point of its curve."""
        if self._cell is not None:
            self._tracking.point(self._cell, point)

    def done(self, record: Record) -> None:
        """It has left this record."""
        if self._cell is not None:
            self._tracking.end(self._cell, record)
            self._tracking.complete(cells=[self._cell])
