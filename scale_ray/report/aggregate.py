"""From cells to grids: which records share a place, and what their average is.

What an averaged place is. Accuracies are first averaged over domain pairs within a seed; the place shows the mean and
the sample standard deviation (ddof = 1) of those per-seed figures, and n is the number of seeds; its interval is for
these very pairs and other seeds. Places that are compared average the same (pair, seed) keys: those that every one of
them with a value has. The rest is left out, and the grid's notes count it and say why.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from scale_ray.report import notes
from scale_ray.report.grid import AVERAGE, METRICS, Beside, Cell, Grid, Key, Layout, Place
from scale_ray.report.labels import (
    PRE_TRAINING,
    by_combination,
    by_method,
    combination_labels,
    count,
    join,
    method_labels,
    natural,
)
from scale_ray.report.load import ReportError, varying_fields
from scale_ray.report.published import BENCHMARK, beside_ablation, beside_methods
from scale_ray.report.resampling import half_width_over_seeds

__all__ = [
    "AVERAGE", "METRICS", "Beside", "Cell", "Grid", "Place", "build_grids", "by_combination", "combination_labels",
    "facets", "grids", "holds_up", "join", "natural",
]  # fmt: skip

LABELLED = ("method", "losses", "variant", "backbone")  # what the labels of rows and columns tell apart
ALPHA = 0.05
FEWEST_KEYS = 6  # of n signs, the least two-sided p is 2 / 2 ** n: 0.0625 with 5
Trial = tuple[str, str]  # id, status
ORACLE = "oracle (best epoch on target labels)"


def grids(
    cells: pd.DataFrame, *, remarks: Sequence[str] = (), published: bool = False, oracle: bool = False
) -> list[Grid]:
    """Every usual grid that a frame of `load` holds, by benchmark, facet, form and metric.

    `losses_by_backbone` (the paper's Table 1) averages over pairs and holds `scale` and `source_only`, whose row is
    `ce`. `pairs_by_method` (Table 2) has one grid a pre-training, which `stacks` puts below one another, and ends with
    the average over pairs. A config field that differs among records of one place is never averaged over: it splits
    the grids.

    Args:
        cells: as `completeness.check` returned them, or as `load` did.
        remarks: notes that go under every grid.
        published: other authors' figures of Office-Home beside the student's target accuracy.
        oracle: the best epoch's target accuracy beside the student's; `cells` must have oracle_accuracy.

    Raises:
        ReportError: two cells would stand for the same place, pair and seed.
    """
    found = []
    for benchmark, facet, differing, part in facets(cells[cells["method"].isin(["scale", "source_only"])]):
        places = part.assign(row=combination_labels(part), column=part["backbone"], group="")
        rows = sorted(places["row"].unique(), key=by_combination)
        columns = sorted(places["column"].unique(), key=natural)
        cited = beside_ablation(columns) if published and benchmark == BENCHMARK else None
        layout = Layout("losses_by_backbone", benchmark, facet, rows, columns)
        found += build_grids(layout, places, [*differing, *remarks], cited, oracle)
    for benchmark, facet, differing, part in facets(cells, (*LABELLED, "pre_training")):
        found += _pairs_by_method(benchmark, facet, part, [*differing, *remarks], published, oracle)
    return found


def _pairs_by_method(
    benchmark: str, facet: str, part: pd.DataFrame, below: list[str], published: bool, oracle: bool
) -> list[Grid]:
    """One grid a pre-training and metric, all with the same columns; published ones without measured rows too."""
    groups = {
        str(group): with_average(share.assign(row=method_labels(share), column=share["pair"], group=share["pair"]))
        for group, share in part.groupby("pre_training")
    }
    columns = in_order(pd.concat(groups.values())["column"])
    cited = beside_methods(columns) if published and benchmark == BENCHMARK else {}
    pairs = {group: set(places["pair"]) for group, places in groups.items()}
    if any(of_group != set(part["pair"]) for of_group in pairs.values()):
        counts = "; ".join(f"{group}: {count(len(pairs[group]), 'pair')}" for group in sorted(pairs, key=natural))
        below = [*below, f"The groups do not have the same pairs, and each averages over its own: {counts}."]
    found = []
    for group in sorted(groups | cited, key=natural):
        if group in groups:
            rows = sorted(groups[group]["row"].unique(), key=by_method)
            layout = Layout("pairs_by_method", benchmark, facet, rows, columns, over_pairs=False, group=group)
            found += build_grids(layout, groups[group], below, cited.get(group), oracle)
        else:
            named = ("pairs_by_method", benchmark, facet, "target_accuracy")
            found.append(Grid(*named, [], columns, {}, [], beside=[cited[group]], group=group))
    return found


def facets(cells: pd.DataFrame, axes: Sequence[str] = LABELLED) -> Iterable[tuple[str, str, list[str], pd.DataFrame]]:
    """Parts of which every place can be averaged: (benchmark, label, notes, cells).

    A field whose value follows from the axes (columns of `cells`) does not split; a note says that it differs. Other
    pre-training always does, unless it is an axis: an encoder's weights decide more than what is compared.
    """
    fields = [name for name in ("backbone", "method", "losses") if name not in axes]
    fields += [name for name in varying_fields(cells) if name not in axes]
    for benchmark, part in cells[~cells["superseded"]].groupby("benchmark"):
        splitting, differing = [], []
        for field in fields:
            values = part[field].unique()
            if len(values) < 2:
                continue
            follows = part.groupby(list(axes))[field].nunique().max() == 1
            if field in PRE_TRAINING:
                told = part.groupby("pre_training")[field].nunique().max() == 1  # no two under one label
                if not (told and "pre_training" in axes):
                    splitting.append(field)
            elif follows:
                shown = ", ".join(str(value) for value in sorted(values))
                what = "Methods, combinations or backbones" if "losses" in axes else "Rows or columns"
                differing.append(f"{what} differ in {field} as well: {shown}.")
            else:
                splitting.append(field)
        if not splitting:
            yield str(benchmark), "", differing, part
            continue
        for shared, share in part.groupby(splitting):
            label = ", ".join(f"{field}={value}" for field, value in zip(splitting, shared, strict=True))
            yield str(benchmark), label, differing, share


def with_average(places: pd.DataFrame) -> pd.DataFrame:
    """Where the columns are several pairs, all of it once more in a column for their average."""
    if places["pair"].nunique() < 2:
        return places
    return pd.concat([places, places.assign(column=AVERAGE, group=AVERAGE)])


def in_order(labels: pd.Series) -> list[str]:
    """As one reads them, the average last."""
    return sorted(labels.unique(), key=lambda label: (label == AVERAGE, natural(label)))


def holds_up(best: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `best` is reliably above `other`, both over the same keys in the same order.

    Two-sided sign-flip permutation test of the mean difference at ALPHA: every flip of up to 10 differences, 1024
    random ones (always the same) of more. Fewer than FEWEST_KEYS can never hold.
    """
    differences = np.subtract(best, other)
    if len(differences) < FEWEST_KEYS or differences.mean() <= 0:
        return False
    from scipy.stats import permutation_test  # half a second, which a small table need not pay

    flips = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=1024, rng=0)
    return bool(flips.pvalue <= ALPHA)


