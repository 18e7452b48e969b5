"""Grids of any two axes: config fields by dotted path, or the words pair, method, losses, backbone and seed."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from scale_ray.config import field_paths, suggest
from scale_ray.report.aggregate import build_grids, facets, in_order, with_average
from scale_ray.report.grid import Grid, Layout
from scale_ray.report.labels import by_combination, by_method, combination_labels, join, method_labels, natural
from scale_ray.report.load import ReportError, varying_fields
from scale_ray.report.rows import NAMED_FIELDS

WORDS = ("pair", "method", "losses", "backbone", "seed")
_KEYS = {"pair", "source", "target", "seed"}  # places that differ in these have no (pair, seed) key in common


def tabulate(
    cells: pd.DataFrame, rows: str, columns: str, facet: str | None = None, *, remarks: Sequence[str] = (),
    oracle: bool = False,
) -> list[Grid]:  # fmt: skip
    """Grids of one axis by another, one a metric for each benchmark and value of `facet`.

    Averages are over what is no axis: pairs within a seed, then seeds. Any other field that differs splits the grids,
    unless its value follows from the axes.

    Args:
        cells, remarks, oracle: as for `aggregate.grids`.
        rows, columns, facet: `pair`, `method`, `losses`, `backbone`, `seed`, or a dotted path.

    Raises:
        ReportError: no such axis, one that does not differ among the cells, or one named twice.
    """
    named = [axis for axis in (rows, columns, facet) if axis is not None]
    across = [_column(cells, axis) for axis in named]
    if len(set(across)) < len(across):
        raise ReportError(f"axes {', '.join(named)}: one is named twice: rows, columns and facet must differ")
    described = set(across)
    if described & {"method", "losses"} and not {"method", "losses"} <= described:
        described |= {"method", "losses"}  # either's labels name both
    # Its labels name no variants: what makes them is an axis here, or splits the grids as any other field does.
    cells = cells.assign(variant=cells["method"])
    found = []
    for benchmark, label, differing, part in facets(cells, sorted(described)):
        for value, share in part.groupby(across[2]) if facet else [("", part)]:
            place = join(f"{facet}={value}" if facet else "", label)
            row, column = (_labels(share, axis, across) for axis in across[:2])
            split = [axis for axis in across[:2] if axis in _KEYS]
            group = share[split].astype("str").agg(", ".join, axis=1) if split else ""
            places = share.assign(row=row, column=column, group=group)
            if across[1] == "pair":
                places = with_average(places)
            layout = Layout(
                f"{rows}_by_{columns}",
                benchmark,
                place,
                _sorted(share, across[0], row),
                in_order(places["column"]) if across[1] == "pair" else _sorted(share, across[1], column),
                over_pairs=not {"pair", "source", "target"} & set(across),
                rows_compare=across[0] not in _KEYS,
            )
            found += build_grids(layout, places, [*differing, *remarks], oracle=oracle)
    return found


def _column(cells: pd.DataFrame, axis: str) -> str:
    """The column of the frame that holds the axis."""
    if axis in WORDS:
        return axis
    if axis in NAMED_FIELDS:
        return NAMED_FIELDS[axis]
    differing = varying_fields(cells)
    if axis in differing:
        return axis
    if axis in field_paths():
        raise ReportError(
            f"{axis} has one value in all cells: choose a field that differs ({', '.join([*WORDS, *differing])})"
        )
    raise ReportError(
        f"unknown axis {axis!r}: {suggest(axis, [*WORDS, *field_paths()])}choose from {', '.join([*WORDS, *differing])}"
    )


def _labels(cells: pd.DataFrame, axis: str, across: list[str]) -> pd.Series:
    if axis == "method" and "losses" not in across:
        return method_labels(cells)
    if axis == "losses" and "method" not in across:
        return combination_labels(cells)
    return cells[axis].astype("str")


def _sorted(cells: pd.DataFrame, axis: str, labels: pd.Series) -> list[str]:
    """Numbers by value, names as one reads them."""
    if pd.api.types.is_numeric_dtype(cells[axis]):
        values: dict[str, Any] = dict(zip(labels, cells[axis], strict=True))
        return sorted(values, key=values.__getitem__)
    order = {"losses": by_combination, "method": by_method}.get(axis, natural)
    return sorted(labels.unique(), key=order)
