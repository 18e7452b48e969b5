"""A study that adds seeds until its comparisons are decided: two rounds on Ray; a second call finds all done."""

from pathlib import Path

import pytest
from studies import run

from scale_ray.store import Store

pytestmark = pytest.mark.slow

ASKED = ("--losses", "ce,ce+ssl", "--seeds", "2", "--until", "0.01", "--most-seeds", "3", "--set", "optim.steps=20")


def test_one_round_follows_the_other(tiny_root: Path, tmp_path: Path) -> None:
    first = run(tiny_root, tmp_path, *ASKED, "--set", "evaluate_every=20")
    assert first.returncode == 0, first.stdout + first.stderr
    seeds = sorted((record.config.combination, record.config.seed) for record in Store(tmp_path).records())
    assert seeds == [(losses, seed) for losses in ("ce", "ce+ssl") for seed in range(3)]
    decided = [line for line in first.stdout.splitlines() if line.startswith("lenet: ce+ssl against ce: ")]
    assert len(decided) == 2
    assert decided[0] != decided[1]
    again = run(tiny_root, tmp_path, *ASKED, "--set", "evaluate_every=20")
    assert again.returncode == 0
    assert decided[1] in again.stdout.splitlines()
