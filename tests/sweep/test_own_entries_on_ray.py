"""A user's own method, loss term and training function, from their own files, through Ray."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from studies import finish, results

from scale_ray.store import Store

HERE = Path(__file__).parent


def run(folder: Path, root: Path, store: Path, *more: str) -> str:
    """The experiment from a folder that no worker knows, in a process that starts elsewhere."""
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    finished = finish([sys.executable, str(folder / "own_study.py"), str(root), str(store), *more], PYTHONPATH=path)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's two files."""
    found = tmp_path / "experiment"
    found.mkdir()
    for name in ("own_study.py", "own_helpers.py"):
        shutil.copy(HERE / name, found / name)
    return found


def test_they_reach_rays_workers_and_name_their_cells(folder: Path, tiny_root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert f"own in {store}: 3 cells, 3 done, 0 to do" in run(folder, tiny_root, store)
    records = {record.config.approach: record for record in Store(store).records()}
    assert {approach: (record.status, *record.inputs) for approach, record in records.items()} == {
        "mine": ("done", "source", "target", "method mine"),
        "nearest": ("done", "source", "target", "method nearest"),
        "ce+0.1*pull": ("done", "source", "target", "loss term pull"),
    }
    assert "own: 3 cells, 3 done, 0 to do" in run(folder, tiny_root, store, "--dry-run")
    helpers = folder / "own_helpers.py"
    helpers.write_text(helpers.read_text().replace("2.0", "3.0"))
    assert "own: 3 cells, 2 done, 1 to do" in run(folder, tiny_root, store, "--dry-run")  # `mine` alone reads it


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended_and_goes_on_from_its_checkpoint(
    folder: Path, tiny_root: Path, tmp_path: Path
) -> None:
    """A term that never returns, the first time: as a collective that waits for a lost GPU."""
    study, hung = folder / "own_study.py", tmp_path / "hung"
    term = f"""
CALLS = []

def pull(step, losses):
    CALLS.append(step)
    if len(CALLS) == 5 and not Path({str(hung)!r}).exists():
        Path({str(hung)!r}).touch()
        time.sleep(1e6)
"""
    text = study.read_text().replace("def pull(step, losses):\n", term)
    study.write_text(text.replace("import sys\n", "import sys\nimport time\nfrom pathlib import Path\n", 1))
    once = ("--methods", "scale:ce+0.1*pull", "--checkpoint-every", "5", "--hang-after", "20")
    printed = run(folder, tiny_root, tmp_path / "store", *once)
    assert hung.exists()
    assert "TrainingHung: no sign of life for 20 s, it will go on from its checkpoint" in printed
    (record,) = Store(tmp_path / "store").records()
    assert record.status == "done"
    run(folder, tiny_root, tmp_path / "undisturbed", *once)
    assert results(tmp_path / "store") == results(tmp_path / "undisturbed")


@pytest.mark.slow
def test_they_reach_workers_of_ray_train(folder: Path, tiny_root: Path, tmp_path: Path) -> None:
    run(folder, tiny_root, tmp_path / "store", "--ray-train", "always")
    records = list(Store(tmp_path / "store").records())
    assert [record.status for record in records] == ["done"] * 3
    assert {record.provenance.runner for record in records} == {"ray train"}
