"""How a table of effects is shown: its columns, their headings, and the text of a value."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import pandas as pd

ABSENT = "—"


@dataclass(frozen=True)
class Column:
    """A column as it is shown. It may combine several columns of the frame: an interval's low and high."""

    heading: str
    text: Callable[..., str]  # of the values of `names`, in this order
    names: tuple[str, ...]

    def texts(self, frame: pd.DataFrame) -> list[str]:
        return [self.text(*values) for values in zip(*(frame[name] for name in self.names), strict=True)]


def words(value: object) -> str:
    return value if isinstance(value, str) else ABSENT


def whole(value: float) -> str:
    return f"{value:.0f}" if isfinite(value) else ABSENT


def points(value: float) -> str:
    """Percentage points, or anything else with two decimals."""
    return f"{round(value, 2) + 0.0:.2f}" if isfinite(value) else ABSENT  # + 0.0: never -0.00


def p_value(value: float) -> str:
    if pd.isna(value):
        return ABSENT
    return "<0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def interval(low: float, high: float) -> str:
    """`[1.20, 3.40]`; `all the same` where nothing differs, so that there is no spread to make an interval of."""
    if pd.isna(low):
        return ABSENT
    return "all the same" if low == high else f"[{_end(low)}, {_end(high)}]"


def _end(value: float) -> str:
    return points(value) if isfinite(value) else "no bound"


def interval_or_values(low: float, high: float, values: str) -> str:
    """`[1.20, 3.40]`, or the values of fewer than three units, which give no interval: `only 1.20, 3.40`."""
    return f"only {values}" if pd.isna(low) and values else interval(low, high)


def whole_interval(low: float, high: float) -> str:
    """`[3, 12]`."""
    return ABSENT if pd.isna(low) else f"[{whole(low)}, {whole(high)}]"
