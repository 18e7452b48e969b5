"""Which stage may run next: plain Python over the stage tree, the store and the leases; it knows no Ray."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from scale_ray.records import Record
from scale_ray.store import PlannedCell, Store
from scale_ray.store.leases import Driver
from scale_ray.sweep.waiting import Waiting
from scale_ray.training.stages import Stage

# A stage whose process died without a word is tried again, from its checkpoint, until it has had so many attempts.
ATTEMPTS = 3

# Seconds before a stage that another driver works on is looked at again.
_LOOK_AGAIN = 2.0


class StageQueue:
    """The stages of a run, handed out one by one: each after its parent, and none that another driver works on.

    Args:
        stages: from `stages_to_do`, each after its parent.
        store: says what is done by now.
        driver: this driver's leases on the store.
        with_models: a cell whose model is not stored is not done.
        keep: keys of stages whose state stays: cells that this run does not train go on from it.
        on_answered: told how many cells another driver has finished meanwhile.

    Attributes:
        keys: of all stages of the run.
        done: ids of the cells that have ended well, here or with another driver.
        failed_cells: ids of those that have ended badly.
        elsewhere: how many stages are left to other drivers for now.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        store: Store,
        driver: Driver,
        *,
        with_models: bool = False,
        keep: frozenset[str] = frozenset(),
        on_answered: Callable[[int], None] = lambda cells: None,
    ):
        self._store, self._driver, self._with_models, self._on_answered = store, driver, with_models, on_answered
        self.keys = [stage.key for stage in stages]
        self._waiting = Waiting(stages)
        self._running: dict[str, Stage] = {}
        self._started: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._not_before: dict[str, float] = {}  # those of the waiting ones that another driver works on
        self._kept = set(keep)  # and the parents of stages that fail, for those will be run again
        self.done: set[str] = set()
        self.failed_cells: set[str] = set()
        self.elsewhere = 0
        self._before: dict[str, Record | None] = {}  # what the store said of a stage's cells when it was handed out

    def add(self, stages: Sequence[Stage], keep: Sequence[str] = ()) -> None:
        """More stages, each after its parent; what is waiting or running already is not added again.

        Args:
            stages: of a cell that the run did not know of before.
            keep: keys of stages whose state stays for cells that may still come.
        """
        for stage in stages:
            if stage.key not in self._waiting and stage.key not in self._running:
                self._waiting.append(stage)
        self._kept.update(keep)

    @property
    def over(self) -> bool:
        """Whether every stage has ended, well or badly."""
        return not self._waiting and not self._running

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def started(self) -> int:
        """Of the running ones, those that have said that they train: they hold their resources."""
        return len(self._started)

    @property
    def ready(self) -> int:
        """How many stages wait for nothing but a place to run."""
        return self._waiting.ready

    def next(self) -> Stage | None:
        """The first stage that may run now, leased to this driver; None where all must wait."""
        stage = self._next()
        self.elsewhere = len(self._not_before)
        return stage

    def _next(self) -> Stage | None:
        for key, moment in self._not_before.items():
            if time.monotonic() >= moment:
                self._waiting.recall(key)
        while (stage := self._waiting.first()) is not None:
            key = stage.key
            if not self._lease(stage):
                self._not_before[key] = time.monotonic() + _LOOK_AGAIN
                self._waiting.put_off(key)
                continue
            self._not_before.pop(key, None)
            self._waiting.take(key)
            # Leased, then looked at again: another driver may have finished it a moment ago.
            left = self._left_of(stage)
            if answered := {cell.id for cell in stage.ends} - {cell.id for cell in (left.ends if left else ())}:
                self.done |= answered
                self._on_answered(len(answered))
            if left is None:
                self._waiting.ended(key)
                self._release(stage)
                self._forget_parent_of(stage)
                continue
            self._running[key] = left
            self._before.update({cell.id: self._store.read_record(cell.id) for cell in left.waiting})
            return left
        return None

    def has_started(self, key: str) -> None:
        self._started.add(key)

    def finished(self, key: str) -> Stage:
        """The stage has left its records or its state; returns it."""
        stage = self._end(key)
        self._waiting.ended(key)
        self._release(stage)
        self._forget_parent_of(stage)
        self.done.update(cell.id for cell in stage.ends)
        return stage

    def failed(self, key: str) -> tuple[Stage, bool]:
        """The stage has ended badly; returns it, and whether it will be tried again.

        A failure that left its reason is final in this run. So is that of its parent for every stage that waits for it.
        """
        stage = self._end(key)
        self._release(stage)
        self._attempts[key] = self._attempts.get(key, 0) + 1
        explained = all(self._explained(cell.id) for cell in stage.waiting)
        again = not explained and self._attempts[key] < ATTEMPTS
        if again:
            self._waiting.put_in_front(stage)
        elif stage.parent is not None:
            self._kept.add(stage.parent)
        if not again:
            self.failed_cells.update(cell.id for cell in stage.waiting)
            self._drop_children(stage)
            self._waiting.ended(key)
        return stage, again

    def stopped(self, key: str) -> Stage:
        """The stage was ended before its time; its cells are neither done nor failed, and nothing of it is kept."""
        stage = self._end(key)
        self._waiting.ended(key)
        self._store.delete_checkpoint(key)
        self._release(stage)
        return stage

    def _end(self, key: str) -> Stage:
        self._started.discard(key)
        return self._running.pop(key)

    def _drop_children(self, failed: Stage) -> None:
        """Those that came after it was handed out are not told by its failure why: they start afresh, and say so."""
        told = {cell.id for cell in failed.waiting}
        for child in self._waiting.children(failed.key):
            if told.issuperset(cell.id for cell in child.waiting):
                self._waiting.drop(child.key)
            else:
                self._waiting.replace(replace(child, first=0, parent=None))

    def unexplained(self, stage: Stage) -> list[PlannedCell]:
        """The cells that a lost stage left without a record of their own."""
        return [cell for cell in stage.waiting if not self._explained(cell.id)]

    def _explained(self, cell: str) -> bool:
        record = self._store.read_record(cell)
        return record is not None and record != self._before[cell]

    def _left_of(self, stage: Stage) -> Stage | None:
        """The stage without the cells that are done by now; None where nothing is left to do."""
        left = tuple(cell for cell in stage.waiting if not self._store.answers(cell.id, with_model=self._with_models))
        if not left or (not stage.ends and self._store.has_stage(stage.key)):
            return None
        return replace(stage, ends=left, waiting=left) if stage.ends else stage

    def _lease(self, stage: Stage) -> bool:
        """All names of a stage or none."""
        taken: list[str] = []
        for name in _names(stage):
            if not self._driver.acquire(name):
                for other in taken:
                    self._driver.release(other)
                return False
            taken.append(name)
        return True

    def _release(self, stage: Stage) -> None:
        for name in _names(stage):
            self._driver.release(name)

    def _forget_parent_of(self, stage: Stage) -> None:
        """Drop the parent's state once every stage that goes on from it has ended well; another driver may want it."""
        parent = stage.parent
        if parent is None or parent in self._kept or self._driver.others():
            return
        if not self._waiting.has_children(parent) and not any(
            other.parent == parent for other in self._running.values()
        ):
            self._store.delete_stage(parent)


def _names(stage: Stage) -> list[str]:
    """What a stage leases: itself, or the cells that end in it, whose stages may be others in another study."""
    return sorted(cell.id for cell in stage.ends) or [stage.key]
