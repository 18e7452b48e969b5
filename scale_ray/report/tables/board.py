"""A leaderboard: methods by sets, where a set is the domain pairs of one study with one encoder."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from statistics import fmean

import pandas as pd

from scale_ray.report.read.labels import by_method, method_labels
from scale_ray.report.tables.aggregate import build_grids
from scale_ray.report.tables.grid import Beside, Entry, Grid, Layout, Position, common_notes

FORM = "methods_by_set"
MEAN_BELOW, MOST_BELOW = "below the best, mean", "below the best, most"


def board(cells: pd.DataFrame, name: str, remarks: Sequence[str] = ()) -> Grid:
    """Target accuracy of every method (row) on one set (the column): mean over its pairs, spread over seeds.

    Args:
        cells: of the set, as `completeness.check` returns them.
        name: of the set.
        remarks: notes to show under the grid.

    Raises:
        ReportError: two cells have the same method, pair and seed.
    """
    current = cells[~cells["superseded"]]
    labelled = current.assign(row=method_labels(current), column=name, group=name)
    rows = sorted(labelled["row"].unique(), key=by_method)
    layout = Layout(FORM, name, "", rows, [name], over_pairs=False)
    return build_grids(layout, labelled, remarks)[0]


def side_by_side(boards: Sequence[Grid]) -> Grid:
    """The boards of several sets as one grid, a column each.

    Two columns beside say how many points a method is below the best of a set: the mean and the most over the sets on
    which it was measured. Rows are sorted by that mean.
    """
    names = [name for board in boards for name in board.columns]
    rows = sorted({row for board in boards for row in board.rows}, key=by_method)
    entries = {(row, name): Entry() for row in rows for name in names}
    grid = Grid(
        form=FORM,
        benchmark=f"{len(names)} sets" if len(names) > 1 else names[0],
        facet="",
        metric=boards[0].metric,
        rows=rows,
        columns=names,
        entries=entries | {position: entry for board in boards for position, entry in board.entries.items()},
        notes=common_notes((board.benchmark, board.notes) for board in boards),
        best=frozenset().union(*(board.best for board in boards)),
    )
    below = points_below_best(grid)
    figures: dict[Position, tuple[float, float | None]] = {}
    for row, of_sets in below.items():
        figures[row, MEAN_BELOW] = (fmean(of_sets.values()), None)
        figures[row, MOST_BELOW] = (max(of_sets.values()), None)
    note = "Below the best: points of target accuracy below the best method of a set, over the sets that a row has."
    order = sorted(rows, key=lambda row: fmean(below[row].values()) if row in below else inf)
    return replace(grid, rows=order, beside=[Beside([MEAN_BELOW, MOST_BELOW], [], figures, [note])])


def points_below_best(grid: Grid) -> dict[str, dict[str, float]]:
    """Method -> set -> points below the set's best method, of the sets on which the method has a number."""
    means = {position: entry.mean for position, entry in grid.entries.items() if entry.mean is not None}
    best = {column: max(means[row, of] for row, of in means if of == column) for _, column in means}
    below: dict[str, dict[str, float]] = {}
    for (row, column), mean in means.items():
        below.setdefault(row, {})[column] = best[column] - mean
    return below


def costs(cells: pd.DataFrame) -> pd.DataFrame:
    """What a step costs, one row per method, of the done cells of one set.

    | column | unit, meaning |
    |---|---|
    | method | as in `board` |
    | seconds | of a trial's training, without evaluation, median over its cells |
    | milliseconds a step | those seconds by steps; empty for a method that takes none |
    | relative | milliseconds a step by those of source_only; empty where either lacks |
    """
    done = cells[~cells["superseded"] & (cells["status"] == "done")]
    training = done["wall_seconds"] - done["evaluation_seconds"].fillna(0.0)
    done = done.assign(row=method_labels(done), steps=done["steps"].astype("float64"), seconds=training)
    found = done.groupby("row")[["seconds", "steps"]].median()
    a_step = 1000 * found["seconds"] / found["steps"].where(found["steps"] > 0)
    rows = [
        {
            "method": method,
            "seconds": found.loc[method, "seconds"],
            "milliseconds a step": a_step[method],
            "relative": a_step[method] / a_step.get("source_only", float("nan")),
        }
        for method in sorted(found.index, key=by_method)
    ]
    return pd.DataFrame(rows, columns=["method", "seconds", "milliseconds a step", "relative"])
