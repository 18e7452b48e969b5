"""What a table is: places with an average each, notes, and columns beside it that no comparison counts."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from scale_ray.report.labels import join

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
    """One place of a grid, percent. `mean` is None where nothing can be averaged; the others also where n < 2."""

    mean: float | None = None
    std: float | None = None
    n: int = 0  # seeds averaged
    done: int = 0
    failed: int = 0
    missing: int = 0
    stale: int = 0
    measured: int = 0  # done, with a value of the grid's metric: source_only has no teacher
    trials: tuple[str, ...] = ()  # ids of all that is counted above
    low: float | None = None  # 95 % interval of the mean for these very pairs and other seeds
    high: float | None = None

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
class Beside:
    """Columns to the right of the measured ones: other people's figures, or what was chosen by target labels.

    `rows` may name some that the grid does not have; they come below its own. (mean, std) in percent.
    """

    columns: list[str]
    rows: list[str]
    figures: dict[Place, tuple[float, float | None]]
    notes: list[str]


@dataclass(frozen=True)
class Layout:
    """Where a grid stands and what its axes are."""

    form: str
    benchmark: str
    facet: str
    rows: list[str]
    columns: list[str]
    over_pairs: bool = True  # a place averages over pairs; else pairs are an axis
    rows_compare: bool = True  # rows are rivals, of which one can be best
    group: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of averaged accuracies in percent; `cells` has every (row, column)."""

    form: str  # losses_by_backbone, pairs_by_method, or <rows>_by_<columns>
    benchmark: str
    facet: str  # what all of it shares and other grids of the form do not: "losses.threshold=0.9"
    metric: str  # a key of METRICS
    rows: list[str]
    columns: list[str]
    cells: dict[Place, Cell]
    notes: list[str]
    best: frozenset[Place] = frozenset()  # the highest of their column, where the difference holds up
    beside: list[Beside] = field(default_factory=list)
    group: str = ""  # the pre-training of its rows, where other grids may stand below it in one table: see `Stack`

    @property
    def place(self) -> str:
        return join(self.benchmark, self.facet, self.group)

    @property
    def title(self) -> str:
        return f"{METRICS[self.metric]} (%) on {self.place}"

    @property
    def seeds(self) -> int | None:
        """n, where every averaged place has the same; else None."""
        counts = {cell.n for cell in self.cells.values() if cell.mean is not None}
        return counts.pop() if len(counts) == 1 else None

    @property
    def all_rows(self) -> list[str]:
        """Its own rows, then those that only the columns beside it have."""
        return list(dict.fromkeys([*self.rows, *(row for beside in self.beside for row in beside.rows)]))

    def beside_figure(self, place: Place) -> tuple[float | None, float | None]:
        """Mean and std of a place in a column beside the measured ones."""
        found = (beside.figures[place] for beside in self.beside if place in beside.figures)
        return next(found, (None, None))


@dataclass(frozen=True)
class Stack:
    """One table: grids of the same columns below one another, each under the label of its group.

    Nothing runs across them: each grid has its own averages, its own best and its own notes.
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
        """The columns to the right of the measured ones, of all its grids."""
        found = (column for grid in self.grids for beside in grid.beside for column in beside.columns)
        return list(dict.fromkeys(found))

    @property
    def title(self) -> str:
        first = self.grids[0]
        return f"{METRICS[first.metric]} (%) on {join(first.benchmark, first.facet)}"

    @property
    def heading(self) -> str:
        """What its rows and columns are."""
        known = {"losses_by_backbone": "Loss combination by backbone", "pairs_by_method": "Method by domain pair"}
        return known.get(self.form, self.form.replace("_by_", " by "))

    @property
    def notes(self) -> list[str]:
        """What holds for every grid that has notes, then what does for one, then what its columns beside say."""
        noted = [grid for grid in self.grids if grid.notes]
        common = [note for note in noted[0].notes if all(note in grid.notes for grid in noted)] if noted else []
        own = [f"{grid.group}: {note}" for grid in noted for note in grid.notes if note not in common]
        cited = (note for grid in self.grids for beside in grid.beside for note in beside.notes)
        return [*common, *own, *dict.fromkeys(cited)]


def stacks(grids: Iterable[Grid]) -> list[Stack]:
    """The tables that these grids make, in the order of their first grids."""
    found: dict[tuple[str, ...], list[Grid]] = {}
    for grid in grids:
        found.setdefault((grid.form, grid.benchmark, grid.facet, grid.metric), []).append(grid)
    return [Stack(share) for share in found.values()]
