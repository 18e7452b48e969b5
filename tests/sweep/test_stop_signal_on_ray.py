"""SIGUSR2: a study or search saves the state of every training and ends with status 75; run again, it goes on."""

import signal
import subprocess
from pathlib import Path

import pytest
from studies import LIMIT, command, results, run, run_search, search_command, wait_until

from scale_ray.config import Execution
from scale_ray.store import Store
from scale_ray.training.trial import run_trial

NO_OTHER_CHECKPOINT = ("--checkpoint-every", "100000")


def started(line: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def trains(store: Path) -> bool:
    """Whether a driver announces a training that has a slot."""
    return any('"started": true' in path.read_text() for path in store.glob("drivers/*.json"))


def stopped(process: subprocess.Popen[str], status: int) -> str:
    process.send_signal(signal.SIGUSR2)
    printed, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == status, printed
    return printed


def test_a_study_saves_what_trains_and_goes_on(tiny_root: Path, tmp_path: Path) -> None:
    store, undisturbed = tmp_path / "store", Store(tmp_path / "undisturbed", create=True)
    one = ("--losses", "ce", "--seeds", "1", *NO_OTHER_CHECKPOINT)
    long = (
        *one,
        "--set",
        "optim.steps=3000",
        "--set",
        "evaluate_every=1500",
    )  # a fast machine makes 200 steps a second
    study = started(command(tiny_root, store, *long))
    wait_until(lambda: trains(store), study)
    printed = stopped(study, 75)
    assert "ordered to stop: every training saves its state first" in printed
    assert "interrupted with 1 cells to do: run the same command again to go on" in printed
    assert Store(store).checkpoint_keys()
    assert not list(store.glob("drivers/*"))
    again = run(tiny_root, store, *long)
    assert again.returncode == 0, again.stderr
    (plan,) = Store(store).plans()
    for cell in plan.cells:
        run_trial(cell.config, Execution(root=tiny_root, device="cpu"), undisturbed)
    assert results(store) == results(undisturbed.location)


def test_before_a_training_has_begun_there_is_nothing_to_save(tiny_root: Path, tmp_path: Path) -> None:
    study = started(command(tiny_root, tmp_path))
    assert study.stdout is not None
    while "starting Ray" not in study.stdout.readline():
        assert study.poll() is None
    assert "stopped by SIGUSR2 before a training began\n" in stopped(study, 130)
    assert Store(tmp_path).checkpoint_keys() == []


@pytest.mark.slow
def test_a_search_goes_on(tiny_root: Path, tmp_path: Path) -> None:
    long = {"trials": 2, "steps": 1500}
    search = started(search_command(tiny_root, tmp_path, *NO_OTHER_CHECKPOINT, **long))
    wait_until(lambda: trains(tmp_path), search)
    assert "interrupted: run the same command again" in stopped(search, 75)
    again = run_search(tiny_root, tmp_path, *NO_OTHER_CHECKPOINT, **long)
    assert again.returncode == 0, again.stderr
    assert "going on: " in again.stdout
