"""What one store says about its studies, kept up to date by one poller, however many people look at it.

A look lists three folders, and reads those files alone that were written since the last one.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from scale_ray.records import Record
from scale_ray.report.read import index
from scale_ray.report.read.rows import Rows, Unread
from scale_ray.store import Store, StoreError
from scale_ray.store.doing import Doing, Training
from scale_ray.store.leases import EXPIRY_SECONDS
from scale_ray.store.liveness import Announcement, uptime

CellStatus = Literal["waiting", "running", "done", "failed", "stale"]
_Reading = Callable[[Sequence[str]], None]  # reads and keeps the files of these ids


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
    """What a driver has announced, and when that was seen: every heartbeat writes its file anew."""

    doing: Doing | None
    at: float


@dataclass
class StoreWatch:
    """The studies of one store. Any thread may call anything.

    Attributes:
        version: rises with every look that found a change.
        requests: listings and readings so far, without the listing before an index is written.
        looks: looks so far.
        problem: why the last look failed; empty where it did not.
        rows: the store's plans and records; read them while holding `lock`.
    """

    store: Store
    version: int = 0
    requests: int = 0
    looks: int = 0
    problem: str = ""
    rows: Rows = field(default_factory=Rows)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _states: dict[str, CellState] = field(default_factory=dict)  # of cells with a record, by id
    _broken_records: dict[str, str] = field(default_factory=dict)  # cell -> why its record cannot be read
    _broken_plans: dict[str, str] = field(default_factory=dict)  # study -> why its plan cannot be read
    _stamps: dict[str, Mapping[str, str]] = field(default_factory=dict)  # folder -> file, or cell -> stamp
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
        with self.lock:
            ids = self.rows.plans.get(study)
            states = [self._states.get(cell) for cell in ids or ()]
        if ids is None:
            return Counts(0, 0, cells)
        done = sum(state is not None and state.status == "done" for state in states)
        failed = sum(state is not None and state.status == "failed" for state in states)
        return Counts(done, failed, len(ids))

    def cells(self, study: str) -> dict[str, CellState]:
        """The state of each of a study's cells, by id."""
        waiting = CellState("waiting")
        with self.lock:
            training, ids = self._training(), self.rows.plans.get(study, ())
            return {cell: training.get(cell) or self._states.get(cell, waiting) for cell in ids}

    def problems(self, study: str) -> list[str]:
        """Why the store, the study's plan or records cannot be read; they count as missing until they can."""
        with self.lock:
            cells = self.rows.plans.get(study, ())
            records = [self._broken_records[cell] for cell in cells if cell in self._broken_records]
            return [*filter(None, [self.problem, self._broken_plans.get(study)]), *records]

    def record(self, study: str, cell: str) -> Record | None:
        """The record of a study's cell that is done.

        Raises:
            KeyError: the study has no such cell.
            StoreError: it cannot be read.
        """
        with self.lock:
            if cell not in self.rows.plans.get(study, ()):
                raise KeyError(cell)
            self.requests += 1
        return self.store.read_done(cell)

    def doing(self, study: str) -> list[Doing]:
        """What the living drivers of a study do."""
        with self.lock:
            return [found for found in self._living() if found.study == study]

    def _living(self) -> list[Doing]:
        moment = uptime()
        return [each.doing for each in self._heard.values() if each.doing and moment - each.at < EXPIRY_SECONDS]

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
        changes = self._changes("studies", self._stamps_in("studies"))
        changed = {name.removesuffix(".json") for name in changes} | self._broken_plans.keys()
        return self._read("studies", changed, self._read_plans, self._broken_plans)

    def _read_plans(self, studies: Sequence[str]) -> None:
        for study in studies:
            self.rows.forget_plan(study)
        for plan in self.store.plan_files(studies):
            self.rows.add_plan(plan, self.store)

    def _look_at_records(self) -> bool:
        first, stamps = "records" not in self._stamps, self.store.record_stamps()
        changed = {*self._changes("records", stamps), *self._broken_records}
        if first:
            self._forget(self.rows.of_records().keys() - stamps.keys())
            self.requests += len(stamps) >= index.WORTH
            for cell in (restored := index.restore(self.store, self.rows, stamps)):
                self._states[cell] = self._state_of_record(cell)
            changed -= restored
        new = self._read("records", changed, self._read_records, self._broken_records)
        if first:
            index.keep(self.store, self.rows, stamps, len(changed))
        return new or first

    def _read_records(self, cells: Sequence[str]) -> None:
        left = set(cells)
        for record in self.store.records_as(Unread, cells):
            self.rows.add(record, self.store)
            self._states[record.id] = self._state_of_record(record.id)
            left.discard(record.id)
        self._forget(left)

    def _forget(self, cells: Collection[str]) -> None:
        for cell in cells:
            self.rows.forget(cell)
            self._states.pop(cell, None)

    def _read(self, folder: str, keys: Collection[str], read: _Reading, broken: dict[str, str]) -> bool:
        """Read these, and note those that cannot be read. Return whether anything is new.

        Raises:
            StoreError: the store is out of reach, or holds a file with no record's name. All are read at the next look.
        """
        before = dict(broken)
        self.requests += len(keys)
        if keys:
            self._read_halves(folder, sorted(keys), read, broken)
        return any(key not in before or broken.get(key) != before[key] for key in keys)

    def _read_halves(self, folder: str, keys: Sequence[str], read: _Reading, broken: dict[str, str]) -> None:
        """Read these at once; where that fails, each half, down to what cannot be read."""
        try:
            read(keys)
        except StoreError as error:
            try:
                self.store.record_ids()
            except StoreError:
                self._stamps.pop(folder, None)
                raise
            if len(keys) == 1:
                broken[keys[0]] = str(error)
                self._forget(keys)
                return
            for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
                self._read_halves(folder, half, read, broken)
        else:
            for key in keys:
                broken.pop(key, None)

    def _state_of_record(self, cell: str) -> CellState:
        found = self.rows.outcome(cell, "status", "target_accuracy", "source_val_accuracy", "error")
        assert found is not None
        status, accuracy, source_val, error = found
        return CellState(status, accuracy, source_val, cause=error or "")

    def _look_at_drivers(self) -> bool:
        changed = self._changes("drivers", self._stamps_in("drivers"))
        self.requests += len(changed)
        before = {name: self._heard.pop(name, None) for name in changed}
        for path, content in self.store.files.read_many(f"drivers/{name}" for name in changed):
            self._heard[path.partition("/")[2]] = _Heard(_doing(content), uptime())
        return any(_said(before[name]) != _said(self._heard.get(name)) for name in changed)

    def _stamps_in(self, folder: str) -> dict[str, str]:
        """Of what the store writes there: programs that index or synchronise files make folders of their own."""
        return {name: stamp for name, stamp in self.store.files.stamps(folder).items() if name.endswith(".json")}

    def _changes(self, folder: str, now: Mapping[str, str]) -> list[str]:
        """What was written since the last look, or is gone, by the stamps of now."""
        before, self._stamps[folder] = self._stamps.get(folder, {}), now
        self.requests += 1
        return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _said(heard: _Heard | None) -> Doing | None:
    return None if heard is None else heard.doing


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
