"""Which figures a report has, and where they go: those of each benchmark and facet, by backbone."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from scale_ray.records import Record
from scale_ray.report.aggregate import facets
from scale_ray.report.effects import EffectTables
from scale_ray.report.figures import (
    accuracy_curves,
    confusion_matrix,
    dot_plot,
    heat_map,
    pseudo_labels,
    shapley_bars,
)
from scale_ray.report.grid import Grid
from scale_ray.report.labels import join, natural
from scale_ray.study import describe


class Drawing(NamedTuple):
    """One figure; on the page it stands under its heading, or not at all where that is empty."""

    name: str  # of its files, without an ending
    heading: str
    benchmark: str
    title: str
    figure: Figure


def drawings(
    grids: list[Grid], cells: pd.DataFrame, curves: pd.DataFrame, effects: EffectTables, most: int
) -> Iterator[Drawing]:
    """The figures of a report, at most so many of each kind, each drawn when it is asked for.

    Args:
        grids: what `grids(cells)` and `tabulate` returned.
        cells, curves: as `Contents` has them.
        effects: of the same cells.
    """
    kinds = [
        _heat_maps([grid for grid in grids if grid.form == form]) for form in dict.fromkeys(grid.form for grid in grids)
    ]
    kinds += [_dots(grids), _shapley(cells, effects), _pseudo_labels(cells, curves), _curves(cells, curves)]
    return itertools.chain.from_iterable(itertools.islice(kind, most) for kind in kinds)


def _heat_maps(grids: list[Grid]) -> Iterator[Drawing]:
    for grid in grids:
        if grid.metric == "target_accuracy" and grid.rows:  # without: published figures alone
            yield Drawing(file_name(grid.form, grid.place), "", grid.benchmark, grid.place, heat_map(grid))


def _dots(grids: list[Grid]) -> Iterator[Drawing]:
    for grid in grids:
        if grid.form == "pairs_by_method" and grid.metric == "target_accuracy" and grid.rows:
            figure = dot_plot(_places(grid), grid.place)
            yield from _drawn("pairs", "Methods on domain pairs", grid.benchmark, grid.place, figure)


def _shapley(cells: pd.DataFrame, effects: EffectTables) -> Iterator[Drawing]:
    for benchmark, facet, backbone, place, _ in _by_backbone(cells):
        bars = shapley_bars(_bars(effects.shapley, benchmark, facet, backbone), place)
        yield from _drawn("shapley", "What each loss term adds", benchmark, place, bars)


def _pseudo_labels(cells: pd.DataFrame, curves: pd.DataFrame) -> Iterator[Drawing]:
    for benchmark, _, backbone, place, part in _by_backbone(cells):
        labels = pseudo_labels(part, curves, backbone, place)
        yield from _drawn("pseudo-labels", "Pseudo-labels", benchmark, place, labels)


def _curves(cells: pd.DataFrame, curves: pd.DataFrame) -> Iterator[Drawing]:
    for benchmark, _, backbone, place, part in _by_backbone(cells):
        figure = accuracy_curves(part, curves, backbone, place)
        yield Drawing(file_name("curves", place), "Accuracy curves", benchmark, place, figure)


def _by_backbone(cells: pd.DataFrame) -> Iterator[tuple[str, str, str, str, pd.DataFrame]]:
    """(benchmark, facet, backbone, all three in words, the facet's cells)."""
    for benchmark, facet, _, part in facets(cells):
        backbones = sorted(part["backbone"].unique(), key=natural)
        for backbone in backbones:
            yield (
                benchmark,
                facet,
                backbone,
                join(benchmark, facet, f"model.backbone={backbone}" if len(backbones) > 1 else ""),
                part,
            )


def of_trial(record: Record) -> Iterator[Drawing]:
    """The confusion matrix of one trial; none where it failed."""
    config = record.config
    figure = confusion_matrix(record)
    if figure is not None:
        name, title = f"confusion-{record.id[:12]}", describe(config)
        yield Drawing(name, "Confusion matrices", config.data.benchmark, title, figure)


def file_name(form: str, place: str) -> str:
    """Readable, safe on every file system, and not too long for one where many fields make a facet."""
    name = re.sub(r"[^A-Za-z0-9.=]+", "-", place).strip("-")
    if len(name) > 100:
        name = f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{form}-{name}"


def _drawn(form: str, heading: str, benchmark: str, place: str, figure: Figure | None) -> Iterator[Drawing]:
    if figure is not None:
        yield Drawing(file_name(form, place), heading, benchmark, place, figure)


def _places(grid: Grid) -> pd.DataFrame:
    """Rows are methods, columns pairs: what `dot_plot` reads."""
    places = [(column, row, grid.cells[row, column]) for row in grid.rows for column in grid.columns]
    dots = [(pair, method, cell.mean, cell.low, cell.high) for pair, method, cell in places]
    return pd.DataFrame(dots, columns=["pair", "method", "value", "low", "high"]).astype(
        {"value": float, "low": float, "high": float}
    )


def _bars(shapley: pd.DataFrame, benchmark: str, facet: str, backbone: str) -> pd.DataFrame:
    """One backbone's Shapley values: what `shapley_bars` reads."""
    if shapley.empty:
        return shapley
    of_place = shapley[["benchmark", "facet", "backbone"]].eq([benchmark, facet, backbone]).all(axis=1)
    return shapley[of_place].rename(columns={"estimate": "value"})
