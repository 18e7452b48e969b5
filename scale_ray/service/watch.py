"""What one store says about its studies, kept up to date by one poller, however many people look at it.

A look lists three folders, and reads those files alone that were written since the last one.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from scale_ray.report.read.rows import Rows, Unread, UnreadPlan
from scale_ray.store import Store, StoreError
from scale_ray.store.doing import Doing, Training
from scale_ray.store.leases import EXPIRY_SECONDS
from scale_ray.store.liveness import Announcement, uptime

CellStatus = Literal["waiting", "running", "done", "failed", "stale"]


@dataclass(frozen=True)
class CellState:
    """What is known of a cell, for a page.

    Attributes:
        accuracy: percent, of the student on the target: last iterate where done, so far where running.
        source_val: percent, likewise on held-out source images.
        step: that it has come to, where it runs.
        share: of its steps that are made, where it runs.
        seconds_left: where it runs and its pace is known.
        cause: of its failure, in one line.
    """

    status: CellStatus
    accuracy: float | None = None
    source_val: float | None = None
    step: int | None = None
    share: float | None = None
    seconds_left: float | None = None
    cause: str = ""


@dataclass(frozen=True)
class Counts:
    """How many cells of a study are done, how many have failed last, and how many it has."""

    done: int
    failed: int
    cells: int


@dataclass
class _Heard:
    """A driver's announcement, and since when it has said the same."""

    content: bytes
    doing: Doing | None
    since: float


@dataclass
class StoreWatch:
    """The studies of one store. Any thread may call anything.

    Attributes:
        version: rises with every look that found a change.
        requests: listings and readings so far.
        looks: looks so far.
        problem: why the last look failed; empty where it did not.
        broken: cell -> what is wrong with its record, which counts as none.
        rows: the store's plans and records; read them while holding `lock`.
    """

    store: Store
    version: int = 0
    requests: int = 0
    looks: int = 0
    problem: str = ""
    broken: dict[str, str] = field(default_factory=dict)
    rows: Rows = field(default_factory=lambda: Rows(curves=True))
    lock: threading.Lock = field(default_factory=threading.Lock)
    _states: dict[str, CellState] = field(default_factory=dict)  # of cells with a record, by id
    _stamps: dict[str, dict[str, str]] = field(default_factory=dict)  # folder -> file -> stamp
    _heard: dict[str, _Heard] = field(default_factory=dict)  # by the driver's file

    def look(self) -> bool:
        """Read what was written since the last look; return whether anything has changed."""
        with self.lock:
            self.looks += 1
            try:
                changed = [self._look_at_plans(), self._look_at_records(), self._look_at_drivers()]
            except StoreError as error:
                self.problem = str(error)
                return False
            self.problem = ""
            if any(changed):
                self.version += 1
            return any(changed)

    def counts(self, study: str, cells: int) -> Counts:
        """How far a study is; `cells` is what it has where no plan of it was found yet."""
        ids = self.rows.plans.get(study)
        if ids is None:
            return Counts(0, 0, cells)
        states = [self._states.get(cell) for cell in ids]
        done = sum(state is not None and state.status == "done" for state in states)
        failed = sum(state is not None and state.status == "failed" for state in states)
        return Counts(done, failed, len(ids))

    def cells(self, study: str) -> dict[str, CellState]:
        """The state of each of a study's cells, by id."""
        waiting, training = CellState("waiting"), self._training()
        return {cell: training.get(cell) or self._states.get(cell, waiting) for cell in self.rows.plans.get(study, ())}

    def problems(self, study: str) -> list[str]:
        """What in the store cannot be read: the store itself, or records of the study."""
        found = [self.broken[cell] for cell in self.rows.plans.get(study, ()) if cell in self.broken]
        return [*([self.problem] if self.problem else []), *found]

    def doing(self, study: str) -> list[Doing]:
        """What the living drivers of a study do."""
        return [found for found in self._living() if found.study == study]

    def _living(self) -> list[Doing]:
        moment = uptime()
        heard = list(self._heard.values())
        return [each.doing for each in heard if each.doing and moment - each.since < EXPIRY_SECONDS]

    def _training(self) -> dict[str, CellState]:
        """The state of cells that a driver trains now, by id; of a cell that failed before, too."""
        return {
            cell: _state_of(training)
            for doing in self._living()
            for training in doing.trainings
            for cell in training.cells
            if training.started
        }

    def _look_at_plans(self) -> bool:
        changed, gone = self._changes("studies")
        for plan in self.store.plans_as(UnreadPlan, [name.removesuffix(".json") for name in changed]):
            self.rows.add_plan(plan)
        for name in gone:
            self.rows.forget_plan(name.removesuffix(".json"))
        self.requests += len(changed)
        return bool(changed or gone)

    def _look_at_records(self) -> bool:
        changed, gone = self._changes("records")
        ids = {name.partition(".")[0] for name in (*changed, *gone) if name.endswith(".json")}
        self.requests += len(changed)
        for cell in ids:
            self.rows.forget(cell)
            self._states.pop(cell, None)
            self.broken.pop(cell, None)
        try:
            self._read(ids)
        except StoreError:
            for cell in ids:
                try:
                    self._read({cell})
                except StoreError as error:
                    self.broken[cell] = str(error)
        return bool(ids)

    def _read(self, ids: Collection[str]) -> None:
        for record in self.store.records_as(Unread, sorted(ids)) if ids else ():
            self.rows.add(record, self.store)
            self._states[record.id] = self._state_of_record(record.id)

    def _state_of_record(self, cell: str) -> CellState:
        found = self.rows.outcome(cell, "status", "target_accuracy", "source_val_accuracy", "error")
        assert found is not None
        status, accuracy, source_val, error = found
        return CellState(status, accuracy, source_val, cause=error or "")

    def _look_at_drivers(self) -> bool:
        changed, gone = self._changes("drivers")
        for name in gone:
            self._heard.pop(name, None)
        moment, anew = uptime(), bool(gone)
        for path, content in self.store.files.read_many(f"drivers/{name}" for name in changed):
            name, before = path.partition("/")[2], self._heard.get(path.partition("/")[2])
            if before is not None and before.content == content:
                continue
            doing = _doing(content)
            anew = anew or before is None or before.doing != doing
            self._heard[name] = _Heard(content, doing, moment)
        self.requests += len(changed)
        return anew

    def _changes(self, folder: str) -> tuple[list[str], list[str]]:
        """(files that were written since the last look, files that are gone)."""
        before, now = self._stamps.get(folder, {}), self.store.files.stamps(folder)
        self.requests += 1
        self._stamps[folder] = now
        return [name for name in now if before.get(name) != now[name]], [name for name in before if name not in now]


def _doing(content: bytes) -> Doing | None:
    try:
        return Announcement.model_validate_json(content).doing
    except ValueError:
        return None


def _state_of(training: Training) -> CellState:
    steps = training.last - training.first
    return CellState(
        "running",
        training.target_accuracy,
        training.source_val_accuracy,
        training.step,
        (training.step - training.first) / steps if steps else 0.0,
        training.seconds_left,
    )
