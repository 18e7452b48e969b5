"""Tells trackers of a study while it runs. Whatever a tracker does, the study goes on, at its own pace."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from scale_ray.cell import Cell
from scale_ray.records import CurvePoint, Record
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.track.content import Run, metrics_of, run_of
from scale_ray.track.names import Names
from scale_ray.track.sender import Sender
from scale_ray.track.sending import send_records, told
from scale_ray.track.tracker import Tracker

# At the end: seconds without any progress after which a tracker is given up, and those that it gets after Ctrl-C, by
# which the process ends within four.
_PATIENCE, _HASTE = 60.0, 2.0


class Tracking:
    """Tells trackers of a study's cells as they are trained. Every call returns at once and raises nothing.

    A cell that trains alone is told of live: it begins, and its points follow as they are evaluated. Of cells that
    share a stage nothing is told before they have records. A record brings the whole curve, so it makes up for every
    point that was missed.

    Args:
        trackers: by what may be shown of their targets; from `open_trackers`.
        study: name of the study.
        cells: of the study, as far as they are known.
        store: where the records are; None where none is kept.
        say: prints a line.
        fields: named in every name, by dotted path.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        study: str,
        cells: Sequence[Cell],
        store: Store | None,
        say: Callable[[str], None],
        fields: Sequence[str] = (),
    ):
        self._study, self._cells, self._names = study, cells, Names(cells, fields)
        self._store, self._say = store, say
        self._senders = [Sender(shown, tracker, say) for shown, tracker in trackers.items()]
        self._patient = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for sender in self._senders:
            sender.close()
        for sender in self._senders:
            if not sender.ended(_PATIENCE if self._patient else _HASTE) or sender.lacks:
                self._say(f"{sender.shown} does not show everything: {self._remedy(sender.shown)}")

    def _remedy(self, shown: str) -> str:
        if self._store is None:
            return "the training kept nothing: add --store FOLDER"
        return f"`scale-ray track {self._store.location} --to {shown}` sends the rest"

    # As the engine calls it: see `scale_ray.sweep.listener`.

    def begun(self, stage: Stage) -> None:
        if len(stage.waiting) == 1:
            self.begin(stage.waiting[0])

    def reported(self, stage: Stage, result: Mapping[str, Any]) -> None:
        if self._senders and len(stage.waiting) == 1 and "point" in result:
            self.point(stage.waiting[0], CurvePoint.model_validate(result["point"]))

    def ended(self, stage: Stage) -> None:
        for cell in stage.ends:
            self.end(cell)

    def failed(self, stage: Stage, *, again: bool, reason: str = "") -> None:
        for cell in () if again else stage.waiting:
            self.end(cell)

    def stopped(self, stage: Stage) -> None:
        for cell in stage.waiting:
            self.leave(cell, "stopped")

    # One cell after the other

    def begin(self, cell: Cell) -> None:
        """The cell's training begins or goes on."""
        for sender in self._senders:
            sender.put(partial(sender.begin, self._run(cell)))

    def point(self, cell: Cell, point: CurvePoint) -> None:
        """A point of the cell's curve."""
        for sender in self._senders:
            sender.put(partial(sender.point, self._run(cell), point.step, metrics_of(point)))

    def end(self, cell: Cell, record: Record | None = None) -> None:
        """The cell has a record: this one, or the store's."""
        for sender in self._senders:
            sender.put(partial(self._end, sender, cell.id, record), needed=True)

    def leave(self, cell: Cell, why: str) -> None:
        """The cell's training has ended without a record, unless the tracker was told of one."""
        for sender in self._senders:
            sender.put(partial(sender.leave, self._run(cell), why))

    def complete(self, unchanged: Collection[str] = (), cells: Sequence[Cell] | None = None) -> None:
        """The study is over: send what a tracker lacks. The end of the block waits for it.

        Args:
            unchanged: see `send_records`.
            cells: of the study, where more are known by now.
        """
        self._patient = True
        wanted = [cell.id for cell in (self._cells if cells is None else cells)]
        for sender in self._senders:
            sender.put(partial(self._send, sender, wanted, unchanged), needed=True, tries=True)

    def _run(self, cell: Cell) -> Run:
        return run_of(cell, self._study, self._names)

    # In a sender's thread

    def _end(self, sender: Sender, cell: str, record: Record | None) -> None:
        if record is None and self._store is not None:
            record = self._store.read_record(cell)
        if record is not None:
            sender.end(*told(record, self._study, self._names, self._store))

    def _send(self, sender: Sender, cells: Sequence[str], unchanged: Collection[str]) -> None:
        if self._store is not None:
            send_records(
                sender.tracker, self._study, cells, self._names, self._store, unchanged=unchanged, moved=sender.has
            )
            sender.lacks = False
