"""Which figures a report has, and their files. To add a kind of figure, write its function and list it in `KINDS`."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from scale_ray.records import Record
from scale_ray.report.effects.tables import TABLES, Bars, Effects, EffectTable
from scale_ray.report.figures.bars import bars_with_intervals
from scale_ray.report.figures.board import board_plot
from scale_ray.report.figures.confusion import confusion_matrix
from scale_ray.report.figures.curves import accuracy_curves, pseudo_labels
from scale_ray.report.figures.dots import dot_plot
from scale_ray.report.figures.heat_map import heat_map
from scale_ray.report.figures.style import narrow
from scale_ray.report.read.curves import Curves
from scale_ray.report.read.labels import join, natural
from scale_ray.report.tables.facets import facets
from scale_ray.report.tables.forms import PAIRS_BY_METHOD
from scale_ray.report.tables.grid import Grid
from scale_ray.study import describe

MOST_BY_PAIR = 12  # methods: of more, a figure has the average over pairs alone


class Drawing(NamedTuple):
    """One figure of a report. On the page it is shown under its heading, or not at all if that is empty.

    `narrow` is the same for a phone's screen; None where the figure has one form alone.
    """

    name: str  # of its files, without an ending
    heading: str
    benchmark: str
    title: str
    figure: Figure
    narrow: Figure | None = None


@dataclass(frozen=True)
class Material:
    """What figures are drawn from.

    Attributes:
        grids: as `grids(cells)` and `tabulate` return them.
        cells: as `load` returns them.
        curves: of the cells.
        effects: of the same cells.
    """

    grids: list[Grid]
    cells: pd.DataFrame
    curves: Curves
    effects: Effects


def drawings(material: Material, most: int) -> Iterator[Drawing]:
    """The figures of a report, at most `most` of each kind, each drawn only when it is requested."""
    kinds = [kind(material) for kind in KINDS]
    students = [grid for grid in material.grids if grid.metric == "target_accuracy" and grid.rows]
    forms = dict.fromkeys(grid.form for grid in students)
    heat_maps = [_heat_maps([grid for grid in students if grid.form == form]) for form in forms]
    return itertools.chain.from_iterable(itertools.islice(kind, most) for kind in [*heat_maps, *kinds])


def of_trial(record: Record) -> Iterator[Drawing]:
    """The confusion matrix of one trial; nothing if it failed."""
    config = record.config
    figure = confusion_matrix(record)
    if figure is not None:
        name = f"confusion-{record.id[:12]}"
        yield Drawing(name, "Confusion matrices", config.data.benchmark, describe(config), figure)


def file_name(form: str, scope: str) -> str:
    """A readable name that is safe on every file system; a long scope is shortened and its hash appended."""
    name = re.sub(r"[^A-Za-z0-9.=]+", "-", scope).strip("-")
    if len(name) > 100:
        name = f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{form}-{name}"


def _heat_maps(grids: list[Grid]) -> Iterator[Drawing]:
    for grid in grids:
        yield Drawing(file_name(grid.form, grid.scope), "", grid.benchmark, grid.scope, heat_map(grid))


def _dots(material: Material) -> Iterator[Drawing]:
    for grid in material.grids:
        if grid.form == PAIRS_BY_METHOD and grid.metric == "target_accuracy" and grid.rows:
            draw = partial(dot_plot, _dots_of(grid), grid.scope)
            if len(grid.rows) > MOST_BY_PAIR:
                draw = partial(_average_plot, grid)
            yield from _drawn("pairs", "Methods on domain pairs", grid.benchmark, grid.scope, draw)


def _average_plot(grid: Grid) -> Figure | None:
    """The average over pairs alone, or the only pair, the highest first; the title says so. None without a number."""
    column = grid.columns[-1]
    means = {row: mean for row in grid.rows if (mean := grid.entries[row, column].mean) is not None}
    rows = sorted(means, key=lambda row: -means[row])
    title = f"{grid.scope}: {column}. {len(grid.rows)} methods are too many to draw on every pair; the table has them."
    return board_plot(dataclasses.replace(grid, rows=rows, columns=[column]), title) if rows else None


def _dots_of(grid: Grid) -> pd.DataFrame:
    """What `dot_plot` reads, from a grid of methods (rows) by pairs (columns)."""
    entries = [(column, row, grid.entries[row, column]) for row in grid.rows for column in grid.columns]
    dots = [(pair, method, entry.mean, entry.low, entry.high, entry.by_seed) for pair, method, entry in entries]
    return pd.DataFrame(dots, columns=["pair", "method", "value", "low", "high", "by_seed"]).astype(
        {"value": float, "low": float, "high": float}
    )


def _bars(table: EffectTable, bars: Bars, material: Material) -> Iterator[Drawing]:
    frame = material.effects.frames[table.name]
    if frame.empty:
        return
    values = frame.rename(columns={"estimate": "value", bars.label: "label"})
    for benchmark, facet, backbone, scope, _ in _by_backbone(material.cells):
        wanted = frame[["benchmark", "facet", "backbone"]].eq([benchmark, facet, backbone]).all(axis=1)
        draw = partial(bars_with_intervals, values[wanted], scope, bars.axis)
        yield from _drawn(table.name, bars.heading, benchmark, scope, draw)


def _pseudo_labels(material: Material) -> Iterator[Drawing]:
    for benchmark, _, backbone, scope, part in _by_backbone(material.cells):
        draw = partial(pseudo_labels, part, _curves_of(material, part, backbone), backbone, scope)
        yield from _drawn("pseudo-labels", "Pseudo-labels", benchmark, scope, draw)


def _curves(material: Material) -> Iterator[Drawing]:
    for benchmark, _, backbone, scope, part in _by_backbone(material.cells):
        draw = partial(accuracy_curves, part, _curves_of(material, part, backbone), backbone, scope)
        yield from _drawn("curves", "Accuracy curves", benchmark, scope, draw)


def _curves_of(material: Material, part: pd.DataFrame, backbone: str) -> pd.DataFrame:
    return material.curves.of(part.loc[part["backbone"] == backbone, "cell"])


# Every kind besides heat maps, of which each form of grid is a kind.
KINDS: list[Callable[[Material], Iterator[Drawing]]] = [
    _dots,
    *(partial(_bars, table, table.bars) for table in TABLES if table.bars),
    _pseudo_labels,
    _curves,
]


def _by_backbone(cells: pd.DataFrame) -> Iterator[tuple[str, str, str, str, pd.DataFrame]]:
    """(benchmark, facet, backbone, the three as text, the facet's cells)."""
    for benchmark, facet, _, part in facets(cells):
        backbones = sorted(part["backbone"].unique(), key=natural)
        for backbone in backbones:
            named = f"model.backbone={backbone}" if len(backbones) > 1 else ""
            yield benchmark, facet, backbone, join(benchmark, facet, named), part


def _drawn(form: str, heading: str, benchmark: str, scope: str, draw: Callable[[], Figure | None]) -> Iterator[Drawing]:
    figure = draw()
    if figure is not None:
        with narrow():
            small = draw()
        yield Drawing(file_name(form, scope), heading, benchmark, scope, figure, small)
