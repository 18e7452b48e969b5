"""Which stage runs next: parents first, each once, none that another driver works on, lost ones again."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from studies import LIMIT

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.records import Failure, Provenance, Record, Result
from scale_ray.stage import Stage
from scale_ray.store import Store, StoreError
from scale_ray.store.leases import Driver
from scale_ray.sweep.fixed import METRIC, FixedStages
from scale_ray.sweep.queue import _LOOK_AGAIN, _LOOK_LATEST, ATTEMPTS, StageQueue
from scale_ray.training.stages import alone

CONFIG = TrialConfig()
INPUTS = {"source": "a", "target": "b"}
DIGESTS = {"Art": "a", "Clipart": "b"}
FACTS = Provenance(
    started="", wall_seconds=1, host="", device="", threads=1, git_commit=None, git_dirty=None, versions={}
)
RESULT = Result(target_accuracy=1, teacher_accuracy=None, source_val_accuracy=1, steps=1, curve=[], skipped={})


def cell(name: str) -> Cell:
    return Cell(id=name, config=CONFIG, inputs=INPUTS)


def done(store: Store, name: str) -> None:
    store.write_record(Record(id=name, status="done", config=CONFIG, inputs={}, result=RESULT, provenance=FACTS))


def failure(store: Store, name: str, message: str = "", kind: str = "Error") -> None:
    why = Failure(kind=kind, message=message, traceback="")
    store.write_record(Record(id=name, status="failed", config=CONFIG, inputs={}, failure=why, provenance=FACTS))


def family(*names: str) -> list[Stage]:
    """A shared beginning and the cells that go on from it."""
    cells = tuple(map(cell, names))
    trunk = Stage("trunk", CONFIG, 0, 5, None, DIGESTS, (), cells)
    return [trunk, *(Stage(each.id, CONFIG, 5, 20, "trunk", DIGESTS, (each,), (each,)) for each in cells)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, create=True)


@pytest.fixture
def driver(store: Store) -> Iterator[Driver]:
    with Driver(store.files, beat=0.2, expiry=3) as driver:
        yield driver


def at_once(work: Callable[[], Any]) -> "Future[Any]":
    """Stands in for the thread that looks at other drivers, where a test must know when it has ended."""
    future: Future[Any] = Future()
    try:
        future.set_result(work())
    except StoreError as error:
        future.set_exception(error)
    return future


def unexplained(cells: list[Cell]) -> None:
    raise AssertionError(f"nobody left a record of {cells}")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def keys(queue: StageQueue) -> list[str]:
    """All that may run now."""
    handed_out = []
    while (stage := queue.next()) is not None:
        handed_out.append(stage.key)
    return handed_out


def test_stages_come_after_their_parent_and_once(store: Store, driver: Driver) -> None:
    queue = StageQueue([*family("a", "b"), alone(cell("c"))], store, driver)
    assert queue.ready == 2
    assert keys(queue) == ["trunk", "c"]
    store.write_stage("trunk", b"state")
    queue.finished("trunk")
    assert keys(queue) == ["a", "b"]
    for name in ("a", "b", "c"):
        assert not queue.over
        done(store, name)
        queue.finished(name)
    assert queue.over
    assert driver.holders() == {}


def test_a_parents_state_goes_with_its_last_child(store: Store, driver: Driver) -> None:
    queue = StageQueue(family("a", "b"), store, driver)
    queue.next()
    store.write_stage("trunk", b"state")
    queue.finished("trunk")
    assert keys(queue) == ["a", "b"]
    queue.finished("a")
    assert store.has_stage("trunk")
    queue.finished("b")
    assert not store.has_stage("trunk")


def test_a_parents_state_stays_for_a_driver_that_has_just_begun(store: Store) -> None:
    with Driver(store.files, clock=lambda: 0.0) as driver:  # for which no time passes
        queue = StageQueue(family("a"), store, driver)
        queue.next()
        store.write_stage("trunk", b"state")
        queue.finished("trunk")
        assert keys(queue) == ["a"]
        assert driver.others() == []
        with Driver(store.files):
            queue.finished("a")
            assert store.has_stage("trunk")


def test_a_parents_state_stays_for_a_child_that_failed(store: Store, driver: Driver) -> None:
    queue = StageQueue(family("a", "b"), store, driver)
    queue.next()
    store.write_stage("trunk", b"state")
    queue.finished("trunk")
    keys(queue)
    failure(store, "a")
    assert queue.failed("a", unexplained)[1] is False
    queue.finished("b")
    assert store.has_stage("trunk")


def test_a_parent_that_failed_takes_its_children_with_it(store: Store, driver: Driver) -> None:
    queue = StageQueue(family("a", "b"), store, driver)
    queue.next()
    for name in ("a", "b"):
        failure(store, name)
    stage, again = queue.failed("trunk", unexplained)
    assert ([each.id for each in stage.waiting], again) == (["a", "b"], False)
    assert queue.over


def test_a_lost_stage_is_tried_again_and_not_for_ever(store: Store, driver: Driver) -> None:
    failure(store, "a", "of an earlier run")  # no explanation of this one
    queue = StageQueue([alone(cell("a"))], store, driver)
    explained: list[list[str]] = []

    def explain(cells: list[Cell]) -> None:
        assert set(driver.holders()) == {"a"}  # so that no other driver begins with it before its record is there
        explained.append([each.id for each in cells])

    for attempt in range(1, ATTEMPTS + 1):
        assert keys(queue) == ["a"]
        _, again = queue.failed("a", explain)
        assert again == (attempt < ATTEMPTS)
        assert driver.holders() == {}
    assert explained == [["a"]]
    assert queue.over


def test_failures_are_read_only_where_there_may_be_any(
    store: Store, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished cell costs a request less. Without a plan, as in a search, any cell may have failed before."""
    failure(store, "a")
    read, asked = store.read_record, []
    monkeypatch.setattr(store, "read_record", lambda trial: asked.append(trial) or read(trial))
    stages = [alone(cell("a")), alone(cell("b"))]
    assert keys(StageQueue(stages, store, driver, failed_before={"a"})) == ["a", "b"]
    assert asked == ["a"]
    driver.release("a", "b")
    assert keys(StageQueue(stages, store, driver)) == ["a", "b"]
    assert asked == ["a", "a", "b"]


