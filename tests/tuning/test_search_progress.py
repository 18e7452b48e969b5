"""What a person is told while a search runs: the time left."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console
from searches import Driver, search

from scale_ray.store import Store
from scale_ray.training.stages import alone
from scale_ray.tuning.progress import SearchProgress


def test_the_time_left_is_known_from_the_first_steps_and_counts_down(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    wanted = search(tiny_root, settings=2, repeats=1)
    steps = wanted.base.optim.steps
    driver = Driver(wanted, Store(tmp_path, create=True))
    shown = SearchProgress(driver.settings, wanted, Console(file=io.StringIO(), width=200))
    cell = driver.settings.next()
    assert cell is not None
    stage = alone(cell)
    shown.begun(stage)
    assert shown._seconds_left() is None
    now[0] += 10
    shown.reported(stage, {"at": 2, "seconds_a_step": 5.0})
    assert shown._seconds_left() == pytest.approx((2 * steps - 2) * 5)
    now[0] += 10
    assert shown._seconds_left() == pytest.approx((2 * steps - 2) * 5 - 10)
    assert shown._counts().endswith("about 2 min left")
    now[0] += 80  # a setting took 100 s in all
    driver.train(cell)
    driver.settings.ended(cell.id)
    shown.ended(stage)
    assert shown._seconds_left() == pytest.approx(100)
    now[0] += 30
    assert shown._seconds_left() == pytest.approx(70)
