"""Trackers are told of a study while it runs, and whatever they do, the study does not wait or fail."""

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import readers
from report_stores import cell_of, config_of, record_of

from scale_ray.cell import Cell
from scale_ray.config import Execution
from scale_ray.records import CurvePoint, Failure, Ran
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.track import TrackedTrial, Tracking, open_trackers, tracking
from scale_ray.track.content import Outcome, Run
from scale_ray.training.failures import failed

CONFIGS = [config_of("mnist", target, "ce", "lenet", 0) for target in ("mnistm", "fonts")]
CELLS = [cell_of(config) for config in CONFIGS]
RECORDS = [record_of(config, 50.0) for config in CONFIGS]


def stage(*cells: Cell, ends: bool = True) -> Stage:
    return Stage(cells[0].id, cells[0].config, 0, 600, None, {}, cells if ends else (), cells)


def point(step: int) -> dict[str, object]:
    """What Tune is told of a point, as far as trackers read it."""
    (found,) = [each for each in RECORDS[0].result.curve if each.step == step]
    return {"step": step, "source_val_accuracy": 99.0, "point": found.model_dump()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "events"


def told(folder: Path, store: Store | None, said: list[str], cells: list[Cell] = CELLS) -> Tracking:
    return Tracking(open_trackers([f"tensorboard={folder}"]), "study", cells, store, said.append)


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def steps(folder: Path, cell: Cell) -> list[int]:
    shown = dict(readers.tensorboard(str(folder), "study"))
    return [step for name, step, _ in shown[cell.id].points if name == "target_accuracy"] if cell.id in shown else []


def test_points_arrive_while_the_cell_trains(folder: Path, store: Store, said: list[str]) -> None:
    alone = stage(CELLS[0])
    with told(folder, store, said) as tracking:
        tracking.begun(alone)
        tracking.reported(alone, {"step": 0})  # it has just begun
        tracking.reported(alone, point(0))
        tracking.reported(alone, {"at": 100, "seconds_a_step": 0.1})
        tracking.reported(alone, point(200))
        wait_for(lambda: steps(folder, CELLS[0]) == [0, 200])
        store.write_record(RECORDS[0])
        tracking.ended(alone)
        wait_for(lambda: steps(folder, CELLS[0]) == [0, 200, 400, 600])
        tracking.complete()
    assert said == []


def test_of_cells_that_share_a_stage_nothing_is_told_before_their_records(
    folder: Path, store: Store, said: list[str]
) -> None:
    shared, warm_up = stage(*CELLS), stage(*CELLS, ends=False)
    with told(folder, store, said) as tracking:
        for each in (warm_up, shared):
            tracking.begun(each)
            tracking.reported(each, {"step": 200, "source_val_accuracy": 99.0})
        tracking.ended(warm_up)
        for record in RECORDS:
            store.write_record(record)
        tracking.ended(shared)
        tracking.complete()
    assert [steps(folder, cell) for cell in CELLS] == [[0, 200, 400, 600]] * 2


def test_a_failure_is_told_when_it_is_final(folder: Path, store: Store, said: list[str]) -> None:
    alone = stage(CELLS[0])
    with told(folder, store, said) as tracking:
        tracking.begun(alone)
        tracking.reported(alone, point(0))
        tracking.failed(alone, again=True)
        tracking.begun(alone)
        tracking.reported(alone, point(200))
        store.write_record(record_of(CONFIGS[0], None))
        tracking.failed(alone, again=False, reason="RuntimeError")
        tracking.complete()
    ((_, shown),) = readers.tensorboard(str(folder), "study")
    assert steps(folder, CELLS[0]) == [0, 200]
    assert shown.status.startswith("failed: RuntimeError")


def test_what_was_interrupted_and_what_a_search_stopped_say_so(folder: Path, store: Store, said: list[str]) -> None:
    with told(folder, store, said) as tracking:
        for cell in CELLS:
            tracking.begun(stage(cell))
            tracking.reported(stage(cell), point(0))
        tracking.stopped(stage(CELLS[0]))
    shown = dict(readers.tensorboard(str(folder), "study"))
    assert [shown[cell.id].status for cell in CELLS] == ["stopped", "interrupted"]


def test_at_the_end_a_tracker_gets_what_it_lacks(folder: Path, store: Store, said: list[str]) -> None:
    """Cells that were done before, or that another driver has trained."""
    for record in RECORDS:
        store.write_record(record)
    with told(folder, store, said) as tracking:
        tracking.complete(unchanged=[CELLS[0].id])
    assert [steps(folder, cell) for cell in CELLS] == [[0, 200, 400, 600]] * 2


def test_a_tracker_that_fails_is_warned_of_once_and_made_up_for(folder: Path, store: Store, said: list[str]) -> None:
    alone = stage(CELLS[0])
    with told(folder, store, said) as tracking:
        (folder / "study").write_text("in the way of a folder")
        tracking.begun(alone)
        for step in (0, 200, 400):
            tracking.reported(alone, point(step))
        wait_for(lambda: said)
        store.write_record(RECORDS[0])
        tracking.ended(alone)
        (folder / "study").unlink()
        tracking.complete()
    (warning,) = said
    assert warning.startswith(f"warning: tensorboard={folder}: ")
    assert "the study goes on" in warning
    assert steps(folder, CELLS[0]) == [0, 200, 400, 600]


def test_what_a_tracker_lacks_in_the_end_is_said_with_the_remedy(folder: Path, store: Store, said: list[str]) -> None:
    with told(folder, store, said) as tracking:
        (folder / "study").write_text("in the way of a folder")
        store.write_record(RECORDS[0])
        tracking.ended(stage(CELLS[0]))
        tracking.complete()
    assert said[-1] == (
        f"tensorboard={folder} does not show everything: `scale-ray track {store.location} --to tensorboard={folder}` "
        "sends the rest"
    )


class Hanging:
    """A tracker that answers nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def marks(self, study: str) -> Mapping[str, str]:
        return {}

    def begin(self, run: Run) -> None:
        self.let_go.wait()

    def add(self, run: Run, step: int, metrics: Mapping[str, float]) -> None: ...
    def leave(self, run: Run, reason: str) -> None: ...
    def end(self, run: Run, outcome: Outcome) -> None: ...
    def show_report(self, study: str, files: Mapping[str, bytes], mark: str) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    tracker = Hanging()
    yield tracker
    tracker.let_go.set()


def test_a_tracker_that_hangs_holds_up_neither_the_study_nor_another_tracker(
    hanging: Hanging, folder: Path, store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_PATIENCE", 0.2)
    trackers = {"hanging=it": hanging, **open_trackers([f"tensorboard={folder}"])}
    store.write_record(RECORDS[0])
    with Tracking(trackers, "study", CELLS, store, said.append) as live:
        live.begun(stage(CELLS[0]))
        live.reported(stage(CELLS[0]), point(0))
        live.ended(stage(CELLS[0]))
        live.complete()
    assert steps(folder, CELLS[0]) == [0, 200, 400, 600]
    (line,) = said
    assert line.startswith("hanging=it does not show everything")


def test_one_training_without_a_store(folder: Path, said: list[str]) -> None:
    with TrackedTrial(open_trackers([f"tensorboard={folder}"]), None, said.append) as trial:
        trial.begun(CELLS[0])
        trial.point(CurvePoint.model_validate(point(0)["point"]))
        trial.done(RECORDS[0])
    ((cell, shown),) = readers.tensorboard(str(folder), "no study")
    assert (cell, shown.status) == (CELLS[0].id, "done")
    assert [step for name, step, _ in shown.points if name == "loss/ce"] == [0, 200, 400, 600]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("boom"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_one_training_that_ends_without_a_record(
    error: BaseException, status: str, folder: Path, said: list[str]
) -> None:
    def train() -> None:
        with TrackedTrial(open_trackers([f"tensorboard={folder}"]), None, said.append) as trial:
            trial.begun(CELLS[0])
            trial.point(CurvePoint.model_validate(point(0)["point"]))
            raise error

    with pytest.raises(type(error)):
        train()
    ((_, shown),) = readers.tensorboard(str(folder), "no study")
    assert shown.status == status


def test_of_one_training_that_failed_the_rest_is_sent_or_told(
    folder: Path, store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = failed(CELLS[0], Execution(), Failure(kind="RuntimeError", message="boom", traceback=""), Ran())

    def train() -> None:
        with TrackedTrial(open_trackers([f"tensorboard={folder}"]), store, said.append) as trial:
            (folder / "no study").write_text("in the way of a folder")
            trial.begun(CELLS[0])
            store.write_record(failure)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        train()
    assert "sends the rest" in said[-1]
