"""Which stage may run next, by the stage tree, the store and the leases. It does not know Ray."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from scale_ray.cell import Cell
from scale_ray.records import Record
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.store.leases import Driver
from scale_ray.sweep.waiting import Waiting

# How often a stage is started whose process dies without leaving a record, each time from its checkpoint.
ATTEMPTS = 3

# Seconds until a stage that another driver works on is checked again.
_LOOK_AGAIN = 2.0


class StageQueue:
    """Hands out the stages of a run one by one: each after its parent, and none that another driver works on.

    Args:
        stages: from `stages_to_do`, each after its parent.
        store: says what is done.
        driver: this driver's leases on the store.
        with_models: a cell whose model is not stored is not done.
        keep: keys of stages whose state is kept, because cells that this run does not train go on from it.
        on_answered: called with the number of cells that another driver has finished.

    Attributes:
        done: ids of the cells that have finished, here or with another driver.
        failed_cells: ids of the cells that have failed.
        elsewhere: how many stages other drivers work on.
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
        self._waiting = Waiting(stages)
        self._running: dict[str, Stage] = {}
        self._started: set[str] = set()
        self._stopping: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._not_before: dict[str, float] = {}  # waiting stages that another driver works on
        self._kept = set(keep)  # also parents of stages that failed: a later run tries these again
        self.done: set[str] = set()
        self.failed_cells: set[str] = set()
        self.elsewhere = 0
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
    def started(self) -> int:
        """How many of the running stages have reported that they train, and so hold their resources."""
        return len(self._started)

    @property
    def ready(self) -> int:
        """How many stages could run if there were a free slot."""
        return self._waiting.ready

    def next(self) -> Stage | None:
        """The first stage that may run now, leased to this driver; None where every stage has to wait."""
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
                self._waiting.postpone(key)
                continue
            self._not_before.pop(key, None)
            self._waiting.take(key)
            # Check the store again now that it is leased: another driver may have finished it a moment ago.
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

    def stage(self, key: str) -> Stage:
        """The running stage of that key."""
        return self._running[key]

    def has_started(self, key: str) -> None:
        """The stage has reported that it trains."""
        self._started.add(key)

    def stop(self, key: str) -> None:
        """The running stage is about to be ended early: see `stopped`."""
        self._stopping.add(key)

    def is_stopped(self, key: str) -> bool:
        """Whether the running stage ends early."""
        return key in self._stopping

    def finished(self, key: str) -> Stage:
        """The stage has left its records or its state. Returns it."""
        stage = self._end(key)
        self._waiting.ended(key)
        self._release(stage)
        self._forget_parent_of(stage)
        self.done.update(cell.id for cell in stage.ends)
        return stage

    def failed(self, key: str) -> tuple[Stage, bool]:
        """The stage has failed. Returns it, and whether it will be tried again.

        A failure that left a record is final in this run, also for all stages that wait for the stage.
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
        """The stage was ended early: its cells are neither done nor failed, its checkpoint is deleted. Returns it."""
        stage = self._end(key)
        self._waiting.ended(key)
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

    def unexplained(self, stage: Stage) -> list[Cell]:
        """The cells for which a lost stage left no record."""
        return [cell for cell in stage.waiting if not self._explained(cell.id)]

    def _explained(self, cell: str) -> bool:
        record = self._store.read_record(cell)
        return record is not None and record != self._before[cell]

    def _left_of(self, stage: Stage) -> Stage | None:
        """The stage without the cells that are done; None where nothing is left to do."""
        left = tuple(cell for cell in stage.waiting if not self._store.answers(cell.id, with_model=self._with_models))
        if not left or (not stage.ends and self._store.has_stage(stage.key)):
            return None
        return replace(stage, ends=left, waiting=left) if stage.ends else stage

    def _lease(self, stage: Stage) -> bool:
        """Lease all names of a stage or none."""
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
        """Delete the parent's state when all stages that go on from it are done, unless another driver may need it."""
        parent = stage.parent
        if parent is None or parent in self._kept or self._driver.others():
            return
        if not self._waiting.has_children(parent) and not any(
            other.parent == parent for other in self._running.values()
        ):
            self._store.delete_stage(parent)


def _names(stage: Stage) -> list[str]:
    """What a stage leases: the cells that end in it, which another study may have in other stages; else its key."""
    return sorted(cell.id for cell in stage.ends) or [stage.key]