def test_another_drivers_failure_does_not_explain_a_stage_that_is_lost_here(store: Store, driver: Driver) -> None:
    """It came after the run was planned, and its driver is gone again when the cell is handed out here."""
    clock = Clock()
    queue = StageQueue([alone(cell("a")), alone(cell("b"))], store, driver, failed_before=(), clock=clock)
    with another(store) as second:
        assert second.acquire("b")
        driver._others.refresh()  # as with each heartbeat
        assert keys(queue) == ["a"]
        failure(store, "b", "of the other driver")
    driver._others.refresh()
    while (stage := queue.next()) is None:
        clock.now += 1
        time.sleep(0.02)
    assert driver.alone
    assert stage.key == "b"
    assert queue.failed("b", unexplained)[1] is True


def test_losses_count_anew_after_progress(store: Store, driver: Driver) -> None:
    """A spot machine that is taken away now and then must not fail a training that goes on."""
    queue = StageQueue([alone(cell("a"))], store, driver)
    for step in (20, 40, 60, 80, 100):
        assert keys(queue) == ["a"]
        queue.has_reported("a", 0)
        queue.has_reported("a", step)
        assert queue.failed("a", unexplained)[1] is True
    for attempt in range(2, ATTEMPTS + 1):
        assert keys(queue) == ["a"]
        queue.has_reported("a", 100)  # it came as far as before, and no further
        assert queue.failed("a", lambda cells: None)[1] is (attempt < ATTEMPTS)


def test_a_training_that_hung_is_tried_again_and_not_for_ever(store: Store, driver: Driver) -> None:
    queue = StageQueue([alone(cell("a"))], store, driver)
    for attempt in range(1, ATTEMPTS + 1):
        assert keys(queue) == ["a"]
        failure(store, "a", f"no sign of life, {attempt}", kind="TrainingHung")
        assert queue.failed("a", unexplained)[1] is (attempt < ATTEMPTS)
    record = store.read_record("a")
    assert record is not None
    assert record.failure is not None
    assert record.failure.kind == "TrainingHung"
    assert queue.failed_cells == {"a"}


@contextmanager
def another(store: Store) -> Iterator[Driver]:
    with Driver(store.files, beat=0.2, expiry=3) as driver:
        yield driver


