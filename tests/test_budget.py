"""A budget is a number and a unit."""

import pytest

from scale_ray.budget import Budget, read_budget, read_time
from scale_ray.config import ConfigError

TIMES = [("90s", 90), ("30m", 1800), ("1.5 h", 5400), ("2d", 172_800)]


@pytest.mark.parametrize(("text", "seconds"), TIMES)
def test_a_time(text: str, seconds: float) -> None:
    assert read_budget(text) == Budget(seconds, "seconds")
    assert read_time(text) == seconds


def test_gpu_hours_and_dollars() -> None:
    assert read_budget("20gpu-hours") == Budget(20, "GPU-hours")
    assert read_budget("0.5 GPU-hours") == Budget(0.5, "GPU-hours")
    assert read_budget("30USD") == Budget(30, "USD")


@pytest.mark.parametrize("text", ["30", "m", "0s", "-3m", "3 weeks", "", "0usd", "$30", "1e3s"])
def test_what_has_no_unit_or_is_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write a time, as in 90s, 30m, 2h or 1d, or 20gpu-hours, or 30usd"):
        read_budget(text)


@pytest.mark.parametrize("text", ["30", "20gpu-hours", "30usd"])
def test_where_only_time_is_counted_nothing_else_is_taken(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--budget {text}: write a time, as in 90s, 30m, 2h or 1d$"):
        read_time(text)


def test_amounts_are_told_in_their_unit() -> None:
    assert Budget(2400, "seconds").told() == "40 min"
    assert Budget(2400, "seconds").told(30.4) == "30 s"
    assert Budget(100, "seconds").told(118.4) == "118 s"
    assert Budget(20, "GPU-hours").told(3.333) == "3.33 GPU-hours"
    assert Budget(20, "GPU-hours").told(0.000349) == "0.00035 GPU-hours"
    assert Budget(30, "USD").told(0) == "0.00 USD"
    assert Budget(1300, "USD").told() == "1,300.00 USD"
