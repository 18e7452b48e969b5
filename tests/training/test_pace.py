"""How fast a training steps: what is measured, and when it is reported."""

import time

import pytest

from scale_ray.training.pace import Pace


class Steps:
    """Lets steps take so many seconds, and keeps what is reported."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: int, every: float | None):
        self.now, self.reports = 1000.0, list[tuple[int, float]]()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.pace = Pace(lambda step, seconds: self.reports.append((step, seconds)), last, every)

    def take(self, seconds: float, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.now += seconds
            self.pace.on_step(step)


def test_slow_steps_are_reported_from_the_second_on(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, 20_000, 30.0)
    steps.take(60.0, 1, 1)  # the first has more to do
    assert steps.pace.seconds_a_step is None
    steps.take(5.0, 2, 13)
    assert steps.reports == [(2, 5.0), (8, 5.0)]  # 30 s later


def test_fast_steps_are_measured_for_a_second_and_reported_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, 100_000, 30.0)
    steps.take(0.0625, 1, 10_000)  # 625 s
    assert steps.reports[0] == (17, 0.0625)
    assert len(steps.reports) == 21


def test_a_session_that_goes_on_counts_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, 20_000, 30.0)
    steps.take(2.0, 15_001, 15_002)
    assert steps.reports == [(15_002, 2.0)]


def test_workers_report_at_the_same_steps_whatever_their_clocks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for seconds in (0.001, 7.0):
        steps = Steps(monkeypatch, 1000, None)
        steps.take(seconds, 1, 1000)
        found.append([step for step, _ in steps.reports])
    assert found == [[2, 4, 8, 16, 32, 64, 128, 256, 512]] * 2


def test_nothing_is_reported_after_the_last_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial reports last is its result."""
    steps = Steps(monkeypatch, 2, 30.0)
    steps.take(5.0, 1, 2)
    assert steps.reports == []
