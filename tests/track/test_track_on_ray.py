"""A study on a real local Ray that is shown live in two trackers, interrupted, continued, and sent again."""

from pathlib import Path

import pytest
import readers
from mlflow import MlflowClient
from studies import at_a_terminal, command, press_ctrl_c, run, run_here, run_search, wait_until

from scale_ray.cell import Cell
from scale_ray.records import Record
from scale_ray.store import Store
from scale_ray.track.content import outcome_of, run_of
from scale_ray.track.names import Names

Shown = dict[str, readers.Shown]


def points_of(record: Record) -> readers.Points:
    run = run_of(Cell(id=record.id, config=record.config, inputs=record.inputs), "study", Names([]))
    points = outcome_of(record, run, None).points
    return sorted((name, step, value) for step, metrics in points.items() for name, value in metrics.items())


def in_mlflow(uri: str) -> Shown:
    """The runs of cells; each has one."""
    runs = [(cell, run) for cell, run in readers.mlflow(uri, "study") if cell != "report"]
    assert len(dict(runs)) == len(runs)
    return dict(runs)


def in_tensorboard(folder: Path) -> Shown:
    runs = [(cell, run) for cell, run in readers.tensorboard(str(folder), "study") if cell != "report"]
    assert len(dict(runs)) == len(runs)
    return dict(runs)


@pytest.mark.slow
def test_a_study_is_shown_live_goes_on_after_ctrl_c_and_is_sent_again_without_a_trace(
    tiny_root: Path, tmp_path: Path, mlflow_server: str
) -> None:
    store, folder = tmp_path / "store", tmp_path / "events"
    targets = (f"tensorboard={folder}", f"mlflow={mlflow_server}")
    track = [word for target in targets for word in ("--track", target)]

    driver = at_a_terminal(command(tiny_root, store, *track))

    client = MlflowClient(mlflow_server)

    def one_done_and_one_shown_live() -> bool:
        experiment = client.get_experiment_by_name("study")
        if experiment is None or not list(store.glob("records/*.json")):
            return False
        running = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
        return any(run.data.metrics.get("source_val_accuracy", 0) > 0 for run in running)

    wait_until(one_done_and_one_shown_live, driver)
    printed = press_ctrl_c(driver, store)
    assert "warning" not in printed
    cut = in_mlflow(mlflow_server)
    assert {"KILLED interrupted"} <= {run.status for run in cut.values()}

    again = run(tiny_root, store, *track)
    assert again.returncode == 0, again.stderr
    assert "warning" not in again.stdout
    records = {record.id: record for record in Store(store).records()}
    assert len(records) == 4

    def check() -> None:
        of_mlflow, of_tensorboard = in_mlflow(mlflow_server), in_tensorboard(folder)
        assert of_mlflow.keys() == of_tensorboard.keys() == records.keys()
        assert {run.status for run in of_mlflow.values()} == {"FINISHED done"}
        assert len({run.group for run in of_mlflow.values()}) == 2
        for cell, record in records.items():
            expected = points_of(record)
            assert of_mlflow[cell].points == expected
            single = [(name, step, pytest.approx(value, rel=1e-6)) for name, step, value in expected]
            assert of_tensorboard[cell].points == single
        assert "report.html" in dict(readers.mlflow(mlflow_server, "study"))["report"].files

    check()
    to = [word for target in targets for word in ("--to", target)]
    for _ in range(2):
        printed = run_here(["", "-m", "scale-ray", "track", str(store), *to])
        assert printed.splitlines() == [f"{target}: study: 0 runs sent, 4 there before" for target in targets]
        check()


@pytest.mark.slow
def test_a_search_is_shown_live_and_what_it_stops_says_so(tiny_root: Path, tmp_path: Path) -> None:
    store, folder = tmp_path / "store", tmp_path / "events"
    finished = run_search(
        tiny_root, store, "--early-stop", "asha", "--track", f"tensorboard={folder}", trials=4, steps=120
    )
    assert finished.returncode == 0, finished.stderr
    assert "warning" not in finished.stdout
    shown = dict(readers.tensorboard(str(folder), "search"))
    records = {record.id for record in Store(store).records()}
    assert records <= shown.keys()
    assert all(run.status == "done" for cell, run in shown.items() if cell in records)
    stopped = [run.status for cell, run in shown.items() if cell not in records and cell != "report"]
    assert set(stopped) <= {"stopped"}
    assert all("losses.temperature=" in run.group for cell, run in shown.items() if cell != "report")
    assert "report" in shown