def build_grids(
    layout: Layout, places: pd.DataFrame, below: Sequence[str], cited: Beside | None = None, oracle: bool = False
) -> list[Grid]:
    """One grid a metric.

    Args:
        places: cells with their `row`, `column`, and `group`: places of one group are compared over the same keys.
        below: notes that go under each.
        cited: published figures, beside the student's target accuracy.
        oracle: its best epoch too.

    Raises:
        ReportError: two cells stand for one place, pair and seed.
    """
    _refuse_doubles(places)
    wanted = [*METRICS, *(["oracle_accuracy"] if oracle else [])]
    states: dict[str, dict[Place, dict[Key, Trial]]] = {}
    values: dict[str, dict[str, dict[Place, dict[Key, float]]]] = {metric: {} for metric in wanted}
    frame = places[["group", "row", "column", "pair", "seed", "cell", "status", *wanted]]
    lines = zip(*(frame[name].tolist() for name in frame), strict=True)
    for group, row, column, pair, seed, trial, status, *figures in lines:
        place, key = (row, column), (pair, seed)
        states.setdefault(group, {}).setdefault(place, {})[key] = (trial, status)
        if status == "done":
            for metric, value in zip(wanted, figures, strict=True):
                if value == value:  # not NaN
                    values[metric].setdefault(group, {}).setdefault(place, {})[key] = value
    built = {metric: _grid(layout, metric, below, states, values[metric]) for metric in wanted}
    beside = []
    if oracle:
        beside.append(_oracle(built.pop("oracle_accuracy")))
    if cited is not None:
        beside.append(cited)
    headline = built["target_accuracy"]
    return [dataclasses.replace(grid, beside=beside) if grid is headline else grid for grid in built.values()]


