"""Learning-rate schedules. The rate is a function of the step, so there is no state to save or to resume."""

import math
from collections.abc import Callable

from scale_ray.config import OptimConfig


def _inverse(step: int, steps: int) -> float:
    """(1 + 4e-4 t) ** -0.75 (docs/method.md, section 6); it does not depend on the length of the training."""
    return float((1 + 4e-4 * step) ** -0.75)


def _cosine(step: int, steps: int) -> float:
    """Cosine from 1 at the first step to 0 after the last step."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def _constant(step: int, steps: int) -> float:
    return 1.0


# Name -> function of (step, steps of the training) that returns the factor of the learning rate.
SCHEDULES: dict[str, Callable[[int, int], float]] = {"inverse": _inverse, "cosine": _cosine, "constant": _constant}


def learning_rate_factor(optim: OptimConfig, step: int) -> float:
    """The factor of the learning rate at `step`, counted from 0."""
    return SCHEDULES[optim.schedule](step, optim.steps)
