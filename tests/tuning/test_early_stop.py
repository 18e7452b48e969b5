"""Tune's own rules on constructed curves: who is stopped, where, and that a next driver's rule knows the same."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from rich.console import Console
from searches import Driver, search

from scale_ray.config import ConfigError, Execution, Resources, TrialConfig
from scale_ray.store import Store, leases
from scale_ray.training.stages import alone
from scale_ray.tuning import run
from scale_ray.tuning.early_stop import EarlyStop, check_points, points_before_the_end

CONFIG = TrialConfig().replace({"optim.steps": 80, "optim.warmup_steps": 5, "evaluate_every": 10})
STEPS = range(10, 90, 10)


class Study:
    """Trainings whose points are told one by one, and what came of them."""

    def __init__(self, rule: str, curves: Any = (), spared: int | None = None):
        self.points: list[tuple[str, int, float]] = []
        self.stops: list[tuple[str, int]] = []
        self.scheduler = EarlyStop(
            rule, "validator_im", CONFIG, seed=0, curves=curves, spared=lambda setting: setting == spared,
            on_point=lambda *point: self.points.append(point), on_stop=lambda *stop: self.stops.append(stop),
        )  # fmt: skip

    def tell(self, setting: int | None, step: int, score: float) -> str:
        config = {"stage": f"cell {setting}", "last": 80}
        trial = SimpleNamespace(config=config if setting is None else config | {"setting": setting})
        return self.scheduler.on_trial_result(None, trial, {"step": step, "validator_im": score})

    def train(self, setting: int, score: float) -> int:
        """Where it ended."""
        for step in STEPS:
            if self.tell(setting, step, score) == TrialScheduler.STOP:
                return step
        return STEPS[-1]


def test_points_at_which_one_can_stop_lie_after_the_warm_up() -> None:
    assert points_before_the_end(CONFIG) == [10, 20, 30, 40, 50, 60, 70]
    assert points_before_the_end(CONFIG.replace({"optim.warmup_steps": 20})) == [30, 40, 50, 60, 70]
    with pytest.raises(ConfigError, match="lower evaluate_every"):
        check_points("asha", CONFIG.replace({"evaluate_every": 80}))


def test_asha_ends_the_lower_half_at_its_rungs() -> None:
    study = Study("asha")
    assert study.train(0, 0.5) == 80  # nobody to compare with
    assert study.train(1, 0.4) == 10
    assert study.train(2, 0.6) == 80
    assert study.train(3, 0.45) == 10  # 0.5 is the median of what was at 10
    assert study.stops == [("cell 1", 10), ("cell 3", 10)]


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_a_spared_setting_is_trained_to_its_end(rule: str) -> None:
    study = Study(rule, spared=3)
    assert [study.train(setting, score) for setting, score in enumerate((0.5, 0.6, 0.7, 0.1))] == [80] * 4
    assert [point for point in study.points if point[0] == "cell 3"] == [("cell 3", step, 0.1) for step in STEPS]
    assert study.stops == []
    assert study.train(4, 0.05) == 10


def test_the_median_rule_waits_for_three_and_never_pauses() -> None:
    study = Study("median")
    assert [study.train(setting, score) for setting, score in enumerate((0.5, 0.1, 0.4))] == [80, 80, 80]
    assert study.train(3, 0.3) == 10
    assert study.train(4, 0.45) == 80


def test_hyperband_has_brackets_that_stop_later() -> None:
    study = Study("hyperband")
    ends = {study.train(setting, 1 - setting / 100) for setting in range(30)}
    assert {10, 20, 40} <= ends


@pytest.mark.parametrize("rule", ["asha", "median", "hyperband"])
def test_a_next_drivers_rule_decides_as_the_first_ones_would(rule: str) -> None:
    scores = [0.5, 0.6, 0.2, 0.4, 0.55, 0.1, 0.58, 0.61, 0.3]
    undisturbed = Study(rule)
    ends = [undisturbed.train(setting, score) for setting, score in enumerate(scores)]
    first = Study(rule)
    for setting, score in enumerate(scores[:5]):
        first.train(setting, score)
    curves = [
        (setting, [(step, score) for stage, step, score in first.points if stage == f"cell {setting}"])
        for setting in range(5)
    ]
    again = Study(rule, curves)
    assert [again.train(setting, score) for setting, score in enumerate(scores[5:], 5)] == ends[5:]
    # Killed before Optuna was told: what the first driver's rule had ended goes on, to its next point.
    assert all((again.train(setting, 1.0) < 80) == (ends[setting] < 80) for setting in range(5) if ends[setting] < 70)
    assert min(ends) < 80


def test_only_first_repeats_are_judged_and_no_point_twice() -> None:
    study = Study("asha")
    study.train(0, 0.5)
    assert study.tell(None, 10, 0.0) == TrialScheduler.CONTINUE
    before = len(study.points)
    assert study.tell(0, 10, 0.0) == TrialScheduler.CONTINUE  # from a checkpoint, trained again
    assert len(study.points) == before


def test_the_last_point_stops_nothing() -> None:
    """The record is written after it."""
    study = Study("asha")
    study.train(0, 0.5)
    assert study.tell(1, 80, 0.0) == TrialScheduler.CONTINUE
    assert study.stops == []


def test_no_stopping_rule_ends_the_default_setting(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule that a search gives to Ray Tune spares it; Ray itself is not started."""
    store = Store(tmp_path, create=True)
    given: list[EarlyStop] = []
    monkeypatch.setattr(run, "work_off", lambda *_, scheduler, **__: given.append(scheduler))
    driver = Driver(search(tiny_root, settings=2, early_stop="asha"), store)
    first = driver.settings.next()
    assert first is not None
    with leases.Driver(store.files) as owner:
        run._work_off(driver.settings, driver.search, store, Execution(), Resources(), owner, Console(), None, ())
    (rule,) = given
    step = points_before_the_end(driver.search.base)[0]
    for setting, value in ((1, 0.9), (0, 0.1)):
        config = {"setting": setting, "stage": first.id, "last": alone(first).last}
        result = {"step": step, "validator_im": value}
        assert rule.on_trial_result(None, SimpleNamespace(config=config), result) == TrialScheduler.CONTINUE
    assert driver.settings.open == 1
