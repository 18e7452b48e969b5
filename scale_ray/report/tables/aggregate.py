"""From cells to grids of one layout: which records make an entry, and what their average is.

Accuracies are first averaged over domain pairs within a seed. An entry shows the mean and the sample standard
deviation (ddof = 1) of these per-seed averages; n is the number of seeds. Its interval is for the same pairs and other
seeds. Entries that are compared average the same (pair, seed) keys: those that every one of them with a value has. The
other keys are left out; the grid's notes count them and give the reason.
"""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import natural
from scale_ray.report.tables import notes
from scale_ray.report.tables.grid import (
    AVERAGE,
    METRICS,
    WITHOUT_LABELS,
    Beside,
    Entry,
    Grid,
    Key,
    Layout,
    Position,
    Trial,
)
from scale_ray.report.tables.uncertainty import ALPHA, FEWEST_KEYS, interval_over_seeds, significantly_above

Trials = dict[Position, dict[Key, Trial]]
Values = dict[Position, dict[Key, float]]  # percent, of done cells

_TRIAL = ["cell", "status", "unlearned", "unlabelled"]  # columns, in the order of a Trial's fields

ORACLE = "oracle (best epoch on target labels)"


def with_average(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells whose columns are pairs, repeated in a column for the average if there are several pairs."""
    if cells["pair"].nunique() < 2:
        return cells
    return pd.concat([cells, cells.assign(column=AVERAGE, group=AVERAGE)])


def in_order(labels: pd.Series) -> list[str]:
    """Distinct labels in natural order, the average last."""
    return sorted(labels.unique(), key=lambda label: (label == AVERAGE, natural(label)))


def build_grids(
    layout: Layout, cells: pd.DataFrame, remarks: Sequence[str], cited: Beside | None = None, oracle: bool = False
) -> list[Grid]:
    """Build one grid per metric; where a target has no labels, also of the scores that need none.

    Args:
        layout: of the grids.
        cells: with columns `row`, `column` and `group`. Entries of one group average the same keys.
        remarks: notes to show under each grid.
        cited: published accuracies, to show beside the student's target accuracy.
        oracle: show the best epoch's target accuracy there too.

    Raises:
        ReportError: two cells have the same row, column, pair and seed.
    """
    _refuse_duplicates(cells)
    done = cells[cells["status"] == "done"]
    labelled = bool(done["target_accuracy"].notna().any()) or done.empty
    oracle = oracle and labelled and not done.empty
    metrics = [*(METRICS if labelled else ()), *(["oracle_accuracy"] if oracle else [])]
    if done["target_accuracy"].isna().any():
        metrics += [name for name in WITHOUT_LABELS if name not in metrics and done[name].notna().any()]
    trials: dict[str, Trials] = {}
    values: dict[str, dict[str, Values]] = {metric: {} for metric in metrics}
    cells = cells.assign(unlabelled=(cells["status"] == "done") & cells["target_accuracy"].isna())
    frame = cells[["group", "row", "column", "pair", "seed", *_TRIAL, *metrics]]
    lines = zip(*(frame[name].tolist() for name in frame), strict=True)
    for group, row, column, pair, seed, trial, status, unlearned, unlabelled, *accuracies in lines:
        position, key = (row, column), (pair, seed)
        trials.setdefault(group, {}).setdefault(position, {})[key] = Trial(trial, status, unlearned, unlabelled)
        if status == "done":
            for metric, value in zip(metrics, accuracies, strict=True):
                if value == value:  # not NaN
                    values[metric].setdefault(group, {}).setdefault(position, {})[key] = value
    built = {metric: _grid(layout, metric, remarks, trials, values[metric]) for metric in metrics}
    beside = []
    if oracle:
        beside.append(_oracle(built.pop("oracle_accuracy")))
    if cited is not None:
        beside.append(cited)
    headline = next(iter(built.values()))
    return [dataclasses.replace(grid, beside=beside) if grid is headline else grid for grid in built.values()]


def _refuse_duplicates(cells: pd.DataFrame) -> None:
    duplicates = cells[cells.duplicated(["row", "column", "pair", "seed"], keep=False)]
    if len(duplicates):
        row, column, pair, seed = duplicates.iloc[0][["row", "column", "pair", "seed"]]
        same = cells[(cells["row"] == row) & (cells["column"] == column)]
        ids = same[(same["pair"] == pair) & (same["seed"] == seed)]["cell"]
        raise ReportError(
            f"cells {', '.join(sorted(ids))} have the same config ({row}, {column}, {pair}, seed {seed}) but different "
            "data or weights: keep one version in a store (move the other records away, or report on another store)"
        )


def _grid(
    layout: Layout, metric: str, remarks: Sequence[str], trials: dict[str, Trials], values: dict[str, Values]
) -> Grid:
    """`trials` and `values` are by group."""
    entries = {(row, column): Entry() for row in layout.rows for column in layout.columns}
    left_out = []
    averaged: set[Key] = set()
    best: set[Position] = set()
    unmarked: dict[str, int] = {}
    for group, of_group in trials.items():
        found = values.get(group, {})
        common = set.intersection(*map(set, found.values())) if found else set()
        keys = sorted(common, key=lambda key: (key[1], key[0]))
        averaging = _Averaging(keys)
        for position, of_entry in of_group.items():
            entries[position] = averaging.entry(of_entry, found.get(position, {}))
        averaged |= common
        left_out += notes.left_out(group, metric, of_group, found, common)
        if keys and layout.rows_compare:
            marked, close = _best(layout, entries, found, keys)
            best |= marked
            unmarked |= close
    named = (layout.form, layout.benchmark, layout.facet, metric, layout.rows, layout.columns)
    grid = Grid(*named, entries, [], frozenset(best), group=layout.group)
    if averaged:
        grid.notes.append(notes.definition(grid, averaged, layout.over_pairs))
    grid.notes.extend([*remarks, *left_out, *notes.incomplete(grid), *notes.unlearned(grid)])
    grid.notes.extend(notes.of_best(grid.best, unmarked, FEWEST_KEYS, ALPHA))
    return grid


class _Averaging:
    """How entries that average the same (pair, seed) keys do so.

    Args:
        keys: sorted by seed.
    """

    def __init__(self, keys: list[Key]):
        of_seeds: dict[int, list[Key]] = {}
        for key in keys:
            of_seeds.setdefault(key[1], []).append(key)
        self._keys, self._of_seeds = keys, list(of_seeds.values())
        self._weights = {(pair, seed): 1 / (len(of_seeds) * len(of_seeds[seed])) for pair, seed in keys}
        self._same_pairs = len({frozenset(pair for pair, _ in share) for share in self._of_seeds}) == 1

    def entry(self, trials: dict[Key, Trial], values: dict[Key, float]) -> Entry:
        counts: dict[str, Any] = Counter(trial.status for trial in trials.values())
        counts["unlabelled"] = sum(trial.unlabelled for trial in trials.values())
        entry = partial(Entry, measured=len(values), trials=tuple(trial.id for trial in trials.values()), **counts)
        if not values or not self._keys:
            return entry()
        means = [statistics.fmean([values[key] for key in share]) for share in self._of_seeds]
        mean = statistics.fmean(means)
        # Not statistics.stdev: its exact fractions would dominate the run time of a large report.
        squares = math.fsum((share - mean) ** 2 for share in means)
        low, high = interval_over_seeds({key: values[key] for key in self._keys}, self._weights) or (None, None)
        return entry(
            mean=mean,
            std=math.sqrt(squares / (len(means) - 1)) if len(means) > 1 else None,
            low=low,
            high=high,
            n=len(means),
            by_seed=tuple(means) if self._same_pairs else (),
            unlearned=sum(trials[key].unlearned for key in self._keys),
        )


def _best(
    layout: Layout, entries: dict[Position, Entry], values: Values, keys: list[Key]
) -> tuple[set[Position], dict[str, int]]:
    """The best position of each column if it is significant; for other columns, the number of keys compared."""
    marked, unmarked = set(), {}
    for column in layout.columns:
        means = {(row, column): entries[row, column].mean for row in layout.rows if (row, column) in values}
        ranked = sorted(means, key=lambda position: means[position] or 0.0, reverse=True)
        if len(ranked) < 2:
            continue
        first, second = ([values[position][key] for key in keys] for position in ranked[:2])
        if significantly_above(first, second):
            marked.add(ranked[0])
        else:
            unmarked[column] = len(keys)
    return marked, unmarked


def _oracle(grid: Grid) -> Beside:
    figures = {
        (row, f"{column} {ORACLE}"): (entry.mean, entry.std)
        for (row, column), entry in grid.entries.items()
        if entry.mean is not None
    }
    note = f"{ORACLE}: the highest point of each curve, chosen by target labels; averaged over the same keys."
    return Beside([f"{column} {ORACLE}" for column in grid.columns], grid.rows, figures, [note])
