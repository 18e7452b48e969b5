"""Ray's workers import what the driver imports, whatever lies in the working folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from studies import LIMIT, command, search_command

from scale_ray.store import Store

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1]
FOREIGN = "raise RuntimeError('imported from the working folder')\n"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working folder with another checkout of this package, and files named as modules of Python and of Ray's."""
    folder = tmp_path / "elsewhere"
    (folder / "scale_ray").mkdir(parents=True)
    for name in ("scale_ray/__init__.py", "statistics.py", "queue.py", "random.py", "torch.py", "psutil.py"):
        (folder / name).write_text(FOREIGN)
    return folder


def installed(folder: Path, line: list[str]) -> list[str]:
    """The command line as that of an installed `scale-ray`, which has a script in a folder of its own."""
    script = folder / "bin" / "scale-ray"
    script.parent.mkdir()
    script.write_text("from scale_ray.cli import main\nmain()\n")
    assert line[1:3] == ["-m", "scale_ray.cli"]
    return [sys.executable, str(script), *line[3:]]


def finish(line: list[str], working_folder: Path, *search_path: Path) -> str:
    path = os.pathsep.join(map(str, search_path))
    done = subprocess.run(
        line, cwd=working_folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def all_done(store: Path) -> int:
    records = list(Store(store).records())
    assert {record.status for record in records} == {"done"}, [record.failure for record in records]
    return len(records)


@pytest.mark.slow
def test_a_study_trains_with_the_drivers_package(elsewhere: Path, tiny_root: Path, tmp_path: Path) -> None:
    line = command(tiny_root, tmp_path / "store", "--losses", "ce", "--seeds", "1", "--set", "optim.steps=8")
    finish(installed(tmp_path, line), elsewhere, PACKAGE)
    assert all_done(tmp_path / "store") == 1


@pytest.mark.slow
def test_an_experiment_trains_with_its_own_helpers(elsewhere: Path, tiny_root: Path, tmp_path: Path) -> None:
    """The script's folder, where its helpers lie, stays before the installed packages, as in the driver."""
    line = [sys.executable, str(HERE / "own_study.py"), str(tiny_root), str(tmp_path / "store")]
    finish(line, elsewhere, PACKAGE, HERE.parent)
    assert all_done(tmp_path / "store") == 3


@pytest.mark.slow
def test_a_search_trains_with_the_drivers_package(elsewhere: Path, tiny_root: Path, tmp_path: Path) -> None:
    finish(installed(tmp_path, search_command(tiny_root, tmp_path / "store", trials=1)), elsewhere, PACKAGE)
    assert all_done(tmp_path / "store") == 1


@pytest.mark.slow
def test_workers_of_ray_train_import_the_drivers_package(elsewhere: Path, tiny_root: Path, tmp_path: Path) -> None:
    line = command(tiny_root, tmp_path / "store", "--losses", "ce", "--seeds", "1", "--set", "optim.steps=8")
    finish(installed(tmp_path, [*line, "--ray-train", "always"]), elsewhere, PACKAGE)
    assert all_done(tmp_path / "store") == 1


PROBE = """
import json, sys
import ray
from scale_ray.sweep.imports import job_config

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", job_config=job_config())

@ray.remote
def found():
    import own_module
    return own_module.__file__, sys.path

print(json.dumps([sys.path, *ray.get(found.remote())]))
"""


def test_workers_search_the_same_folders_first_and_in_the_same_order(elsewhere: Path, tmp_path: Path) -> None:
    for name in ("script", "first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own_module.py").write_text("")
    (tmp_path / "script" / "own_module.py").unlink()
    (tmp_path / "script" / "probe.py").write_text(PROBE)
    line = [sys.executable, str(tmp_path / "script" / "probe.py")]
    here, module, there = json.loads(finish(line, elsewhere, PACKAGE, tmp_path / "first", tmp_path / "second"))
    ours = [str(PACKAGE), str(tmp_path / "first"), str(tmp_path / "second")]
    assert module == str(tmp_path / "first" / "own_module.py")
    for paths in (here, there):
        assert [path for path in paths if path in ours][:3] == ours
        assert str(elsewhere) not in paths
    assert there[0] == here[0]
