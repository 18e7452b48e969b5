"""What a run may take: time, GPU-hours, or US dollars."""

import re
from dataclasses import dataclass
from typing import Literal

from scale_ray.config import ConfigError
from scale_ray.costs import duration

Unit = Literal["seconds", "GPU-hours", "USD"]

# What stands behind the number -> (unit, how many of it are one).
_UNITS: dict[str, tuple[Unit, float]] = {
    "s": ("seconds", 1),
    "m": ("seconds", 60),
    "h": ("seconds", 3600),
    "d": ("seconds", 86400),
    "gpu-hours": ("GPU-hours", 1),
    "usd": ("USD", 1),
}

_IN_SECONDS = 600  # a shorter budget is told in seconds


@dataclass(frozen=True)
class Budget:
    """An amount of a unit, which is above zero."""

    amount: float
    unit: Unit

    def told(self, amount: float | None = None) -> str:
        """An amount in words, by default all of it: `40 min`, `20.00 GPU-hours`, `30.00 USD`."""
        amount = self.amount if amount is None else amount
        if self.unit == "seconds":
            return f"{amount:.0f} s" if self.amount < _IN_SECONDS else duration(amount)
        return f"{amount:,.2f} {self.unit}" if amount >= 1 or not amount else f"{amount:.2g} {self.unit}"

    def refuse_without(self, gpus: float) -> None:
        """Raise ConfigError where this counts the GPUs of trainings that hold so many."""
        if self.unit == "GPU-hours" and not gpus:
            raise ConfigError(f"--budget of {self.told()}: these trainings use no GPU: give a time, as in --budget 40m")


def read_budget(text: str) -> Budget:
    """`90s`, `30m`, `2h`, `1d`, `20gpu-hours`, `30usd`.

    Raises:
        ConfigError: it is none of these.
    """
    if (budget := _read(text)) is None:
        raise ConfigError(f"--budget {text}: write a time, as in 90s, 30m, 2h or 1d, or 20gpu-hours, or 30usd")
    return budget


def read_time(text: str) -> float:
    """`90s`, `30m`, `2h` or `1d` in seconds.

    Raises:
        ConfigError: it is none of these.
    """
    if (budget := _read(text)) is None or budget.unit != "seconds":
        raise ConfigError(f"--budget {text}: write a time, as in 90s, 30m, 2h or 1d")
    return budget.amount


def _read(text: str) -> Budget | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z-]+)", str(text).strip().lower())
    if found is None or found[2] not in _UNITS or float(found[1]) == 0:
        return None
    unit, one = _UNITS[found[2]]
    return Budget(float(found[1]) * one, unit)
