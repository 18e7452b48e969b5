"""Studies on a real local Ray, run, killed and repeated as a person would do it: through the command."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from s3_server import S3Server
from studies import (
    COMBINATIONS,
    LIMIT,
    SETTINGS,
    STEPS,
    at_a_terminal,
    command,
    descendants,
    press_ctrl_c,
    results,
    run,
    run_here,
    wait_for_end,
    wait_until,
)

from scale_ray.config import Execution
from scale_ray.report import load
from scale_ray.store import Store
from scale_ray.training.trial import run_trial

DIVERGES = "ce+1e30*ssl"  # its weight is absurd


@pytest.fixture(scope="module")
def study(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study of six cells, two of which fail: its store, and what it printed; TensorBoard shows it."""
    store, trackers = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("trackers")
    track = ("--track", f"tensorboard={store}-events")
    for name in ("mlflow", "wandb"):  # what is not asked for is not imported, though it is installed
        (trackers / f"{name}.py").write_text("import os\nos.abort()\n")
    path = os.pathsep.join([str(trackers), *filter(None, [os.environ.get("PYTHONPATH")])])
    losses = f"{COMBINATIONS},{DIVERGES}"
    finished = run(tiny_root, store, "--losses", losses, *track, "--report", PYTHONPATH=path)
    assert finished.returncode == 1, finished.stderr
    return store, finished.stdout


