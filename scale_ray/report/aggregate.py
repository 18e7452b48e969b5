"""From cells to grids: which records share a place, and what their average is.

What an averaged place is. Accuracies are first averaged over domain pairs within a seed; the place shows the mean and
the sample standard deviation (ddof = 1) of those per-seed figures, and n is the number of seeds. Places that are
compared average the same (pair, seed) keys: those that every one of them with a value has. The rest is left out, and
the grid's notes count it and say why.
"""

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from scale_ray.config import LossesConfig
from scale_ray.report.load import ReportError, varying_fields

METRICS = {
    "target_accuracy": "Target accuracy of the student",
    "teacher_accuracy": "Target accuracy of the teacher",
    "source_val_accuracy": "Accuracy on held-out source images",
}
AVERAGE = "average"

Place = tuple[str, str]  # row label, column label
Key = tuple[str, int]  # pair, seed


@dataclass(frozen=True)
class Cell:
    """One place of a grid. `mean` is None where nothing can be averaged; `std` also where n < 2. Percent."""

    mean: float | None = None
    std: float | None = None
    n: int = 0  # seeds averaged
    done: int = 0
    failed: int = 0
    missing: int = 0
    stale: int = 0
    measured: int = 0  # done, with a value of the grid's metric: source_only has no teacher
    trials: tuple[str, ...] = ()  # ids of all that is counted above

    @property
    def planned(self) -> int:
        """How many records the place should have."""
        return self.done + self.failed + self.missing + self.stale

    def holes(self, total: str = "") -> str:
        """`2 failed, 1 missing`, with `total` after the first count: what is not done."""
        counts = {"failed": self.failed, "missing": self.missing, "stale": self.stale}
        first, *rest = [(count, status) for status, count in counts.items() if count]
        return ", ".join([f"{first[0]} {total}{first[1]}", *(f"{count} {status}" for count, status in rest)])


@dataclass(frozen=True)
class Grid:
    """A table of averaged accuracies in percent; `cells` has every (row, column)."""

    form: str  # losses_by_backbone or pairs_by_method
    benchmark: str
    facet: str  # what all of it shares and other grids of the form do not: "losses.threshold=0.9"
    metric: str  # a key of METRICS
    rows: list[str]
    columns: list[str]
    cells: dict[Place, Cell]
    notes: list[str]

    @property
    def title(self) -> str:
        place = f"{self.benchmark}, {self.facet}" if self.facet else self.benchmark
        return f"{METRICS[self.metric]} (%) on {place}"

    @property
    def seeds(self) -> int | None:
        """n, where every averaged place has the same; else None."""
        counts = {cell.n for cell in self.cells.values() if cell.mean is not None}
        return counts.pop() if len(counts) == 1 else None


def grids(cells: pd.DataFrame) -> list[Grid]:
    """Every grid that a frame of `load` holds, by benchmark, facet, form and metric.

    `losses_by_backbone` (the paper's Table 1) averages over pairs and holds `scale` and `source_only`, whose row is
    `ce`. `pairs_by_method` (Table 2) has one grid a backbone and ends with the average over pairs. A config field that
    differs among records of one place is never averaged over: it splits the grids.

    Raises:
        ReportError: two cells would stand for the same place, pair and seed.
    """
    found = []
    for benchmark, facet, notes, part in facets(cells):
        ablation = part[part["method"].isin(["scale", "source_only"])]
        if len(ablation):
            places = ablation.assign(row=combination_labels(ablation), column=ablation["backbone"], group="")
            rows = sorted(places["row"].unique(), key=by_combination)
            found += _all_metrics("losses_by_backbone", benchmark, facet, notes, places, rows)
        backbones = sorted(part["backbone"].unique(), key=natural)
        for backbone in backbones:
            share = part[part["backbone"] == backbone]
            places = share.assign(row=_method_labels(share), column=share["pair"], group=share["pair"])
            if places["pair"].nunique() > 1:
                places = pd.concat([places, places.assign(column=AVERAGE, group=AVERAGE)])
            rows = sorted(places["row"].unique(), key=_by_method)
            label = join(facet, f"model.backbone={backbone}" if len(backbones) > 1 else "")
            found += _all_metrics("pairs_by_method", benchmark, label, notes, places, rows)
    return found


def facets(cells: pd.DataFrame) -> Iterable[tuple[str, str, list[str], pd.DataFrame]]:
    """Parts of which every place can be averaged: (benchmark, label, notes, cells).

    A field whose value follows from method, losses and backbone does not split; a note says that it differs.
    """
    for benchmark, part in cells[~cells["superseded"]].groupby("benchmark"):
        splitting, notes = [], []
        for field in varying_fields(cells):
            values = part[field].unique()
            if len(values) < 2:
                continue
            if part.groupby(["method", "losses", "backbone"])[field].nunique().max() == 1:
                shown = ", ".join(str(value) for value in sorted(values))
                notes.append(f"Methods, combinations or backbones differ in {field} as well: {shown}.")
            else:
                splitting.append(field)
        if not splitting:
            yield str(benchmark), "", notes, part
            continue
        for shared, share in part.groupby(splitting):
            label = ", ".join(f"{field}={value}" for field, value in zip(splitting, shared, strict=True))
            yield str(benchmark), label, notes, share


def combination_labels(cells: pd.DataFrame) -> pd.Series:
    """`ce+ssl`; with its method, `ce (dann)`, where that is neither scale nor the one source_only that `ce` means."""
    shared = cells.groupby("losses")["method"].transform("nunique") > 1
    plain = (cells["method"] == "source_only") & (cells["losses"] == "ce") | (cells["method"] == "scale") & ~shared
    return cells["losses"].where(plain, cells["losses"] + " (" + cells["method"] + ")")


