"""Learning rate as a function of the step: no history, so nothing to save or to resume."""

import math
from collections.abc import Callable

from scale_ray.config import OptimConfig


def _inverse(step: int, steps: int) -> float:
    """(1 + 4e-4 t) ** -0.75 (METHOD 6); the length of the training does not matter."""
    return float((1 + 4e-4 * step) ** -0.75)


def _cosine(step: int, steps: int) -> float:
    """From 1 at the first step towards 0 after the last."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def _constant(step: int, steps: int) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[int, int], float]] = {"inverse": _inverse, "cosine": _cosine, "constant": _constant}


def learning_rate_factor(optim: OptimConfig, step: int) -> float:
    """What the learning rate of `step` (from 0) is multiplied by."""
    return SCHEDULES[optim.schedule](step, optim.steps)
