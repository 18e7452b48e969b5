"""The parts of a table: entries with an average each, notes, and columns beside them that are never compared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scale_ray.report.read.labels import join

METRICS = {
    "target_accuracy": "Target accuracy of the student",
    "teacher_accuracy": "Target accuracy of the teacher",
    "source_val_accuracy": "Accuracy on held-out source images",
}
# What stands in the place of accuracies where a target has no labels: scores in percent.
WITHOUT_LABELS = {
    "validator_coherence": "Validator coherence, which reads no target label",
    "validator_circular": "Validator circular, which reads no target label",
    "validator_reverse": "Validator reverse, which reads no target label",
    "source_val_accuracy": METRICS["source_val_accuracy"],
}
METRIC_NAMES = METRICS | WITHOUT_LABELS
AVERAGE = "average"

Position = tuple[str, str]  # row label, column label
Key = tuple[str, int]  # pair, seed


class Trial(NamedTuple):
    """One cell, as the entry that averages it counts it."""

    id: str
    status: str
    unlearned: bool  # it did not learn its source
    unlabelled: bool  # it is done, and its target has no labels


def lack(metric: str, unlabelled: bool) -> str:
    """Why a finished training has no value of a metric."""
    if metric.startswith("validator_"):
        return "no score"
    return "no teacher" if metric == "teacher_accuracy" and not unlabelled else "no labels"


@dataclass(frozen=True)
class Entry:
    """One averaged accuracy of a grid, percent.

    `mean` is None if nothing can be averaged; `std` is None as well if n < 2, `low` and `high` if n < 3.
    """

    mean: float | None = None
    std: float | None = None
    n: int = 0  # seeds averaged
    done: int = 0
    failed: int = 0
    missing: int = 0
    stale: int = 0
    measured: int = 0  # done, with a value of the grid's metric: source_only has no teacher accuracy
    unlearned: int = 0  # averaged ones of a training that did not learn its source
    unlabelled: int = 0  # done ones whose target has no labels
    trials: tuple[str, ...] = ()  # ids of all cells counted above
    low: float | None = None  # 95 % interval of the mean for the same pairs and other seeds
    high: float | None = None
    by_seed: tuple[float, ...] = ()  # the n means over pairs that are averaged; empty where their pairs differ

    @property
    def planned(self) -> int:
        """How many records the entry should have."""
        return self.done + self.failed + self.missing + self.stale

    def holes(self, total: str = "") -> str:
        """What is not done: `2 failed, 1 missing`, with `total` after the first count."""
        counts = {"failed": self.failed, "missing": self.missing, "stale": self.stale}
        first, *rest = [(count, status) for status, count in counts.items() if count]
        return ", ".join([f"{first[0]} {total}{first[1]}", *(f"{count} {status}" for count, status in rest)])


@dataclass(frozen=True)
class Beside:
    """Columns to the right of the measured ones: published accuracies, or those chosen by target labels.

    `rows` may name rows that the grid does not have; these are shown below the grid's own.
    """

    columns: list[str]
    rows: list[str]
    figures: dict[Position, tuple[float, float | None]]  # mean and standard deviation, percent
    notes: list[str]


@dataclass(frozen=True)
class Layout:
    """What a grid covers and what its axes are."""

    form: str
    benchmark: str
    facet: str
    rows: list[str]
    columns: list[str]
    over_pairs: bool = True  # an entry averages over pairs; otherwise pairs are an axis
    rows_compare: bool = True  # rows compete, so that one of them can be best
    group: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of averaged accuracies in percent; `entries` has every (row, column)."""

    form: str  # losses_by_backbone, pairs_by_method, or <rows>_by_<columns>
    benchmark: str
    facet: str  # the values that tell it from other grids of the form: "losses.threshold=0.9"
    metric: str  # a key of METRIC_NAMES
    rows: list[str]
    columns: list[str]
    entries: dict[Position, Entry]
    notes: list[str]
    best: frozenset[Position] = frozenset()  # significantly the highest of their column
    beside: list[Beside] = field(default_factory=list)
    group: str = ""  # the pre-training that its rows share; grids of other groups can be in the same `Stack`

    @property
    def scope(self) -> str:
        """Benchmark, facet and group."""
        return join(self.benchmark, self.facet, self.group)

    @property
    def title(self) -> str:
        return f"{METRIC_NAMES[self.metric]} (%) on {self.scope}"

    @property
    def seeds(self) -> int | None:
        """n if all averaged entries have the same n, else None."""
        counts = {entry.n for entry in self.entries.values() if entry.mean is not None}
        return counts.pop() if len(counts) == 1 else None

    @property
    def all_rows(self) -> list[str]:
        """The grid's own rows, then rows that only the columns beside it have."""
        return list(dict.fromkeys([*self.rows, *(row for beside in self.beside for row in beside.rows)]))

    def beside_figure(self, position: Position) -> tuple[float | None, float | None]:
        """Mean and standard deviation at a position in a column beside the measured ones."""
        found = (beside.figures[position] for beside in self.beside if position in beside.figures)
        return next(found, (None, None))


