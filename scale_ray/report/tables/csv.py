"""Tables as comma-separated values.

A spreadsheet runs a text as a formula that begins with certain characters, and names of domains, classes, files and
errors may begin with anything. Such a text gets an apostrophe in front, which spreadsheets do not show
(https://owasp.org/www-community/attacks/CSV_Injection). Numbers stay as they are.
"""

import csv
import io
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import pandas as pd

from scale_ray.report.tables.grid import Stack
from scale_ray.report.tables.text import beside_text, entry_text

# The last four are the wide forms that some spreadsheets take for the first four.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def harmless(value: Any) -> Any:
    """A cell's value; a text that a spreadsheet would run as a formula, with an apostrophe in front."""
    return _harmless(value) if isinstance(value, str) else value


@lru_cache(1024)  # most columns have a few texts, many times each
def _harmless(value: str) -> str:
    if _is_number(value):
        return value
    text = value.replace("\r", " ")  # outside quotes it would begin a line
    return f"'{text}" if len(value) > 1 and value.startswith(_FORMULA) else text


def frame_to_csv(frame: pd.DataFrame) -> str:
    """A frame as comma-separated values, without its index."""
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    cells = frame.assign(**{name: frame[name].astype("object").map(harmless, na_action="ignore") for name in texts})
    return cells.rename(columns=harmless).to_csv(index=False, lineterminator="\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def comma_separated(stacks: Iterable[Stack]) -> str:
    """One line per entry of every grid, with 4 decimals; the mean is empty if there is none.

    `low` and `high` are the 95 % interval of the mean, for the same pairs and other seeds. `best` is 1 if the entry is
    significantly the highest of its group's column. Lines of columns beside the measured ones (published, oracle) have
    no counts.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["mean", "std", "low", "high", "n", "planned", "done", "failed", "missing", "stale", "best"]
    writer.writerow(["benchmark", "facet", "metric", "group", "row", "column", *head, "text"])
    for grid in (grid for stack in stacks for grid in stack.grids):
        of = [grid.benchmark, grid.facet, grid.metric, grid.group]
        for position, entry in grid.entries.items():
            counts = [entry.n, entry.planned, entry.done, entry.failed, entry.missing, entry.stale]
            figures = _numbers(entry.mean, entry.std, entry.low, entry.high)
            row = [*of, *position, *figures, *counts, int(position in grid.best), entry_text(entry, grid)]
            writer.writerow(map(harmless, row))
        for beside in grid.beside:
            for position, (mean, std) in beside.figures.items():
                empty = [""] * (len(head) - 2)
                row = [*of, *position, *_numbers(mean, std), *empty, beside_text(grid, position)]
                writer.writerow(map(harmless, row))
    return out.getvalue()


def _numbers(*values: float | None) -> list[str]:
    return ["" if value is None else f"{value:.4f}" for value in values]
