"""A study with a budget, on a real cluster whose node names a GPU and a price: it stops with every state saved."""

import re
from pathlib import Path

import pytest
from clusters import cluster, connected
from studies import command, finish

from scale_ray.store import Store
from scale_ray.sweep.prices import PRICE_LABEL, node_labels, price_in

LONG = (*("--losses", "ce", "--seeds", "1"), *("--set", "optim.steps=2000"), *("--set", "evaluate_every=1000"))
NO_OTHER_CHECKPOINT = ("--checkpoint-every", "100000")


def test_a_study_ends_with_its_budget(tiny_root: Path, tmp_path: Path) -> None:
    with cluster(1, num_gpus=1, labels={PRICE_LABEL: "0.5"}) as made:
        on_gpus = (*LONG, "--device", "cpu", "--gpus-per-trial", "1")
        # A second of training, counted from its first step, however long Ray needs to start.
        budget = (*NO_OTHER_CHECKPOINT, "--budget", "0.0003gpu-hours", "--report")
        line = command(tiny_root, tmp_path, *on_gpus, *budget, address=made.address)
        stopped = finish(line)
        with connected(made.address):
            assert sorted(price_in(labels) or 0 for labels in node_labels()) == [0, 0.5]
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert "the budget of 0.0003 GPU-hours is spent: every training saves its state first" in stopped.stdout
    assert "1 cell to do: the same command goes on, with as large a budget again" in stopped.stdout
    assert "report: " in stopped.stdout
    spent = re.search(r"spent ([\d.]+) GPU-hours of 0.0003 GPU-hours", stopped.stdout)
    assert spent
    assert float(spent[1]) >= 0.0003  # by how much more, depends on the machine
    assert Store(tmp_path).checkpoint_keys()  # with which test_stop_signal_on_ray.py goes on
    assert not list(tmp_path.glob("drivers/*"))


@pytest.mark.slow
def test_a_budget_that_ray_has_used_up_before_a_training_begins(tiny_root: Path, tmp_path: Path) -> None:
    over = finish(command(tiny_root, tmp_path, *LONG, "--budget", "1s"))
    assert over.returncode == 0, over.stdout + over.stderr
    assert over.stdout.splitlines()[-1] == (
        "1 cell to do: the same command goes on, with a larger budget: nothing was trained"
    )
    assert Store(tmp_path).checkpoint_keys() == []
    assert not list(tmp_path.glob("drivers/*"))


@pytest.mark.slow
def test_dollars_need_a_price(tiny_root: Path, tmp_path: Path) -> None:
    refused = finish(command(tiny_root, tmp_path, *LONG, "--budget", "30usd"))
    assert refused.returncode == 2
    assert "error: --budget of 30.00 USD: no node of this Ray tells its price" in refused.stderr
