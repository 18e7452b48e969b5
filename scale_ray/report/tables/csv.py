"""Tables as comma-separated values."""

import csv
import io
from collections.abc import Iterable

from scale_ray.report.tables.grid import Stack
from scale_ray.report.tables.text import beside_text, entry_text


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
            writer.writerow([*of, *position, *figures, *counts, int(position in grid.best), entry_text(entry, grid)])
        for beside in grid.beside:
            for position, (mean, std) in beside.figures.items():
                empty = [""] * (len(head) - 2)
                writer.writerow([*of, *position, *_numbers(mean, std), *empty, beside_text(grid, position)])
    return out.getvalue()


def _numbers(*values: float | None) -> list[str]:
    return ["" if value is None else f"{value:.4f}" for value in values]