def test_two_drivers_share_the_cells(store: Store, driver: Driver) -> None:
    """Each stage goes to one of them, and when that one has finished it the other does not train it again."""
    answered: list[int] = []
    stages, clock = [alone(cell(name)) for name in "ab"], Clock()
    here = StageQueue(stages, store, driver, on_answered=answered.append, background=at_once, clock=clock)
    with another(store) as second:
        there = StageQueue(stages, store, second, background=at_once, clock=clock)
        first = here.next()
        assert first is not None
        (other,) = keys(there)
        assert {first.key, other} == {"a", "b"}
        assert here.next() is None
        assert here.elsewhere == 1
        done(store, other)
        there.finished(other)
        for _ in range(2):  # the first begins a look, the second takes over what it found
            clock.now += _LOOK_LATEST
            assert here.next() is None
        assert answered == [1]
        done(store, first.key)
        here.finished(first.key)
        assert here.over


def test_a_stage_that_another_driver_has_is_looked_at_again_later_and_later(store: Store, driver: Driver) -> None:
    clock, looks = Clock(), []

    def look(work: Callable[[], Any]) -> "Future[Any]":
        looks.append(clock.now)
        return at_once(work)

    with another(store) as second:
        theirs = StageQueue([alone(cell("a"))], store, second)
        assert keys(theirs) == ["a"]
        queue = StageQueue([alone(cell(name)) for name in "abc"], store, driver, background=look, clock=clock)
        assert sorted(keys(queue)) == ["b", "c"]
        assert (queue.elsewhere, queue.ready, looks) == (1, 1, [])
        while clock.now < 100:
            clock.now += 0.1
            assert queue.next() is None
        pauses = [after - before for before, after in pairwise(looks)]
        assert _LOOK_AGAIN < pauses[0] < pauses[1] < pauses[2] <= pauses[-1] < _LOOK_LATEST + 0.3
        theirs.stopped("a")
        while (stage := queue.next()) is None:
            clock.now += 0.1
        assert clock.now - looks[-2] < _LOOK_LATEST + 0.3
        assert (stage.key, queue.elsewhere) == ("a", 0)


def test_a_look_happens_apart_from_the_caller(store: Store, driver: Driver) -> None:
    """Ray Tune's loop asks for the next stage: it must not wait while the store is asked about other drivers."""
    clock, threads = Clock(), set()
    look, may_go_on = driver.look, threading.Event()

    def slow() -> None:
        threads.add(threading.current_thread())
        may_go_on.wait(LIMIT)
        look()

    with another(store) as second:
        assert second.acquire("a")
        queue = StageQueue([alone(cell("a"))], store, driver, clock=clock)
        assert queue.next() is None
        driver.look = slow  # type: ignore[method-assign]
        second.release("a")
        for _ in range(5):
            clock.now += _LOOK_AGAIN
            assert queue.next() is None  # at once
        may_go_on.set()
        while queue.next() is None:
            time.sleep(0.01)
        assert len(threads) == 1  # one look at a time
        assert threading.current_thread() not in threads


