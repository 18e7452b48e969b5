"""Searches on a real local Ray, run, killed and repeated as a person would do it: through the command."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from studies import (
    at_a_terminal,
    descendants,
    press_ctrl_c,
    run_here,
    run_search,
    search_command,
    wait_for_end,
    wait_until,
)

from scale_ray.store import Store


def trials_of(store: Path) -> list[optuna.trial.FrozenTrial]:
    journal = JournalStorage(JournalFileBackend(str(store / "tuning/search/journal.log")))
    return optuna.load_study(study_name="search", storage=journal).get_trials()


def test_a_search_ends_with_a_choice_that_train_takes(tiny_root: Path, tmp_path: Path) -> None:
    finished = run_search(tiny_root, tmp_path / "store", "--early-stop", "asha")
    assert finished.returncode == 0, finished.stderr
    trials = trials_of(tmp_path / "store")
    assert len({tuple(trial.params.values()) for trial in trials}) == len(trials) == 4
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    store, folder = Store(tmp_path / "store"), tmp_path / "store/tuning/search"
    table = pd.read_csv(folder / "settings.csv")
    done = table[table["state"].str.startswith("done")]
    assert len(store.record_ids()) == len(done)
    assert done["im"].iloc[0] == done["im"].max()
    assert store.stage_keys() == store.checkpoint_keys() == []
    assert {path.suffix for path in folder.glob("contour.*")} == set()  # one range and one list span no surface
    assert "Chosen by im: setting 0" in finished.stdout
    assert "so the default is kept" in finished.stdout or "scores highest" in finished.stdout
    assert (folder / "report.html").is_file()

    chosen = json.loads((folder / "chosen.json").read_text())
    usual = done[done["state"] == "done (default)"]
    assert chosen["losses.threshold"] == usual["losses.threshold"].iloc[0]  # one repeat shows nothing better
    assert chosen["tuning"]["settings"] == 4
    run_here(
        [
            *(sys.executable, "-m", "scale_ray.cli", "train", "--config", str(folder / "chosen.json")),
            *("--store", str(tmp_path / "again")),
        ]
    )
    (record,) = Store(tmp_path / "again").records()
    (same,) = [each for each in store.records() if each.config == record.config.replace({"tuning": None})]
    assert record.config.tuning is not None
    assert record.result == same.result  # what was tuned is what is trained, bit for bit


@pytest.mark.slow
def test_killed_at_a_third_and_run_again_tries_each_setting_once(tiny_root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    long = {"trials": 9, "steps": 120}
    options = ("--early-stop", "median", "--checkpoint-every", "20", "--set", "evaluate_every=30")
    line = search_command(tiny_root, store, *options, **long)
    driver = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)

    def a_third_has_ended() -> bool:
        return (store / "tuning/search/journal.log").exists() and sum(
            trial.state.is_finished() for trial in trials_of(store)
        ) >= 3

    wait_until(a_third_has_ended, driver)

    second = run_search(tiny_root, store, *options, **long)
    assert second.returncode == 2
    assert "another driver runs the search 'search' on this store" in second.stderr
    assert f"pid {driver.pid}, since " in second.stderr

    workers = [pid for pid, name in descendants(driver.pid) if name.startswith("ray::") and "Agent" not in name]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for_end(workers)
    assert any(trial.state.name == "RUNNING" for trial in trials_of(store))
    records = {path: path.read_bytes() for path in store.glob("records/*.json")}

    again = run_search(tiny_root, store, *options, **long)
    assert again.returncode == 0, again.stderr
    assert "going on: " in again.stdout
    trials = trials_of(store)
    assert len({tuple(trial.params.values()) for trial in trials}) == len(trials) == 9
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert {path: path.read_bytes() for path in records} == records
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(list(store.glob("records/*.json"))) == len(complete)


@pytest.mark.slow
def test_a_stop_under_ray_train_ends_its_workers(tiny_root: Path, tmp_path: Path) -> None:
    """Else they would go on to their end, hold their CPUs, and leave the record of a cell that was stopped."""
    options = ("--early-stop", "asha", "--workers-per-trial", "1", "--set", "evaluate_every=300")
    # What is left after a point must take longer than its news to arrive.
    finished = run_search(tiny_root, tmp_path, *options, trials=4, steps=1200)
    assert finished.returncode == 0, finished.stderr
    states = [trial.state.name for trial in trials_of(tmp_path)]
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert len(Store(tmp_path).record_ids()) == states.count("COMPLETE")
    assert not list(tmp_path.glob(".ray_train/*"))


@pytest.mark.slow
def test_interrupted_with_ctrl_c_goes_on(tiny_root: Path, tmp_path: Path) -> None:
    driver = at_a_terminal(search_command(tiny_root, tmp_path, trials=4, steps=120))
    wait_until(lambda: bool(list(tmp_path.glob("records/*.json"))), driver)
    printed = press_ctrl_c(driver, tmp_path)
    assert f"run the same command again to go on; `scale-ray report {tmp_path}` shows what is done" in printed
    assert "setting" in run_here([sys.executable, "-m", "scale_ray.cli", "status", str(tmp_path)])
    again = run_search(tiny_root, tmp_path, trials=4, steps=120)
    assert again.returncode == 0, again.stderr
    assert [trial.state.name for trial in trials_of(tmp_path)] == ["COMPLETE"] * 4
