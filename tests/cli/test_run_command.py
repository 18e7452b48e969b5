"""scale-ray run and init: the experiments of the package, and a file to begin one's own with."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from commands import command, refused

from scale_ray.cli.run import EXPERIMENTS
from scale_ray.cli.shipped import shipped


def test_every_experiment_is_there_and_no_other() -> None:
    files = {path.stem for path in shipped("experiments").glob("*.py")} - {"__init__"}
    assert files == set(EXPERIMENTS)


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_an_experiment_has_its_own_help(name: str) -> None:
    told = command("run", name, "--help")
    assert told.status == 0
    about = ast.get_docstring(ast.parse((shipped("experiments") / f"{name}.py").read_text()))
    assert about is not None
    assert about.split()[:4] == told.out.split("\n\n")[1].split()[:4]


def test_an_experiment_takes_its_options(tmp_path: Path) -> None:
    planned = command("run", "demo", "--dry-run", "--losses", "ce", "--store", tmp_path / "store")
    assert "demo: 2 cells, 0 done, 2 to do" in planned.out


def test_an_experiment_that_there_is_not_is_one_line() -> None:
    refused(command("run", "demos"), "unknown experiment 'demos': did you mean 'demo'?")
    refused(command("run"), "EXPERIMENT")


def test_a_new_file_runs_as_it_is_and_an_existing_one_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    assert command("init", file).status == 0
    line = [sys.executable, str(file), "--dry-run", "--store", str(tmp_path / "store")]
    planned = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert "mine: 18 cells, 0 done, 18 to do" in planned
    file.write_text("mine")
    refused(command("init", file), "mine.py: exists already")
    assert file.read_text() == "mine"
    refused(command("init", tmp_path / "mine"), "write ", "mine.py")


def test_a_new_file_names_the_domains_that_are_there(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "phones.py"
    assert command("init", file, "--root", images, "--frozen").status == 0
    text = file.read_text()
    ast.parse(text)
    assert 'base_config("image_folder", {"model.encoder": "frozen"})' in text
    assert '"Art:Real World", "Real World:Art"' in text
    assert f"root={str(images)!r}" in text
    (tmp_path / "empty").mkdir()
    refused(command("init", tmp_path / "other.py", "--root", tmp_path / "empty"), "a study needs two")
    assert not (tmp_path / "other.py").exists()
