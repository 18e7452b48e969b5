"""experiments/leaderboard.py: its studies have the cells that it says, and one command trains, goes on and writes."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from studies import LIMIT

from scale_ray.config import TrialConfig

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "experiments" / "leaderboard.py"
ROWS = {
    "source_only", "dan", "dann", "cdan", "cdan+E", "mcc", "mdd", "sdat", "mean_teacher", "fixmatch", "shot", "aad",
    "ce+ssl",
    "ce+ssl+dist+reg", "ce+ssl+mcc (scale source-aligned)", "ce+ssl+dist+reg+mcc (scale source-aligned)",
    "ce+ssl+dist+reg (scale prototype)", "ce+ssl+dist+reg (scale average)", "ce+ssl+dist+reg (scale flex)",
    "ce+ssl+dist+reg (scale relative)", "ce+ssl+dist+reg (scale neighbours)",
    "ce+ssl+mcc (scale strong-source source-aligned)", "ce+ssl+dist+reg+mcc (scale strong-source source-aligned)",
}  # fmt: skip


@pytest.fixture(scope="module")
def experiment() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def rows_of(cells: list[TrialConfig]) -> set[str]:
    return {"source_only" if config.method == "source_only" else config.approach for config in cells}


def test_digits_have_every_method_that_needs_no_pre_training(experiment: dict[str, Any]) -> None:
    cells = experiment["on_digits"](range(3), None).cells()
    assert rows_of(cells) == ROWS | {"mic"}
    assert len(cells) == 3 * 4 * 24
    assert {config.pair for config in cells} == {"mnist>mnistm", "optdigits>mnist", "fonts>mnist", "fonts>mnistm"}
    assert {(config.optim.steps, config.evaluate_every) for config in cells} == {(450, 450)}


@pytest.mark.parametrize(("name", "pairs"), [("PACS", 12), ("EmojiPhoto", 2)])
@pytest.mark.parametrize("encoder", ["mobilenet_v2", "lite0"])
def test_photographs_have_every_method_that_trains_on_features(
    experiment: dict[str, Any], name: str, pairs: int, encoder: str
) -> None:
    study = experiment["on_photographs"](name, encoder, "imagenet", range(3), None)
    cells = study.cells()
    assert study.name in experiment["STUDIES"]
    assert rows_of(cells) == ROWS | {"prototypes"}
    assert len(cells) == 3 * pairs * 24
    assert len({config.pair for config in cells}) == pairs
    assert {(config.optim.steps, config.evaluate_every) for config in cells} == {(1000, 1000)}
    assert {config.model.encoder for config in cells} == {"frozen"}


def test_methods_have_the_settings_of_their_papers(experiment: dict[str, Any]) -> None:
    cells = experiment["on_photographs"]("PACS", "mobilenet_v2", "imagenet", [0], None).cells()
    rates = {config.method: config.optim.learning_rate for config in cells}
    assert (rates["mcc"], rates["dann"], rates["scale"]) == (0.005, 0.01, 0.003)


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(SCRIPT), "--seeds", "1", "--steps", "4", "--limit", "3", "--address", "local"]
    line += ["--store", str(folder / "store"), "--results", str(folder), "--figure", str(folder / "board.png"), *more]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=LIMIT)


@pytest.mark.slow
def test_one_command_trains_and_writes_and_goes_on(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    left_out = "left out: PACS-mobilenet_v2, PACS-lite0, EmojiPhoto-mobilenet_v2, EmojiPhoto-lite0"
    assert left_out in done.stdout
    written = json.loads((tmp_path / "leaderboard" / "digits.json").read_text())
    measured = {method for method, entry in written["accuracies"].items() if entry["measured"]}
    assert measured == {"source_only", "dan", "dann"}
    assert {row["validator"] for row in written["choices"]} > {"ensv", "reverse"}
    assert (tmp_path / "board.png").is_file()
    first = (tmp_path / "leaderboard.md").read_bytes()
    again = run(tmp_path)
    assert "96 cells, 3 done, 0 to do" in again.stdout
    assert (tmp_path / "leaderboard.md").read_bytes() == first


def test_a_set_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--only", "digit")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown set 'digit': did you mean 'digits'?")


def test_a_set_without_its_folder_is_refused_where_it_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--only", "PACS-lite0")
    assert done.returncode == 2
    assert done.stderr == "error: --only PACS-lite0: its images lack: give --pacs FOLDER\n"
    assert not (tmp_path / "store").exists()