def test_a_look_that_fails_ends_the_run(store: Store, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    with another(store) as second:
        assert second.acquire("a")
        queue = StageQueue([alone(cell("a"))], store, driver, background=at_once, clock=clock)

        def refused() -> None:
            raise StoreError("no permission")

        assert queue.next() is None
        monkeypatch.setattr(driver, "look", refused)
        clock.now += _LOOK_AGAIN
        assert queue.next() is None
        with pytest.raises(StoreError, match="no permission"):
            queue.next()


def test_nothing_is_handed_out_after_a_long_silence(store: Store, driver: Driver) -> None:
    """The process was suspended while it read the records: before it goes on, it must be sure of its leases."""
    own = Clock()
    sleeper = Driver(store.files, beat=1, expiry=6, clock=own)
    sleeper.beat()
    queue = StageQueue([alone(cell(name)) for name in "ab"], store, sleeper)
    assert queue.next() is not None
    read = store.read_record

    def suspended(trial_id: str) -> Record | None:
        own.now += 60
        return read(trial_id)

    store.read_record = suspended  # type: ignore[method-assign]
    assert queue.next() is None
    store.read_record = read  # type: ignore[method-assign]
    assert queue.next() is None
    sleeper.beat()  # it makes sure of the stage that runs
    assert set(sleeper.holders()) == {"a"}
    assert keys(queue) == ["b"]


def test_who_lost_a_stage_writes_and_removes_nothing(store: Store, driver: Driver) -> None:
    own, clock = Clock(), Clock()
    sleeper, other = (Driver(store.files, beat=1, expiry=6, clock=each) for each in (own, clock))
    for each in sleeper, other:
        each.beat()
    queue = StageQueue([alone(cell(name)) for name in "ab"], store, sleeper, clock=clock)
    assert keys(queue) == ["a", "b"]
    while not other.acquire("a", "b"):
        other.beat()
        clock.now += 1
    store.write_checkpoint("a", b"the other's")
    own.now = clock.now
    queue.stopped("a")
    assert store.read_checkpoint("a") == b"the other's"
    queue._attempts["b"] = ATTEMPTS
    queue.failed("b", unexplained)
    assert set(other.holders()) == {"a", "b"}


def test_cells_of_one_training_are_left_to_whoever_has_one_of_them(store: Store, driver: Driver) -> None:
    """Another study may plan one of three targets only: its stage has another key, its cell has not."""
    cells, clock = (cell("x"), cell("y"), cell("z")), Clock()
    three = Stage("three", CONFIG, 0, 20, None, DIGESTS, cells, cells)
    with another(store) as second:
        theirs = StageQueue([alone(cell("y"))], store, second)
        assert keys(theirs) == ["y"]
        queue = StageQueue([three], store, driver, background=at_once, clock=clock)
        assert queue.next() is None
        assert set(driver.holders()) == {"y"}  # x was given back
        done(store, "y")
        theirs.finished("y")
        clock.now += _LOOK_LATEST
        assert queue.next() is None
        left = queue.next()
        assert left is not None
        assert [each.id for each in left.ends] == ["x", "z"]


def test_optuna_is_told_of_every_stage_once(store: Store, driver: Driver) -> None:
    stages = [alone(cell(f"{number}")) for number in range(12)]
    source = FixedStages(stages, StageQueue(stages, store, driver))
    handed_out = []
    while (stage := source.next()) is not None:
        assert source.assignment(stage) == {"stage": stage.key}
        handed_out.append(stage.key)
        if int(stage.key) % 5:
            source.ended(source.queue.finished(stage.key), {METRIC: 50.0})
        else:
            failure(store, stage.key)
            source.ended(source.queue.failed(stage.key, unexplained)[0], None)
    assert source.over
    assert handed_out == [stage.key for stage in stages]
    trials = source._optuna_study.trials
    assert [trial.state.name for trial in trials].count("FAIL") == 3
    assert [trial.params["stage"] for trial in trials] == list(range(12))


def test_the_metric_is_label_free() -> None:
    assert METRIC == "source_val_accuracy"


def test_stages_that_come_later_join_the_parent_that_runs(store: Store, driver: Driver) -> None:
    trunk, a, b = family("a", "b")
    queue = StageQueue([], store, driver)
    assert queue.over
    queue.add([trunk, a], keep=["trunk"])
    assert keys(queue) == ["trunk"]
    queue.add([trunk, b], keep=["trunk"])
    assert keys(queue) == []
    store.write_stage("trunk", b"state")
    queue.finished("trunk")
    assert keys(queue) == ["a", "b"]
    for name in ("a", "b"):
        done(store, name)
        queue.finished(name)
    assert queue.over
    assert store.has_stage("trunk")  # another may come
    queue.add([trunk, a], keep=["trunk"])
    assert keys(queue) == []
    assert queue.over


def test_a_parent_that_failed_leaves_those_that_came_later_to_themselves(store: Store, driver: Driver) -> None:
    """Its failure is in the records of the cells that it was begun for, and of no others."""
    trunk, a, b = family("a", "b")
    first = Stage("trunk", CONFIG, 0, 5, None, DIGESTS, (), a.waiting)
    queue = StageQueue([], store, driver)
    queue.add([first, a])
    queue.next()
    queue.add([trunk, b])
    failure(store, "a")
    queue.failed("trunk", unexplained)
    alone_now = queue.next()
    assert alone_now is not None
    assert (alone_now.key, alone_now.first, alone_now.parent) == ("b", 0, None)
    assert queue.failed_cells == {"a"}


def test_a_stopped_stage_leaves_nothing(store: Store, driver: Driver) -> None:
    queue = StageQueue([alone(cell("a"))], store, driver)
    queue.next()
    store.write_checkpoint("a", b"half")
    assert queue.stopped("a").key == "a"
    assert store.checkpoint_keys() == []
    assert driver.holders() == {}
    assert (queue.done, queue.failed_cells, queue.over) == (set(), set(), True)