def _method_labels(cells: pd.DataFrame) -> pd.Series:
    plain = (cells["method"] == "source_only") & (cells["losses"] == "ce")
    return cells["method"].where(plain, cells["method"] + " (" + cells["losses"] + ")")


def _all_metrics(
    form: str, benchmark: str, facet: str, notes: list[str], places: pd.DataFrame, rows: list[str]
) -> list[Grid]:
    _refuse_doubles(places)
    columns = sorted(set(places["column"]) - {AVERAGE}, key=natural)
    columns += [AVERAGE] * (AVERAGE in set(places["column"]))
    return [_grid(form, benchmark, facet, metric, notes, places, rows, columns) for metric in METRICS]


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
    form: str, benchmark: str, facet: str, metric: str, notes: list[str],
    places: pd.DataFrame, rows: list[str], columns: list[str],
) -> Grid:  # fmt: skip
    cells = {(row, column): Cell() for row in rows for column in columns}
    remarks = []
    averaged: set[Key] = set()
    for group, compared in places.groupby("group", sort=False):
        statuses: dict[Place, dict[Key, str]] = {}
        values: dict[Place, dict[Key, float]] = {}
        trials: dict[Place, list[str]] = {}
        wanted = compared[["cell", "row", "column", "pair", "seed", "status", metric]]
        for trial, row, column, pair, seed, status, value in wanted.itertuples(index=False):
            trials.setdefault((row, column), []).append(trial)
            statuses.setdefault((row, column), {})[pair, seed] = status
            if status == "done" and not pd.isna(value):
                values.setdefault((row, column), {})[pair, seed] = value
        common = set.intersection(*map(set, values.values())) if values else set()
        for place, states in statuses.items():
            cell = _cell(list(states.values()), values.get(place, {}), common)
            cells[place] = replace(cell, trials=tuple(trials[place]))
        averaged |= common
        remarks += _left_out(str(group), statuses, values, common)
    grid = Grid(form, benchmark, facet, metric, rows, columns, cells, [])
    if averaged:
        grid.notes.append(_definition(grid, averaged))
    grid.notes.extend(notes + remarks + _incomplete(grid))
    return grid


def _definition(grid: Grid, averaged: set[Key]) -> str:
    spread = "Mean" if max(cell.n for cell in grid.cells.values()) < 2 else "Mean ± sample standard deviation"
    seeds = "n seeds" if grid.seeds is None else _count(grid.seeds, "seed")
    pairs = _count(len({pair for pair, _ in averaged}), "pair")
    over_pairs = f" of the mean over {pairs}" if grid.form == "losses_by_backbone" else ""
    return f"Percent, last iterate. {spread} over {seeds}{over_pairs}."


def _cell(statuses: list[str], values: dict[Key, float], common: set[Key]) -> Cell:
    counts: dict[str, Any] = {status: statuses.count(status) for status in ("done", "failed", "missing", "stale")}
    if not values or not common:
        return Cell(measured=len(values), **counts)
    by_seed: dict[int, list[float]] = {}
    for pair, seed in sorted(common):
        by_seed.setdefault(seed, []).append(values[pair, seed])
    means = [statistics.fmean(shares) for shares in by_seed.values()]
    std = statistics.stdev(means) if len(means) > 1 else None
    return Cell(statistics.fmean(means), std, len(means), measured=len(values), **counts)


def _left_out(
    group: str, statuses: dict[Place, dict[Key, str]], values: dict[Place, dict[Key, float]], common: set[Key]
) -> list[str]:
    """What the compared places of one group do not all have, and which of them lacks it."""
    wanted = {key for place in values for key in statuses[place]}
    left = sorted(wanted - common)
    if not left:
        return []
    reasons = []
    for pair, seed in left[:4]:
        lacking = [
            f"{place[0] if group else ' / '.join(place)} {statuses[place].get((pair, seed), 'not planned')}"
            for place in values
            if (pair, seed) not in values[place]
        ]
        more = f" and {len(lacking) - 2} more" if len(lacking) > 2 else ""
        reasons.append(f"{pair} seed {seed} ({', '.join(lacking[:2])}{more})")
    if len(left) > 4:
        reasons.append(f"and {len(left) - 4} more")
    where = f"{group}: " if group else ""
    remark = f"{where}{len(left)} of {len(wanted)} (pair, seed) keys left out, not every compared cell has them: "
    notes = [remark + "; ".join(reasons) + "."]
    pairs_of_seeds = {frozenset(pair for pair, other in common if other == seed) for _, seed in common}
    if len(pairs_of_seeds) > 1:
        notes.append(f"{where}± holds differences between pairs too: the seeds do not average the same pairs.")
    return notes


def _incomplete(grid: Grid) -> list[str]:
    """One footnote (†) for every place that shows an average of a part of its records."""
    notes = []
    for (row, column), cell in grid.cells.items():
        if cell.mean is not None and cell.done < cell.planned:
            notes.append(f"† {row} / {column}: {cell.holes(f'of {cell.planned} ')}.")
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key under which resnet50 comes before resnet101."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def by_combination(label: str) -> tuple[int, list[int], str]:
    """Few terms first, then in the order in which terms are written."""
    known = list(LossesConfig().terms)
    names = [term.rpartition("*")[2] for term in label.partition(" ")[0].split("+")]
    return len(names), [known.index(name) if name in known else len(known) for name in names], label


def _by_method(label: str) -> tuple[int, str, tuple[int, list[int], str]]:
    """source_only first, scale last."""
    method, _, losses = label.partition(" ")
    return {"source_only": 0, "scale": 2}.get(method, 1), method, by_combination(losses.strip("()"))