@pytest.fixture(scope="module")
def undisturbed(study: tuple[Path, str], tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the four cells that were done, and the report of a study of these four."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    shutil.copytree(study[0], store)
    for record in Store(store).records():
        if record.status == "failed":
            Path(Store(store).record_location(record.id, record.status)).unlink()
    run_here(command(tiny_root, store, "--report"))
    return store


def test_every_cell_leaves_one_record_and_the_run_ends_with_grid_and_page(study: tuple[Path, str]) -> None:
    store, printed = study
    frame = load(store)
    assert len(frame) == 6
    done = frame[frame["status"] == "done"]
    assert done.groupby("losses").size().to_dict() == {"ce": 2, "ce+ssl+dist+reg": 2}
    assert set(done[done["losses"] == "ce"]["method"]) == {"source_only"}
    assert "[4 of 6 done, 0 running, 2 failed]" in printed
    assert "scale (ce+ssl+dist+reg)" in printed
    assert str(store / "report" / "report.html") in printed
    assert not list((store / "stages").iterdir())


def test_a_crashing_cell_leaves_a_hole_and_a_reason(study: tuple[Path, str]) -> None:
    """One combination diverges; the others go on."""
    store, _ = study
    frame = load(store).groupby("losses")
    assert frame["status"].unique().map(list).to_dict() == {
        "ce": ["done"],
        "ce+ssl+dist+reg": ["done"],
        DIVERGES: ["failed"],
    }
    crashed = frame.get_group(DIVERGES)
    assert frame["target_accuracy"].count().to_dict() == {"ce": 2, "ce+ssl+dist+reg": 2, DIVERGES: 0}
    assert crashed["error"].str.contains("TrainingDiverged: loss").all()
    table = (store / "report" / "losses_by_backbone.md").read_text()
    row = next(line for line in table.splitlines() if "1e30" in line)
    assert "failed" in row
    page = (store / "report" / "report.html").read_text()
    assert "TrainingDiverged" in page
    assert "lower optim.learning_rate" in page


def test_a_tracker_was_told_of_every_cell(study: tuple[Path, str]) -> None:
    """As many runs as records, and none that a further command would send: tests/track has what they show."""
    store, printed = study
    assert "warning" not in printed
    events = Path(f"{store}-events")
    runs = [path.parent for path in events.rglob("events.out.tfevents.*") if path.parent.name != "report"]
    assert len(set(runs)) == 6
    again = run_here(["", "-m", "scale-ray", "track", str(store), "--to", f"tensorboard={events}"])
    assert again == f"tensorboard={events}: study: 0 runs sent, 6 there before\n"


def test_a_finished_study_is_not_run_again(study: tuple[Path, str], undisturbed: Path, tiny_root: Path) -> None:
    """The fixture `undisturbed` has asked for it again."""
    written = {path.name: path.stat().st_mtime_ns for path in (undisturbed / "records").iterdir()}
    assert len(written) == 4
    assert written.items() <= {path.name: path.stat().st_mtime_ns for path in (study[0] / "records").iterdir()}.items()
    assert "4 cells, 4 done, 0 to do" in run_here(command(tiny_root, undisturbed, "--dry-run"))
    assert not list((undisturbed / "checkpoints").iterdir())


def test_train_leaves_the_record_that_the_study_left(undisturbed: Path, tiny_root: Path, tmp_path: Path) -> None:
    """The same trial without Ray: the same id and the same result, bit for bit."""
    run_here(
        [
            *(sys.executable, "-m", "scale_ray.cli", "train", "--benchmark", "image_folder", "--root", str(tiny_root)),
            *("--source", "plain", "--target", "inverted", "--losses", "ce+ssl+dist+reg", "--seed", "1"),
            *("--store", str(tmp_path)),
            *(*SETTINGS, "--set", f"optim.steps={STEPS}", "--set", "evaluate_every=40"),
        ]
    )
    ((trial_id, result),) = results(tmp_path).items()
    assert results(undisturbed)[trial_id] == result


def test_two_workers_under_ray_train_give_one_workers_curve(tiny_root: Path, tmp_path: Path) -> None:
    """BatchNorm frozen, so that nothing depends on how the batch is split: the same cell, to float tolerance."""
    short = ("--losses", "ce+ssl+dist+reg", "--seeds", "1", "--set", "model.batch_norm=frozen")
    short = (*short, "--set", "optim.learning_rate=0.01", "--set", "optim.steps=20", "--set", "evaluate_every=5")
    two = tmp_path / "two"
    finished = run(tiny_root, two, *short, "--workers-per-trial", "2")
    assert finished.returncode == 0, finished.stderr
    (together,) = Store(two).records()
    ran = together.provenance
    assert (ran.runner, ran.workers, ran.backend) == ("ray train", 2, "gloo")
    one = Store(tmp_path / "one", create=True)
    alone = run_trial(together.config.replace({"parallel.workers": 1}), Execution(root=tiny_root, device="cpu"), one)
    assert alone.id == together.id
    assert alone.result is not None
    assert together.result is not None
    for expected, found in zip(alone.result.curve, together.result.curve, strict=True):
        assert found.losses == pytest.approx(expected.losses, rel=1e-4)
        assert found.step == expected.step
    assert not list(two.glob(".ray_train/*"))


@pytest.mark.slow
def test_a_store_on_s3_holds_the_same_records(
    undisturbed: Path, tiny_root: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the report of a remote store goes to the folder in which one is
    store = s3.new_url()
    finished = run(tiny_root, store, "--seeds", "1", "--report")
    assert finished.returncode == 0, finished.stderr
    assert results(store).items() <= results(undisturbed).items()
    assert len(results(store)) == 2
    assert Store(store).checkpoint_keys() == []
    assert (tmp_path / "report" / "report.html").exists()


def test_killed_with_sigkill_and_run_again_gives_the_same_table(
    undisturbed: Path, tiny_root: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    driver = subprocess.Popen(
        command(tiny_root, store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )

    def some_done_and_some_begun() -> bool:
        done = {path.stem for path in store.glob("records/*.json")}
        begun = {path.stem for path in store.glob("checkpoints/*.pt")}
        return bool(done) and bool(begun - done)

    wait_until(some_done_and_some_begun, driver)
    workers = [pid for pid, name in descendants(driver.pid) if name.startswith("ray::") and "Agent" not in name]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for_end(workers)
    records = {path: path.read_bytes() for path in store.glob("records/*.json")}
    checkpoints = list(store.glob("checkpoints/*.pt"))
    assert 0 < len(records) < 4
    assert checkpoints

    again = run(tiny_root, store, "--report")
    assert again.returncode == 0, again.stderr
    assert f"4 cells, {len(records)} done, {4 - len(records)} to do" in again.stdout
    assert {path: path.read_bytes() for path in records} == records  # finished cells were not run again
    assert results(store) == results(undisturbed)
    columns = ["cell", "losses", "seed", "status", "target_accuracy", "teacher_accuracy", "source_val_accuracy"]
    pd.testing.assert_frame_equal(load(store)[columns], load(undisturbed)[columns])
    for table in ("losses_by_backbone", "pairs_by_method"):
        name = f"report/{table}.md"
        assert (store / name).read_text() == (undisturbed / name).read_text()


@pytest.mark.slow
def test_interrupted_with_ctrl_c_goes_on(undisturbed: Path, tiny_root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    driver = at_a_terminal(command(tiny_root, store, "--report"))
    wait_until(lambda: bool(list(store.glob("records/*.json"))), driver)
    printed = press_ctrl_c(driver, store)
    records = {path: path.read_bytes() for path in store.glob("records/*.json")}
    assert f"interrupted with {4 - len(records)} cells to do: run the same command again to go on" in printed
    assert f"`scale-ray report {store}` shows what is done" in printed
    assert not (store / "report").exists()
    again = run(tiny_root, store)
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in records} == records  # finished cells were not run again
    assert results(store) == results(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_ends_at_once_and_goes_on(
    number: signal.Signals, undisturbed: Path, tiny_root: Path, tmp_path: Path
) -> None:
    """`ray job stop`, a closed terminal: there is no time for a report, but for freeing the leases."""
    store = tmp_path / "store"
    line = command(tiny_root, store, "--report")
    driver = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: bool(list(store.glob("checkpoints/*.pt"))), driver)
    below = [pid for pid, _ in descendants(driver.pid)]
    driver.send_signal(number)
    printed, _ = driver.communicate(timeout=LIMIT)
    assert driver.returncode == 128 + number, printed
    assert "run the same command again to go on" in printed
    assert not (store / "report").exists()
    assert not list(store.glob("drivers/*"))
    wait_for_end(below)
    again = run(tiny_root, store)
    assert again.returncode == 0, again.stderr
    assert "another driver" not in again.stdout
    assert results(store) == results(undisturbed)


@pytest.mark.slow
def test_a_killed_trial_process_is_replaced_and_goes_on(undisturbed: Path, tiny_root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    driver = subprocess.Popen(command(tiny_root, store), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: bool(list(store.glob("checkpoints/*.pt"))), driver)
    actor = next(pid for pid, name in descendants(driver.pid) if name.startswith("ray::") and ".train" in name)
    os.kill(actor, signal.SIGKILL)
    printed, _ = driver.communicate(timeout=LIMIT)
    assert driver.returncode == 0, printed
    assert "its process was lost, it will go on from its checkpoint" in printed
    assert "[4 of 4 done, 0 running, 0 failed]" in printed
    assert results(store) == results(undisturbed)


@pytest.mark.slow
def test_models_asked_for_later_and_interrupted_are_said_to_be_missing(
    undisturbed: Path, tiny_root: Path, tmp_path: Path
) -> None:
    """The records are there already, the models are not: Ctrl-C must not look like success."""
    store = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    driver = at_a_terminal(command(tiny_root, store, "--keep-model"))
    wait_until(lambda: bool(list(store.glob("checkpoints/*.pt"))), driver)
    assert "cells to do: run the same command again to go on" in press_ctrl_c(driver, store)
    assert results(store) == results(undisturbed)


def test_dry_run_shows_cells_and_cost_and_runs_nothing(undisturbed: Path, tiny_root: Path) -> None:
    wider = run_here(command(tiny_root, undisturbed, "--dry-run", "--seeds", "3"))
    assert "6 cells, 4 done, 2 to do" in wider
    assert f"{2 * STEPS:,} steps, about" in wider
    lines = wider.splitlines()
    assert sum(line.endswith(" done") for line in lines) == 4
    assert sum(line.endswith(" to do") for line in lines) == 2
    assert len(list((undisturbed / "records").iterdir())) == 4


@pytest.mark.slow
def test_a_trial_larger_than_the_machine_is_refused(tiny_root: Path, tmp_path: Path) -> None:
    refused = run(tiny_root, tmp_path, "--gpus-per-trial", "64")
    assert refused.returncode == 2
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert "64 GPU" in line
    assert "--gpus-per-trial" in line
    assert not list((tmp_path / "records").iterdir())
