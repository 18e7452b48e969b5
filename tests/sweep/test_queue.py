"""Which stage runs next: parents first, each once, none that another driver works on, lost ones again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.records import Failure, Provenance, Record, Result
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.store.leases import Driver
from scale_ray.sweep.fixed import METRIC, FixedStages
from scale_ray.sweep.queue import _LOOK_AGAIN, ATTEMPTS, StageQueue
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


def failure(store: Store, name: str, message: str = "") -> None:
    why = Failure(kind="Error", message=message, traceback="")
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


def test_a_parents_state_stays_for_a_child_that_failed(store: Store, driver: Driver) -> None:
    queue = StageQueue(family("a", "b"), store, driver)
    queue.next()
    store.write_stage("trunk", b"state")
    queue.finished("trunk")
    keys(queue)
    failure(store, "a")
    assert queue.failed("a")[1] is False
    queue.finished("b")
    assert store.has_stage("trunk")


def test_a_parent_that_failed_takes_its_children_with_it(store: Store, driver: Driver) -> None:
    queue = StageQueue(family("a", "b"), store, driver)
    queue.next()
    for name in ("a", "b"):
        failure(store, name)
    stage, again = queue.failed("trunk")
    assert ([each.id for each in stage.waiting], again) == (["a", "b"], False)
    assert queue.over


def test_a_lost_stage_is_tried_again_and_not_for_ever(store: Store, driver: Driver) -> None:
    failure(store, "a", "of an earlier run")  # no explanation of this one
    queue = StageQueue([alone(cell("a"))], store, driver)
    for attempt in range(1, ATTEMPTS + 1):
        assert keys(queue) == ["a"]
        stage, again = queue.failed("a")
        assert again == (attempt < ATTEMPTS)
    assert [each.id for each in queue.unexplained(stage)] == ["a"]
    assert queue.over


@contextmanager
def another(store: Store) -> Iterator[Driver]:
    with Driver(store.files, beat=0.2, expiry=3) as driver:
        yield driver


def test_two_drivers_share_the_cells(store: Store, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage goes to one of them, and when that one has finished it the other does not train it again."""
    monkeypatch.setattr("scale_ray.sweep.queue._LOOK_AGAIN", 0.0)
    answered: list[int] = []
    stages = [alone(cell(name)) for name in "ab"]
    with another(store) as second:
        here, there = StageQueue(stages, store, driver, on_answered=answered.append), StageQueue(stages, store, second)
        first = here.next()
        other = there.next()
        assert first is not None
        assert other is not None
        assert (first.key, other.key) == ("a", "b")
        assert here.next() is None
        assert here.elsewhere == 1
        done(store, "b")
        there.finished("b")
        assert here.next() is None
        assert answered == [1]
        done(store, "a")
        here.finished("a")
        assert here.over


def test_a_stage_that_another_driver_has_is_looked_at_again_later(
    store: Store, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("scale_ray.sweep.queue.time", clock)
    with another(store) as second:
        theirs = StageQueue([alone(cell("a"))], store, second)
        assert keys(theirs) == ["a"]
        queue = StageQueue([alone(cell(name)) for name in "abc"], store, driver)
        assert (keys(queue), queue.elsewhere, queue.ready) == (["b", "c"], 1, 1)
        theirs.stopped("a")
        assert queue.next() is None  # not yet
        clock.now += _LOOK_AGAIN
        stage = queue.next()
        assert stage is not None
        assert (stage.key, queue.elsewhere) == ("a", 0)


def test_cells_of_one_training_are_left_to_whoever_has_one_of_them(
    store: Store, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another study may plan one of three targets only: its stage has another key, its cell has not."""
    monkeypatch.setattr("scale_ray.sweep.queue._LOOK_AGAIN", 0.0)
    cells = (cell("x"), cell("y"), cell("z"))
    three = Stage("three", CONFIG, 0, 20, None, DIGESTS, cells, cells)
    with another(store) as second:
        theirs = StageQueue([alone(cell("y"))], store, second)
        assert keys(theirs) == ["y"]
        queue = StageQueue([three], store, driver)
        assert queue.next() is None
        assert set(driver.holders()) == {"y"}  # x was given back
        done(store, "y")
        theirs.finished("y")
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
            source.ended(source.queue.failed(stage.key)[0], None)
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
    queue.failed("trunk")
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
