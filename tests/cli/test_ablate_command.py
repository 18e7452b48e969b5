"""`scale-ray ablate`: the planned grid, and the grids that it refuses."""

import json
import re
from pathlib import Path

import pytest
import torch
from commands import ablate, command, refused

from scale_ray.models import build_encoder
from scale_ray.store import Store


def test_dry_run_shows_cells_and_runs_none(images: Path, tmp_path: Path) -> None:
    more = ("--pairs", "Art:Real World, Real World > Art", "--losses", "ce,ce+ssl", "--seeds", "7,8")
    outcome = ablate(images, tmp_path, *more, "--dry-run", "--limit", "5")
    assert outcome.status == 0
    lines = [line[14:] for line in outcome.out.splitlines()]
    assert [re.sub("  +", " | ", line) for line in lines[:8]] == [
        "Art>Real World ce lenet seed 7 | to do",
        "Art>Real World ce+ssl lenet seed 7 | to do",
        "Real World>Art ce lenet seed 7 | to do",
        "Real World>Art ce+ssl lenet seed 7 | to do",
        "Art>Real World ce lenet seed 8 | to do",
        "Art>Real World ce+ssl lenet seed 8 | not in this run",
        "Real World>Art ce lenet seed 8 | not in this run",
        "Real World>Art ce+ssl lenet seed 8 | not in this run",
    ]
    assert outcome.out.splitlines()[8:10] == [
        "5 stages to train:",
        "  Art>Real World ce lenet seed 7: steps 0 to 50",
    ]
    assert outcome.out.splitlines()[-1] == (
        "ablation-image_folder: 8 cells, 0 done, 5 to do (0 failed before), 250 steps; "
        "the time left is said once some steps are measured"
    )
    assert list(Store(tmp_path).records()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pairs", "Art"], ["--pairs: 'Art' is not a domain pair", "write source:target"]),
        (["--pairs", "Art: "], ["--pairs: 'Art:' is not a domain pair"]),
        (["--pairs", "Art:Art"], ["source and target are both 'Art'"]),
        (["--pairs", "Art:Real World,Art>Real World"], ["plans one cell twice (Art>Real World ce lenet seed 0)"]),
        (["--pairs", "Art:Moon"], ["no folder for domain 'Moon'", "it holds: Art, Real World"]),
        (["--seeds", ""], ["--seeds ''", "write how many (3)"]),
        (["--seeds", "one"], ["--seeds 'one'", "write how many (3)"]),
        (["--seeds", "0"], ["--seeds 0: write 1 or more"]),
        (["--name", "my study"], ["study 'my study': the name is a file's: write only letters"]),
        (["--choose", "im", "--no-report"], ["--choose: the report makes the choice", "leave out --no-report"]),
        (["--set", "seed=3"], ["--set seed: the grid decides it", "--seeds"]),
        (["--set", "losses.terms=ce"], ["--set losses.terms: the grid decides it", "--losses"]),
        (["--set", "model.backbone=lenet"], ["--set model.backbone: the grid decides it", "--backbone"]),
    ],
)
def test_grids_that_cannot_be_are_refused(images: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    usual = ["--pairs", "Art:Real World", "--losses", "ce", "--seeds", "1", "--dry-run"]
    refused(ablate(images, tmp_path, *usual, *arguments), *words)


def test_a_frozen_encoder_goes_with_steps(images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "lenet.pth"
    torch.save(build_encoder("lenet", "none").state_dict(), weights)
    grid = ("--pairs", "mnist:mnistm", "--losses", "ce", "--seeds", "1", "--steps", "200")
    outcome = command("ablate", "--frozen", "--weights", weights, *grid, "--store", tmp_path / "s", "--dry-run")
    assert outcome.status == 0, outcome.err
    assert "200 steps" in outcome.out
    refused(command("ablate", "--frozen", *grid, "--store", tmp_path / "s", "--dry-run"), "weights", "frozen")


def test_two_spellings_of_a_domain_are_one() -> None:
    outcome = command("ablate", "--benchmark", "office_home", "--pairs", "Art:Real World,Art:real", "--dry-run")
    refused(outcome, "plans one cell twice (Art>Real_World ce resnet50 seed 0)")


def test_what_a_search_chose_is_a_config_for_ablate(images: Path, tmp_path: Path) -> None:
    file, budget = tmp_path / "chosen.json", {"study": "s", "validator": "im", "sampler": "tpe", "settings": 3}
    budget |= {"fields": ["losses.threshold"], "steps": 9, "losses": "ce", "pairs": ["a>b"], "seeds": [0]}
    file.write_text(json.dumps({"data.benchmark": "image_folder", "losses.threshold": 0.7, "tuning": budget}))
    pair = ("--pairs", "Art:Real World", "--dry-run")
    taken = ablate(images, tmp_path / "store", *pair, "--config", str(file))
    assert taken.status == 0
    cells = {line.split()[0] for line in taken.out.splitlines() if line.endswith("to do")}
    untuned = ablate(images, tmp_path / "store", *pair, "--set", "losses.threshold=0.7")
    assert cells.isdisjoint(line.split()[0] for line in untuned.out.splitlines() if line.endswith("to do"))


def test_a_config_file_cannot_set_what_the_grid_decides(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "seeds.json"
    file.write_text('{"seed": 7, "losses": {"threshold": 0.9}}')
    outcome = ablate(images, tmp_path / "store", "--pairs", "Art:Real World", "--config", str(file), "--dry-run")
    assert outcome.status == 2
    assert "seeds.json seed: the grid decides it: use --seeds" in outcome.err
