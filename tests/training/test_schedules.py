"""Learning rates against hand-computed values."""

import pytest

from scale_ray.config import OptimConfig
from scale_ray.training.schedules import SCHEDULES, learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("inverse", 0, 1.0),
        ("inverse", 2500, 2**-0.75),  # 1 + 4e-4 * 2500 = 2
        ("cosine", 0, 1.0),
        ("cosine", 50, 0.5),
        ("cosine", 75, 0.5 * (1 - 2**-0.5)),
        ("constant", 99, 1.0),
    ],
)
def test_factor(schedule: str, step: int, expected: float) -> None:
    optim = OptimConfig(schedule=schedule, steps=100, warmup_steps=0)
    assert learning_rate_factor(optim, step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_falls_from_one_and_stays_positive(schedule: str) -> None:
    optim = OptimConfig(schedule=schedule, steps=100, warmup_steps=0)
    factors = [learning_rate_factor(optim, step) for step in range(100)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 0