@dataclass(frozen=True)
class Stack:
    """One table: grids with the same columns below one another, each under the label of its group.

    Nothing is averaged or compared across groups: each grid has its own averages, best entries and notes.
    """

    grids: list[Grid]

    @property
    def form(self) -> str:
        return self.grids[0].form

    @property
    def metric(self) -> str:
        return self.grids[0].metric

    @property
    def columns(self) -> list[str]:
        return self.grids[0].columns

    @property
    def beside(self) -> list[str]:
        """The columns to the right of the measured ones, over all grids."""
        found = (column for grid in self.grids for beside in grid.beside for column in beside.columns)
        return list(dict.fromkeys(found))

    @property
    def all_columns(self) -> list[str]:
        """The measured columns, then those beside them."""
        return [*self.columns, *self.beside]

    @property
    def title(self) -> str:
        first = self.grids[0]
        return f"{METRIC_NAMES[first.metric]} (%) on {join(first.benchmark, first.facet)}"

    @property
    def heading(self) -> str:
        """What the rows and columns are: `Method by domain pair`."""
        known = {"losses_by_backbone": "Loss combination by backbone", "pairs_by_method": "Method by domain pair"}
        return known.get(self.form, self.form.replace("_by_", " by "))

    @property
    def notes(self) -> list[str]:
        """Notes that all grids share, then notes of single grids, then notes of the columns beside them."""
        cited = (note for grid in self.grids for beside in grid.beside for note in beside.notes)
        return [*common_notes((grid.group, grid.notes) for grid in self.grids), *dict.fromkeys(cited)]


def common_notes(parts: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """The notes that all parts with any share, then those of single parts, with the part's name before them."""
    noted = [(name, notes) for name, notes in parts if notes]
    common = [note for note in noted[0][1] if all(note in notes for _, notes in noted)] if noted else []
    return [*common, *(f"{name}: {note}" for name, notes in noted for note in notes if note not in common)]


def stacks(grids: Iterable[Grid]) -> list[Stack]:
    """Combine grids into tables, in the order of each table's first grid."""
    found: dict[tuple[str, ...], list[Grid]] = {}
    for grid in grids:
        found.setdefault((grid.form, grid.benchmark, grid.facet, grid.metric), []).append(grid)
    return [Stack(share) for share in found.values()]


def first_metrics(tables: Iterable[Stack]) -> list[Stack]:
    """Of the tables with the same rows and columns the first: the student's accuracy, where there are labels."""
    found: dict[tuple[str, str, str], Stack] = {}
    for table in tables:
        found.setdefault((table.form, table.grids[0].benchmark, table.grids[0].facet), table)
    return list(found.values())
