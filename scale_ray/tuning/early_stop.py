"""Stopping rules of Ray Tune for the first repeat of each setting. All first repeats have the same (pair, seed).

No rule pauses a training: it is stopped at a point of its curve or goes on to its end. Later repeats have other (pair,
seed) keys, so their curves cannot be compared with those of first repeats, and no rule sees them.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from scale_ray.config import ConfigError, OptimConfig, TrialConfig
from scale_ray.training.seeding import step_seed

_HALVING = 2  # the better half of a rung goes on

_FULL_BRACKETS = 3


def _asha(metric: str, first: int, last: int, *, brackets: int = 1) -> TrialScheduler:
    """https://arxiv.org/abs/1810.05934: at steps first, 2 first, 4 first, … the lower half of all so far is stopped."""
    return AsyncHyperBandScheduler(
        time_attr="step",
        metric=metric,
        mode="max",
        grace_period=first,
        max_t=last,
        reduction_factor=_HALVING,
        brackets=brackets,
        stop_last_trials=False,
    )


def _hyperband(metric: str, first: int, last: int) -> TrialScheduler:
    """ASHA in up to three brackets; their first rungs are at the steps first, 2 first and 4 first."""
    rungs = int(math.log(last / first, _HALVING)) + 1
    return _asha(metric, first, last, brackets=min(_FULL_BRACKETS, rungs))


def _median(metric: str, first: int, last: int) -> TrialScheduler:
    """https://research.google.com/pubs/pub46180.html: stops where the best point is below the others' median."""
    # Without an infinite time slice, the rule would pause a trial that has too few others to compare with.
    return MedianStoppingRule(
        time_attr="step", metric=metric, mode="max", grace_period=first, min_samples_required=3, min_time_slice=math.inf
    )


RULES: dict[str, Callable[[str, int, int], TrialScheduler]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
}


@dataclass(frozen=True)
class _Curve:
    """A first repeat as a rule knows it: named by its setting, because another process may go on with it."""

    trial_id: str


def points_before_the_end(config: TrialConfig) -> list[int]:
    """Steps at which a training can be stopped: evaluations after the warm-up, where terms that wait have acted."""
    optim: OptimConfig = config.optim
    every = config.evaluate_every
    return [step for step in range(every, optim.steps, every) if step > optim.warmup_steps + 1]


def check_points(rule: str, config: TrialConfig) -> None:
    """Raise a ConfigError where there is no point at which the rule could stop a training."""
    if not points_before_the_end(config):
        raise ConfigError(
            f"early stop {rule!r}: no point of the curve lies between the warm-up's end "
            f"(optim.warmup_steps={config.optim.warmup_steps}) and the last step ({config.optim.steps}): "
            f"lower evaluate_every={config.evaluate_every}"
        )


class EarlyStop(FIFOScheduler):
    """Lets a rule decide on trials whose assignment names a `setting`; all others train to their end.

    Args:
        rule: a name in RULES.
        metric: the name of the validator's score in Tune's results.
        config: says how many steps every training has and at which it is evaluated; see `check_points`.
        seed: of the random assignment of settings to brackets.
        spared: whether a setting is trained to its end, though for the rule it ends where the rule says so.
        curves: (setting, points) that an earlier driver has seen.
        on_point: called with stage key, step and score at each point of a first repeat.
        on_stop: called with stage key and step when a first repeat is ended early.
    """

    def __init__(
        self,
        rule: str,
        metric: str,
        config: TrialConfig,
        *,
        seed: int,
        spared: Callable[[int], bool] = lambda setting: False,
        curves: Iterable[tuple[int, list[tuple[int, float]]]] = (),
        on_point: Callable[[str, int, float], None] = lambda stage, step, value: None,
        on_stop: Callable[[str, int], None] = lambda stage, step: None,
    ):
        super().__init__()
        points = points_before_the_end(config)
        self._rule = RULES[rule](metric, points[0], config.optim.steps)
        # Not named `_metric`: Tune would require it in every result, also in the first one of a warm-up.
        self._score, self._seed, self._spared = metric, seed, spared
        self._first = points[0]
        self._on_point, self._on_stop = on_point, on_stop
        self._curves: dict[int, _Curve] = {}
        self._ended: set[int] = set()
        self._seen: dict[int, int] = {}  # setting -> step of its last point
        for setting, curve in curves:
            for step, value in curve:
                self._decide(None, setting, {"step": step, metric: value})

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its scheduler for a restore, and a search goes on from its Optuna study instead."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        setting = trial.config.get("setting")
        if setting is None or self._score not in result:
            return TrialScheduler.CONTINUE
        step, stage = result["step"], trial.config["stage"]
        if step < self._first or step <= self._seen.get(setting, 0):  # seen before it went on from a checkpoint
            return TrialScheduler.CONTINUE
        self._on_point(stage, step, result[self._score])
        decision = self._decide(tune_controller, setting, result)
        if decision == TrialScheduler.CONTINUE or step >= trial.config["last"] or self._spared(setting):
            return TrialScheduler.CONTINUE
        self._on_stop(stage, step)
        return TrialScheduler.STOP

    def _decide(self, controller: Any, setting: int, result: dict[str, Any]) -> str:
        curve = self._curves.get(setting)
        if curve is None:
            curve = self._curves[setting] = _Curve(str(setting))
            with _seeded(step_seed(self._seed, "bracket", setting) % 2**32):
                self._rule.on_trial_add(controller, curve)
        self._seen[setting] = result["step"]
        # Each setting is ended once, also where a driver was killed between the decision and its report.
        if setting not in self._ended and self._rule.on_trial_result(controller, curve, result) == TrialScheduler.STOP:
            self._ended.add(setting)
        return TrialScheduler.STOP if setting in self._ended else TrialScheduler.CONTINUE


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which Tune draws brackets, inside the block."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
