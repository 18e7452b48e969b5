"""Which stage may run next, by the stage tree, the store and the leases. It does not know Ray.

Stages that other drivers work on are looked at in the background, all of them by one look: `next` is called from Ray
Tune's loop and reads what the last look has found.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from scale_ray.cell import Cell
from scale_ray.config import Beside
from scale_ray.records import Record
from scale_ray.stage import Stage
from scale_ray.store import Store, is_current
from scale_ray.store.leases import Driver
from scale_ray.sweep.waiting import Waiting
from scale_ray.training.failures import TrainingHung

# How often a stage is started whose process dies or hangs without progress, each time from its checkpoint.
ATTEMPTS = 3

# Seconds between two looks at the stages that other drivers work on: at first, and at most after looks in vain.
_LOOK_AGAIN, _LOOK_LATEST = 2.0, 20.0

# Drivers that begin at the same time want the same stages. Who meets others that often in a row pauses for a random
# part of these seconds.
_MEETINGS, _PAUSE = 2, 2.0

# Seconds after which `next` gives Ray Tune's loop its turn, if other drivers have finished many stages.
_TURN = 1.0

_Free = list[tuple[Stage, Stage | None]]  # stages that no other driver works on any more, and what is left of each


def _in_background(work: Callable[[], _Free]) -> "Future[_Free]":
    """Do the work in a thread that does not keep the process alive."""
    future = Future[_Free]()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again by `result`
            future.set_exception(error)

    threading.Thread(target=run, name="look at other drivers", daemon=True).start()
    return future


class StageQueue:
    """Hands out the stages of a run one by one: each after its parent, and none that another driver works on.

    Args:
        stages: from `stages_to_do`, each after its parent.
        store: says what is done.
        driver: this driver's leases on the store.
        beside: a cell that lacks one of these files beside its record is not done.
        keep: keys of stages whose state is kept, because cells that this run does not train go on from it.
        failed_before: ids of the cells that had left a failure when the run was planned; None if that is not known.
        on_answered: called with the number of cells that another driver has finished.
        background: does a look, apart from Ray Tune's loop.
        clock: seconds that never go back.

    Attributes:
        done: ids of the cells that have finished, here or with another driver.
        failed_cells: ids of the cells that have failed.
        elsewhere: how many stages other drivers work on.
        progressed: whether a stage has saved its state or has ended well here, or images were stored, so that a later
            run has less to do.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        store: Store,
        driver: Driver,
        *,
        beside: Collection[Beside] = (),
        keep: frozenset[str] = frozenset(),
        failed_before: Collection[str] | None = None,
        on_answered: Callable[[int], None] = lambda cells: None,
        background: Callable[[Callable[[], _Free]], Future[_Free]] = _in_background,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._store, self._driver, self._beside, self._on_answered = store, driver, beside, on_answered
        # Two drivers in the same order would meet at every stage.
        self._waiting = Waiting(stages if driver.alone else random.sample(stages, len(stages)))
        self._running: dict[str, Stage] = {}
        self._started: set[str] = set()
        self._stopping: set[str] = set()
        self._attempts: dict[str, int] = {}  # since the last progress
        self._steps: dict[str, int] = {}  # the highest step that a stage has reported
        self._background, self._clock = background, clock
        self._postponed: dict[str, Stage] = {}  # waiting stages that another driver works on
        self._look: Future[_Free] | None = None  # the one that is under way
        self._look_after, self._next_look = _LOOK_AGAIN, 0.0
        self._meetings, self._pause_until = 0, 0.0
        self._kept = set(keep)  # also parents of stages that failed: a later run tries these again
        self.done: set[str] = set()
        self.failed_cells: set[str] = set()
        self.elsewhere = 0
        self.progressed = False
        # Cells that may have a failure of an earlier attempt; None for all, as once another driver has been seen.
        self._may_have_failed = None if failed_before is None else set(failed_before)
        self._before: dict[str, Record | None] = {}  # records of a stage's cells when it was handed out

    def add(self, stages: Sequence[Stage], keep: Sequence[str] = ()) -> None:
        """Add stages, each after its parent, except those that are waiting or running already.

        Args:
            stages: of a cell that is new to the run.
            keep: keys of stages whose state is kept for cells that may still come.
        """
        for stage in stages:
            if stage.key not in self._waiting and stage.key not in self._running:
                self._waiting.append(stage)
        self._kept.update(keep)

    @property
    def over(self) -> bool:
        """Whether every stage has finished or failed."""
        return not self._waiting and not self._running

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def handed_out(self) -> frozenset[str]:
        """The keys of the running stages."""
        return frozenset(self._running)

    @property
    def started(self) -> int:
        """How many of the running stages have reported that they train, and so hold their resources."""
        return len(self._started)

    @property
    def training(self) -> frozenset[str]:
        """The keys of these stages."""
        return frozenset(self._started)

    @property
    def ready(self) -> int:
        """How many stages could run if there were a free slot."""
        return self._waiting.ready

    def next(self) -> Stage | None:
        """The first stage that may run now, leased to this driver; None where every stage has to wait."""
        self._end_look()
        if not self._driver.alone:
            self._may_have_failed = None
        may_begin = self._clock() >= self._pause_until and self._driver.alive_for_others()
        stage = self._next() if may_begin else None
        self.elsewhere = len(self._postponed)
        self._begin_look()
        return stage

    def _next(self) -> Stage | None:
        latest = self._clock() + _TURN
        while (stage := self._waiting.first()) is not None and self._clock() < latest:
            names = _names(stage)
            if self._driver.elsewhere(*names):
                self._postpone(stage)
                continue
            if not self._driver.alone and self._left_of(stage, self._done(stage)) is None:
                self._answered_elsewhere(stage)
                continue
            if not self._driver.acquire(*names):
                self._postpone(stage)
                self._meetings += 1
                if self._meetings < _MEETINGS:
                    continue
                self._meetings, self._pause_until = 0, self._clock() + random.uniform(0, _PAUSE)
                return None
            self._meetings = 0
            # Read the store again now that it is leased: another driver may have finished it a moment ago.
            records = {cell.id: self._record(cell.id) for cell in stage.waiting}
            left = self._left_of(stage, records)
            if not self._driver.leased(*names):  # this process was paused, or the store was out of reach
                self._driver.release(*names)
                return None
            self._waiting.take(stage.key)
            self._count_answered(stage, left)
            if left is None:
                self._leave(stage)
                self._driver.release(*names)
                continue
            self._running[stage.key] = left
            self._before.update({cell.id: records[cell.id] for cell in left.waiting})
            return left
        return None

    def _postpone(self, stage: Stage) -> None:
        if not self._postponed:
            self._look_after, self._next_look = _LOOK_AGAIN, self._clock() + _LOOK_AGAIN
        self._postponed[stage.key] = stage
        self._waiting.postpone(stage.key)

    def _begin_look(self) -> None:
        """Look in the background at the postponed stages, if it is time."""
        if self._postponed and self._look is None and self._clock() >= self._next_look:
            self._look = self._background(partial(self._look_at, list(self._postponed.values())))

    def _look_at(self, stages: Sequence[Stage]) -> _Free:
        """Which of these stages no other driver works on any more. It runs in the background."""
        self._driver.look()
        free = [stage for stage in stages if not self._driver.elsewhere(*_names(stage))]
        return [(stage, self._left_of(stage, self._done(stage))) for stage in free]

    def _end_look(self) -> None:
        """Take over what the look has found, if it has ended."""
        if self._look is None or not self._look.done():
            return
        look, self._look = self._look, None
        free = look.result()
        self._look_after = _LOOK_AGAIN if free else min(1.5 * self._look_after, _LOOK_LATEST)
        self._next_look = self._clock() + self._look_after
        for stage, left in free:
            if self._postponed.get(stage.key) is not stage:
                continue  # replaced meanwhile
            del self._postponed[stage.key]
            if stage.key not in self._waiting:
                continue  # dropped meanwhile
            if left is not None:
                self._waiting.recall(stage.key)
                continue
            self._answered_elsewhere(stage)

    def _answered_elsewhere(self, stage: Stage) -> None:
        """A waiting stage is done. That is final, so no lease is needed."""
        self._waiting.take(stage.key)
        self._count_answered(stage, None)
        self._leave(stage)

    def _count_answered(self, stage: Stage, left: Stage | None) -> None:
        """Count the cells of a stage that another driver has finished, given what is left of it."""
        if answered := {cell.id for cell in stage.ends} - {cell.id for cell in (left.ends if left else ())}:
            self.done |= answered
            self._on_answered(len(answered))

    def _leave(self, stage: Stage) -> None:
        """The stage is done."""
        self._waiting.ended(stage.key)
        self._forget_parent_of(stage)

    def stage(self, key: str) -> Stage:
        """The running stage of that key."""
        return self._running[key]

    def has_reported(self, key: str, step: int) -> None:
        """The stage has reported that it trains, and its step."""
        self._started.add(key)
        if step > self._steps.get(key, -1):
            self._steps[key] = step
            self._attempts.pop(key, None)  # a node that goes away now and then must not fail what goes on

    def has_saved(self) -> None:
        """A running stage has saved its state, or images were stored."""
        self.progressed = True

    def stop(self, key: str) -> None:
        """The running stage is about to be ended early: see `stopped`."""
        self._stopping.add(key)

    def is_stopped(self, key: str) -> bool:
        """Whether the running stage ends early."""
        return key in self._stopping

    def finished(self, key: str) -> Stage:
        """The stage has left its records or its state. Returns it."""
        stage = self._end(key)
        self.progressed = True
        self._release(stage)
        self._leave(stage)
        self.done.update(cell.id for cell in stage.ends)
        return stage

    def failed(self, key: str, explain: Callable[[list[Cell]], None]) -> tuple[Stage, bool]:
        """The stage has failed. Returns it, and whether it will be tried again.

        A failure that left a record is final in this run, also for all stages that wait for the stage; but not that of
        a training that hung.

        Args:
            explain: writes the records of a lost stage that will not be tried again, for these cells. It is called
                while the stage is leased, and not at all where another driver has taken it over.
        """
        stage = self._end(key)
        self._attempts[key] = self._attempts.get(key, 0) + 1
        records = {cell.id: self._store.read_record(cell.id) for cell in stage.waiting}
        if self._may_have_failed is not None:
            self._may_have_failed.update(cell for cell, record in records.items() if record is not None)
        unexplained = [cell for cell in stage.waiting if records[cell.id] in (None, self._before[cell.id])]
        again = self._attempts[key] < ATTEMPTS and (bool(unexplained) or any(map(_has_hung, records.values())))
        if unexplained and not again and self._driver.leased(*_names(stage)):
            explain(unexplained)
        self._release(stage)
        if again:
            self._waiting.put_in_front(stage)
        elif stage.parent is not None:
            self._kept.add(stage.parent)
        if not again:
            del self._attempts[key]
            self.failed_cells.update(cell.id for cell in stage.waiting)
            self._drop_children(stage)
            self._waiting.ended(key)
        return stage, again

    def stopped(self, key: str) -> Stage:
        """The stage was ended early: its cells are neither done nor failed, its checkpoint is deleted. Returns it."""
        stage = self._end(key)
        self._waiting.ended(key)
        if self._driver.leased(*_names(stage)):  # else the checkpoint may be another driver's
            self._store.delete_checkpoint(key)
        self._release(stage)
        return stage

    def _end(self, key: str) -> Stage:
        self._started.discard(key)
        self._stopping.discard(key)
        return self._running.pop(key)

    def _drop_children(self, failed: Stage) -> None:
        """Drop the stages whose cells the failure explains; those that were added later start from their first step."""
        explained = {cell.id for cell in failed.waiting}
        for child in self._waiting.children(failed.key):
            if explained.issuperset(cell.id for cell in child.waiting):
                self._waiting.drop(child.key)
            else:
                self._waiting.replace(replace(child, first=0, parent=None))

    def _record(self, cell: str) -> Record | None:
        """The record of a cell. A failure, which is that of an earlier attempt, is read where there may be one."""
        unfailed = self._may_have_failed is not None and cell not in self._may_have_failed
        return self._store.read_done(cell) if unfailed else self._store.read_record(cell)

    def _done(self, stage: Stage) -> dict[str, Record | None]:
        """The records of those cells that wait for the stage and are done."""
        return {cell.id: self._store.read_done(cell.id) for cell in stage.waiting}

    def _left_of(self, stage: Stage, records: Mapping[str, Record | None]) -> Stage | None:
        """The stage without the cells that are done; None where nothing is left to do."""
        left = tuple(cell for cell in stage.waiting if not self._answered(cell.id, records[cell.id]))
        if not left or (not stage.ends and self._store.has_stage(stage.key)):
            return None
        return replace(stage, ends=left, waiting=left) if stage.ends else stage

    def _answered(self, cell: str, record: Record | None) -> bool:
        return is_current(record) and self._store.has_beside(cell, self._beside)

    def _release(self, stage: Stage) -> None:
        self._driver.release(*_names(stage))

    def _forget_parent_of(self, stage: Stage) -> None:
        """Delete the parent's state when all stages that go on from it are done, unless another driver may need it."""
        parent = stage.parent
        if parent is None or parent in self._kept or self._waiting.has_children(parent):
            return
        if any(other.parent == parent for other in self._running.values()):
            return
        if not self._driver.others(now=True):
            self._store.delete_stage(parent)


def _has_hung(record: Record | None) -> bool:
    return record is not None and record.failure is not None and record.failure.kind == TrainingHung.__name__


def _names(stage: Stage) -> list[str]:
    """What a stage leases: the cells that end in it, which another study may have in other stages; else its key."""
    return sorted(cell.id for cell in stage.ends) or [stage.key]