def _refuse_doubles(places: pd.DataFrame) -> None:
    doubled = places[places.duplicated(["row", "column", "pair", "seed"], keep=False)]
    if len(doubled):
        row, column, pair, seed = doubled.iloc[0][["row", "column", "pair", "seed"]]
        same = places[(places["row"] == row) & (places["column"] == column)]
        ids = same[(same["pair"] == pair) & (same["seed"] == seed)]["cell"]
        raise ReportError(
            f"cells {', '.join(sorted(ids))} have the same config ({row}, {column}, {pair}, seed {seed}) but other "
            "data or weights: keep one version in a store (move the others' records away, or report on another store)"
        )


def _grid(
    layout: Layout, metric: str, below: Sequence[str],
    states: dict[str, dict[Place, dict[Key, Trial]]], values: dict[str, dict[Place, dict[Key, float]]],
) -> Grid:  # fmt: skip
    cells = {(row, column): Cell() for row in layout.rows for column in layout.columns}
    remarks = []
    averaged: set[Key] = set()
    best: set[Place] = set()
    unmarked: dict[str, int] = {}
    for group, of_group in states.items():
        found = values.get(group, {})
        common = set.intersection(*map(set, found.values())) if found else set()
        keys = sorted(common, key=lambda key: (key[1], key[0]))
        for place, trials in of_group.items():
            cells[place] = _cell(list(trials.values()), found.get(place, {}), keys)
        averaged |= common
        remarks += notes.left_out(group, of_group, found, common)
        if keys and layout.rows_compare:
            marked, close = _best(layout, cells, found, keys)
            best |= marked
            unmarked |= close
    named = (layout.form, layout.benchmark, layout.facet, metric, layout.rows, layout.columns)
    grid = Grid(*named, cells, [], frozenset(best), group=layout.group)
    if averaged:
        grid.notes.append(notes.definition(grid, averaged, layout.over_pairs))
    grid.notes.extend([*below, *remarks, *notes.incomplete(grid)])
    grid.notes.extend(notes.of_best(grid.best, unmarked, FEWEST_KEYS, ALPHA))
    return grid


def _cell(trials: list[Trial], values: dict[Key, float], keys: list[Key]) -> Cell:
    """`keys`: those averaged, seed by seed."""
    statuses = [status for _, status in trials]
    counts = {status: statuses.count(status) for status in ("done", "failed", "missing", "stale")}
    cell = Cell(measured=len(values), trials=tuple(trial for trial, _ in trials), **counts)
    if not values or not keys:
        return cell
    by_seed: dict[int, list[float]] = {}
    for key in keys:
        by_seed.setdefault(key[1], []).append(values[key])
    means = [statistics.fmean(shares) for shares in by_seed.values()]
    mean = statistics.fmean(means)
    # Not statistics.stdev: exact fractions are most of the time that a large report takes.
    std = math.sqrt(math.fsum((share - mean) ** 2 for share in means) / (len(means) - 1)) if len(means) > 1 else None
    averaged = {key: values[key] for key in keys}
    weights = {(pair, seed): 1 / (len(means) * len(by_seed[seed])) for pair, seed in keys}
    half = half_width_over_seeds(averaged, weights)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return dataclasses.replace(cell, mean=mean, std=std, low=low, high=high, n=len(means))


def _best(
    layout: Layout, cells: dict[Place, Cell], values: dict[Place, dict[Key, float]], keys: list[Key]
) -> tuple[set[Place], dict[str, int]]:
    """The best place of each column, where it holds up; else the column, with the number of keys compared."""
    marked, unmarked = set(), {}
    for column in layout.columns:
        means = {(row, column): cells[row, column].mean for row in layout.rows if (row, column) in values}
        ranked = sorted(means, key=lambda place: means[place] or 0.0, reverse=True)
        if len(ranked) < 2:
            continue
        first, second = ([values[place][key] for key in keys] for place in ranked[:2])
        if holds_up(first, second):
            marked.add(ranked[0])
        else:
            unmarked[column] = len(keys)
    return marked, unmarked


def _oracle(grid: Grid) -> Beside:
    figures = {
        (row, f"{column} {ORACLE}"): (cell.mean, cell.std)
        for (row, column), cell in grid.cells.items()
        if cell.mean is not None
    }
    note = f"{ORACLE}: the highest point of each curve, which only target labels can choose; over the same keys."
    return Beside([f"{column} {ORACLE}" for column in grid.columns], grid.rows, figures, [note])
