"""What a time budget allows: some steps of each candidate are measured, and the cheapest are taken first."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from scale_ray.config import ConfigError, Execution, Root, TrialConfig
from scale_ray.methods import METHODS
from scale_ray.study import Change
from scale_ray.training.features import open_inputs
from scale_ray.training.resolve import resolve, without_unread
from scale_ray.training.setup import configure_torch, find_device
from scale_ray.training.stages import alone
from scale_ray.training.trial import Training

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MEASURED_SECONDS = 2.0  # of each candidate
_FEWEST_STEPS = 3
_BESIDE = 1.2  # what evaluations, batches of other sizes and Ray add to the steps


class Estimate(NamedTuple):
    """What a candidate costs.

    Attributes:
        change: a value of the study's axis `method`.
        seconds: of one training.
    """

    change: Change
    seconds: float


def read_budget(text: str) -> float:
    """`90s`, `30m`, `2h` or `1d` in seconds.

    Raises:
        ConfigError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"--budget {text}: write a time, as in 90s, 30m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def estimate(base: TrialConfig, usual: Mapping[str, Mapping[str, Any]], change: Change, root: Root) -> Estimate:
    """Train a candidate for some steps in this process, and tell from these what a whole training takes.

    The steps are those after the warm-up, when all terms act.
    """
    config = without_unread(base.replace({**usual.get(str(change["method"]), {}), **change}), base)
    execution = Execution(root=root, device="cpu")
    stage = alone(resolve(config, root))
    configure_torch(1)
    source, targets = open_inputs(stage, execution, None)
    if not METHODS[config.method].learns:
        return Estimate(change, 0.0)
    training = Training(stage.config, source, targets, find_device("cpu"), execution)
    seconds = training.seconds_a_step(_MEASURED_SECONDS, _FEWEST_STEPS)
    return Estimate(change, seconds * config.optim.steps * _BESIDE)


def affordable_within(
    estimates: Mapping[str, Estimate], seconds: float, trainings: int, slots: int
) -> tuple[list[str], dict[str, str]]:
    """The candidates that fit, cheapest first, and why the others do not.

    Args:
        estimates: candidate -> what one training of it costs.
        seconds: the budget.
        trainings: of each candidate: pairs times seeds.
        slots: trainings at a time.
    """
    kept, left_out, spent = [], {}, 0.0
    for text, found in sorted(estimates.items(), key=lambda item: item[1].seconds):
        cost = found.seconds * trainings / slots
        if spent + cost > seconds:
            left_out[text] = (
                f"it takes about {cost:,.0f} s, and {max(seconds - spent, 0):,.0f} s of the budget are left"
            )
            continue
        spent += cost
        kept.append(text)
    return kept, left_out
