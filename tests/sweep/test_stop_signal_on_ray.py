"""SIGUSR2: a study or search saves the state of every training and ends with status 75; run again, it goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from studies import LIMIT, command, finish, results, run_search, search_command, wait_until

from scale_ray.store import Store

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


def waiting_study(root: Path, store: Path, file: Path) -> list[str]:
    """The command line of a study whose steps take 50 ms each until `file` is there."""
    script = Path(__file__).parent / "waiting_study.py"
    return [sys.executable, str(script), str(root), str(store), str(file), "--no-report", *NO_OTHER_CHECKPOINT]


def test_a_study_saves_what_trains_and_goes_on(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    store, undisturbed, file = tmp_path / "store", tmp_path / "undisturbed", tmp_path / "file"
    study = started(waiting_study(tiny_root, store, file))
    wait_until(lambda: trains(store), study)
    printed = stopped(study, 75)
    assert "ordered to stop: every training saves its state first" in printed
    assert "interrupted with 1 cells to do: run the same command again to go on" in printed
    assert Store(store).checkpoint_keys()
    assert not list(store.glob("drivers/*"))
    steps = []
    for each in store, undisturbed:
        file.write_text("")
        ended = finish(waiting_study(tiny_root, each, file))
        assert ended.returncode == 0, ended.stderr
        steps.append(file.stat().st_size)
    assert 0 < steps[0] < steps[1]  # it went on from where it was stopped
    assert results(store) == results(undisturbed)


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
