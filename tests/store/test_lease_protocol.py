"""The protocol of leases, under thousands of schedules of several drivers that are killed, paused and cut off.

In each schedule: a key is never held by two drivers at once; every cell gets its record, and keeps it, also where a
driver that has lost the cell writes that it failed; nobody waits for ever; at the end no lease and no announcement is
left.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interleaving import BEAT, EXPIRY, Process, Schedule, SharedFiles, Trouble, Turnstile
from made_records import record

from scale_ray.records import Record
from scale_ray.store import StoreError, is_current, leases, liveness, record_files
from scale_ray.store.leases import Driver
from scale_ray.store.record_files import RecordFiles

SEEDS = st.integers(0, 2**32 - 1)
TROUBLES = [
    Trouble(kill=0.002, pause=0.005, fail=0.01, slow=0.005),
    Trouble(kill=0.01),
    Trouble(pause=0.02),
    Trouble(slow=0.06),
    Trouble(fail=0.12),
    Trouble(kill=0.005, pause=0.03),
    Trouble(slow=0.02, pause=0.01),
    Trouble(slow=0.01, fail=0.03),
]
MANY = given(SEEDS, st.integers(2, 4), st.integers(1, 4), st.sampled_from(TROUBLES), st.sampled_from([200, 400, 1000]))
schedules = partial(settings, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.getLogger("scale_ray.store").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("scale_ray.store").setLevel(logging.NOTSET)


class Line:
    """Stands in for the locked files of a machine: the schedule says whose death is visible."""

    def __init__(self, driver_id: str):
        self.identity = driver_id

    def end(self) -> None:
        pass


class Heart:
    """The thread that beats, as seen by the one that ends it."""

    stop = stopped = False


@cache
def of_cell(number: int, *, done: bool) -> Record:
    return record(number, done=done)


class Study:
    """Drivers that work off the same cells. A cell that failed is tried again."""

    def __init__(self, seed: int, drivers: int, cells: int, trouble: Trouble, calm_after: int = 400):
        self.schedule = Schedule(seed, trouble, calm_after)
        self.files = SharedFiles(self.schedule)
        self.records = RecordFiles(self.files)  # type: ignore[arg-type]
        self.cells = {of_cell(number, done=True).id: number for number in range(cells)}
        self.trained: Counter[str] = Counter()
        self.done: set[str] = set()  # cells whose done record was written
        for number in range(drivers):
            process = Process(number)
            self.schedule.processes.append(process)
            self.schedule.spawn(process, partial(self.drive, process))

    def run(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "uuid4", lambda: UUID(int=self.schedule.random.getrandbits(128)))
            patch.setattr(leases, "Lifeline", Line)
            patch.setattr(leases, "remove_lifeline", lambda driver_id: None)
            patch.setattr(liveness, "is_cut", lambda driver_id, identity: driver_id in self.schedule.cut)
            self.schedule.run()

    def statuses(self) -> dict[str, str]:
        """The status of each cell at the end."""
        files: Any = SimpleNamespace(read=self.schedule.files.get, locate=str)
        return {cell: record_files.status_of(RecordFiles(files).read(cell)) for cell in self.cells}

    def left(self) -> list[str]:
        return sorted(name for name in self.schedule.files if not name.startswith("records/"))

    def drive(self, process: Process) -> None:
        """What the process of a driver does."""
        driver = Driver(self.files, beat=BEAT, expiry=EXPIRY, clock=self.schedule.clock)  # type: ignore[arg-type]
        driver._lock = driver._others._lock = driver._beating = Turnstile(self.schedule)  # type: ignore[assignment]
        process.driver = driver
        begun = False
        while not begun:
            try:
                driver.beat()
                driver.look()
                begun = True
            except StoreError:
                self.schedule.sleep(BEAT)
        heart = Heart()
        self.schedule.spawn(process, partial(self.keep_beating, driver, heart))
        self.work(driver)
        if not process.number:
            self.outlive_the_others(driver, process)
        heart.stop = True
        while not heart.stopped:
            self.schedule.sleep(BEAT)
        driver.end()

    def keep_beating(self, driver: Driver, heart: "Heart") -> None:
        while not heart.stop:
            self.schedule.sleep(BEAT)
            try:
                driver.beat()
                driver._others.refresh()
                if self.schedule.random.random() < 0.3:  # as a study's queue does in the background
                    driver.look()
            except StoreError:
                continue
        heart.stopped = True

    def work(self, driver: Driver) -> None:
        left = list(self.cells)
        while left:
            choose = self.schedule.random
            cell = choose.choice(left)
            try:
                if choose.random() < 0.2:
                    driver.look()
                if not driver.elsewhere(cell) and driver.acquire(cell) and self.do(driver, cell):
                    left.remove(cell)
                    continue
            except StoreError:
                with suppress(StoreError):
                    driver.release(cell)
            self.schedule.sleep(choose.uniform(0, BEAT))

    def do(self, driver: Driver, cell: str) -> bool:
        """Work on a cell that was acquired; whether it is done."""
        done = self.is_done(cell)
        if not done:
            for _ in range(self.schedule.random.randrange(4)):
                self.schedule.sleep(BEAT / 2)
            fate = self.schedule.random.random()  # above 0.8 it is given back undone
            if fate < 0.6 and driver.leased(cell):
                self.trained[cell] += 1
                self.records.write(of_cell(self.cells[cell], done=True))
                self.done.add(cell)
                done = True
            elif 0.6 <= fate < 0.8:  # the process that trains does not know of leases
                self.records.write(of_cell(self.cells[cell], done=False))
        driver.release(cell)
        return done

    def is_done(self, cell: str) -> bool:
        known = cell in self.done
        done = is_current(self.records.read(cell))
        assert done or not known, f"the done record of {cell} is lost"
        return done

    def outlive_the_others(self, driver: Driver, process: Process) -> None:
        """Until all that killed drivers and late calls left can be removed."""
        while not self.schedule.calm or not self.schedule.others_are_over(process):
            self.schedule.sleep(EXPIRY)
            with suppress(StoreError):
                driver.look()
        for _ in range(20):
            self.schedule.sleep(EXPIRY / 4)
            driver.look()


def troubled(seed: int, drivers: int, cells: int, trouble: Trouble, calm_after: int) -> None:
    study = Study(seed, drivers, cells, trouble, calm_after)
    study.run()
    assert study.statuses() == dict.fromkeys(study.cells, "done"), "a done record is lost"
    assert study.left() == []


@schedules(max_examples=200)
@given(SEEDS, st.integers(2, 4), st.integers(1, 4))
def test_without_trouble_each_cell_is_trained_once(seed: int, drivers: int, cells: int) -> None:
    study = Study(seed, drivers, cells, Trouble())
    study.run()
    assert study.trained == dict.fromkeys(study.cells, 1)
    assert study.left() == []


@schedules(max_examples=600)
@MANY
def test_a_key_has_one_holder_and_no_record_is_lost(
    seed: int, drivers: int, cells: int, trouble: Trouble, calm_after: int
) -> None:
    troubled(seed, drivers, cells, trouble, calm_after)


@pytest.mark.slow
@schedules(max_examples=20_000)
@MANY
def test_in_many_more_schedules(seed: int, drivers: int, cells: int, trouble: Trouble, calm_after: int) -> None:
    troubled(seed, drivers, cells, trouble, calm_after)


def _proceeds_without_listing(driver: Driver, leases: dict[str, str]) -> set[str]:
    return set(leases)


def _goes_on_after_a_silence(driver: Driver) -> None:
    if not driver.id:
        driver._begin_anew()
    began = driver._clock()
    driver._announce()
    driver._last_beat = began


def _counts_as_alive_too_long(driver: Driver) -> bool:
    return driver._clock() - driver._last_beat < driver._expiry + driver._beat_seconds


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        ("_uncontested", _proceeds_without_listing),
        ("beat", _goes_on_after_a_silence),
        ("alive_for_others", _counts_as_alive_too_long),
    ],
)
def test_a_broken_protocol_is_found(method: str, broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, method, broken)

    def look_for_it() -> None:
        for seed in range(400):
            troubled(seed, 3, 2, Trouble(pause=0.02), 1000)

    with pytest.raises(AssertionError, match=r"is held by drivers|blocked for ever"):
        look_for_it()


@pytest.mark.slow
def test_one_name_for_both_kinds_of_record_would_lose_done_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "record_file", lambda trial_id, status="done": f"records/{trial_id}.json")

    def look_for_it() -> None:
        for seed in range(400):
            troubled(seed, 3, 2, Trouble(pause=0.02), 1000)

    with pytest.raises(AssertionError, match=r"done record .*is lost"):
        look_for_it()
