"""Numbers of a table of choice as text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

ORACLE_COLUMN = "oracle (target labels)"
CELLS = "cells"  # ids of the chosen cells, in CSV alone


class Chosen(NamedTuple):
    """A table of choice, the notes under it, and those of them that are said wherever the choice is named."""

    frame: pd.DataFrame
    notes: list[str]
    warnings: Sequence[str] = ()


_TWO_DECIMALS = ("regret", "estimated", "spearman", "target labels")  # percent, points and correlations


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """What is read, with numbers as text: scores with four digits, percent and points with two decimals."""
    frame = frame.drop(columns=CELLS, errors="ignore")
    return pd.DataFrame({name: [_text(value, str(name)) for value in frame[name]] for name in frame})


def _text(value: Any, name: str) -> str:
    if value is None or value != value:
        return "—"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if any(part in name for part in _TWO_DECIMALS) else f"{value:.4g}"
