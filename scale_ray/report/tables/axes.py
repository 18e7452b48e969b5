"""Grids of any two axes: a config field by its dotted path, or pair, method, losses, backbone or seed."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from scale_ray.config import field_paths, suggest
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import by_combination, by_method, combination_labels, join, method_labels, natural
from scale_ray.report.read.load import varying_fields
from scale_ray.report.read.rows import NAMED_FIELDS
from scale_ray.report.tables.aggregate import build_grids, in_order, with_average
from scale_ray.report.tables.facets import facets
from scale_ray.report.tables.grid import Grid, Layout

WORDS = ("pair", "method", "losses", "backbone", "seed")
_KEYS = {"pair", "source", "target", "seed"}  # entries that differ in these have no (pair, seed) key in common


def tabulate(
    cells: pd.DataFrame, rows: str, columns: str, facet: str | None = None, *, remarks: Sequence[str] = (),
    oracle: bool = False,
) -> list[Grid]:  # fmt: skip
    """Build grids of one axis by another: one per metric, benchmark and value of `facet`.

    Pairs within a seed and then seeds are averaged, unless they are axes. Any other field that differs splits the
    grids, unless its value follows from the axes.

    Args:
        cells, remarks, oracle: as for `forms.grids`.
        rows, columns, facet: `pair`, `method`, `losses`, `backbone`, `seed`, or a dotted path.

    Raises:
        ReportError: an axis does not exist, has one value in all cells, or is named twice.
    """
    named = [axis for axis in (rows, columns, facet) if axis is not None]
    across = [_column(cells, axis) for axis in named]
    if len(set(across)) < len(across):
        raise ReportError(f"axes {', '.join(named)}: one is named twice: rows, columns and facet must differ")
    described = set(across)
    if described & {"method", "losses"} and not {"method", "losses"} <= described:
        described |= {"method", "losses"}  # the labels of either show both
    # Labels do not show variants here: the field behind a variant is an axis, or splits the grids as any other.
    cells = cells.assign(variant=cells["method"])
    found = []
    for benchmark, label, differing, part in facets(cells, sorted(described)):
        for value, share in part.groupby(across[2]) if facet else [("", part)]:
            named_facet = join(f"{facet}={value}" if facet else "", label)
            row, column = (_labels(share, axis, across) for axis in across[:2])
            split = [axis for axis in across[:2] if axis in _KEYS]
            group = share[split].astype("str").agg(", ".join, axis=1) if split else ""
            labelled = share.assign(row=row, column=column, group=group)
            if across[1] == "pair":
                labelled = with_average(labelled)
            layout = Layout(
                f"{rows}_by_{columns}",
                benchmark,
                named_facet,
                _sorted(share, across[0], row),
                in_order(labelled["column"]) if across[1] == "pair" else _sorted(share, across[1], column),
                over_pairs=not {"pair", "source", "target"} & set(across),
                rows_compare=across[0] not in _KEYS,
            )
            found += build_grids(layout, labelled, [*differing, *remarks], oracle=oracle)
    return found


def _column(cells: pd.DataFrame, axis: str) -> str:
    """The frame's column with the axis' values."""
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
    """Distinct labels: numbers by value, names in natural order."""
    if pd.api.types.is_numeric_dtype(cells[axis]):
        values: dict[str, Any] = dict(zip(labels, cells[axis], strict=True))
        return sorted(values, key=values.__getitem__)
    order = {"losses": by_combination, "method": by_method}.get(axis, natural)
    return sorted(labels.unique(), key=order)
