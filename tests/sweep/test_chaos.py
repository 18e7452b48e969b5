"""The campaign of random kills: its choices, its checks, and a short one.

    make faults

The long one is `python benchmarks/chaos.py`; its results are in benchmarks/results/chaos.md.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from studies import LIMIT

from scale_ray.store import Store

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY / "benchmarks"))

import chaos  # noqa: E402
from faults.choices import Run, draw  # noqa: E402
from faults.processes import below, settled  # noqa: E402
from faults.stores import Watched, WatchedFolder, bucket, left_in, wait_for  # noqa: E402

WAYS: dict[str, Any] = {
    "cells": 24,
    "kills": 8,
    "drivers": (1, 2),
    "places": ("local", "cluster"),
    "stores": ("folder", "s3"),
}


def way(run: Run) -> tuple[str, int, str, int]:
    return run.place, run.workers, run.store, run.drivers


def test_a_run_is_drawn_again_from_its_seed_and_number() -> None:
    assert draw(3, 5, **WAYS) == draw(3, 5, **WAYS)
    assert draw(3, 5, **WAYS).kills != draw(4, 5, **WAYS).kills
    assert draw(3, 5, **WAYS).kills != draw(3, 6, **WAYS).kills


def test_twelve_runs_are_of_twelve_ways_and_half_of_them_have_two_drivers() -> None:
    runs = [draw(0, number, **WAYS) for number in range(24)]
    assert Counter(map(way, runs)) == Counter(dict.fromkeys(set(map(way, runs)), 2))
    assert len(set(map(way, runs))) == 12
    assert Counter(run.drivers for run in runs) == {1: 12, 2: 12}
    first = Counter(kill.kinds[0] for run in runs for kill in run.kills)
    assert set(first) == {"driver", "trial", "worker", "controller", "raylet", "head", "s3"}
    assert all(0 <= kill.after < 23 for run in runs for kill in run.kills)


@pytest.fixture(params=["folder", "s3"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    if request.param == "s3":
        with bucket() as (store, _):
            yield store
    else:
        store = WatchedFolder(tmp_path)
        yield store
        store.stop()


def test_a_done_record_that_is_written_again_is_seen(watched: Watched) -> None:
    """A failed record that a done one replaces is no second writing."""
    files = Store(watched.location, create=True).files
    for name, status in (("a", "failed"), ("a", "done"), ("b", "done"), ("c", "failed"), ("b", "done"), ("c", "done")):
        before = watched.writes.total()
        files.write(f"records/{64 * name}.json", json.dumps({"status": status}).encode())
        assert wait_for(lambda: watched.writes.total() == before + (status == "done"), LIMIT, 0.01)  # noqa: B023
        time.sleep(0.03)  # a folder is looked at every 10 ms
    assert (watched.done, watched.twice) == (3, [64 * "b"])
    assert {f"records/{64 * name}.json" for name in "abc"} <= set(watched.names())


def test_files_that_a_study_should_not_leave_are_found() -> None:
    names = [
        *("records/ab.json", "studies/study.json", "report/report.html", ".keep", "models/x.safetensors"),
        *("records/.ab.json.k3j2", ".tune_1/x/experiment.json", ".ray_train/key/checkpoint_0/state.pt"),
        *("leases/ab.1", "leases/.ab.1.xyz", "drivers/d.json", "checkpoints/ab.pt", "stages/s.61.pt"),
    ]
    assert left_in(names) == {
        "temporary": [
            *("records/.ab.json.k3j2", ".tune_1/x/experiment.json", ".ray_train/key/checkpoint_0/state.pt"),
            "leases/.ab.1.xyz",
        ],
        "leases": ["leases/ab.1"],
        "announcements": ["drivers/d.json"],
        "states": ["checkpoints/ab.pt", "stages/s.61.pt"],
    }


def test_a_run_that_left_anything_has_failed() -> None:
    clean: dict[str, Any] = {key: [] for keys in chaos.CHECKS.values() for key in keys} | {"ended": True}
    assert chaos._faults(clean) == {}
    for keys in chaos.CHECKS.values():
        for key in keys:
            assert chaos._faults({**clean, key: ["something"]})
    assert chaos._faults({**clean, "ended": False, "own ends": {"exit 1": 1}})


def test_processes_below_this_one_are_found_by_name_until_they_end() -> None:
    with subprocess.Popen([sys.executable, "-c", "input('a name of its own')"], stdin=subprocess.PIPE) as child:
        assert below(child.pid) == []
        assert below(os.getpid(), "a name of its own") == [child.pid]
        assert settled(lambda: ["still there"] if child.poll() is None else [], 0.1) == ["still there"]
        child.kill()
        child.wait()
        assert below(os.getpid(), "a name of its own") == []


ORPHAN = """
import os, subprocess, sys, time
from faults.processes import adopt_orphans, kill, living, named
adopt_orphans()
sleep = "['sleep', '1000001']"
subprocess.run([sys.executable, "-c", f"import subprocess; subprocess.Popen({sleep})"], check=True)
(orphan,) = named("1000001")
kill(orphan)
while os.path.exists(f"/proc/{orphan}"):
    time.sleep(0.01)
assert living() == []
sys.exit(7)
"""


def test_orphans_stay_in_sight_and_leave_no_zombie() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 7


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT)
def test_a_short_campaign_of_random_kills_loses_nothing(tmp_path: Path) -> None:
    """On local Ray: two drivers into a bucket, one driver into a folder. Its output says how to make a run again."""
    line = [sys.executable, str(REPOSITORY / "benchmarks" / "chaos.py"), "--kills", "6", "--kills-per-run", "3"]
    line += ["--cells", "8", "--seed", "38", "--places", "local", "--stores", "folder,s3", "--no-results"]
    done = subprocess.run(
        [*line, "--work", str(tmp_path)], capture_output=True, text=True, timeout=3 * LIMIT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(row) for row in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert sum(len(row["kills"]) for row in rows) >= 6
