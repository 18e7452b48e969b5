"""Curves of trainings: one row per point."""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from scale_ray.records import Record
from scale_ray.report.read.rows import Unread
from scale_ray.store import Store, is_current

_POINT = ["target_accuracy", "teacher_accuracy", "source_val_accuracy", "kept_fraction", "kept_accuracy"]


class _Points(NamedTuple):
    """A curve as one array: 100,000 curves as Python objects would not fit into memory."""

    values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]"  # point x (step, _POINT, losses)
    losses: tuple[str, ...]


class Curves:
    """The curves of a store's done cells. A record is read when its curve is asked for, and once."""

    def __init__(self, store: Store):
        self._store = store
        self._points: dict[str, _Points | None] = {}  # by cell; None where it has no curve

    def of(self, cells: Iterable[str]) -> pd.DataFrame:
        """Every point of these cells' curves, with the columns of `load_curves`.

        Raises:
            StoreError: a record cannot be read.
        """
        wanted = sorted(set(cells))
        found: dict[str, _Points | None] = {cell: None for cell in wanted if cell not in self._points}
        if found:
            for record in self._store.records_as(Unread, list(found)):
                found[record.id] = _points_of(record)
        self._points |= found
        return _frame_of({cell: points for cell in wanted if (points := self._points[cell]) is not None})


def curve_of_record(record: Record) -> pd.DataFrame:
    """The points of one record's curve, with the columns of `load_curves`."""
    points = _points_of(record)
    return _frame_of({} if points is None else {record.id: points})


def _points_of(record: Record) -> _Points | None:
    if not is_current(record) or record.result is None or not record.result.curve:
        return None
    curve = record.result.curve
    terms = _interned(tuple(sorted({term for point in curve for term in point.losses})))
    values = [
        [
            point.step,
            *(_number(getattr(point, name)) for name in _POINT),
            *(point.losses.get(term, math.nan) for term in terms),
        ]
        for point in curve
    ]
    return _Points(np.array(values, dtype=np.float64), terms)


@cache
def _interned(terms: tuple[str, ...]) -> tuple[str, ...]:
    """The same object for equal names."""
    return terms


def _frame_of(curves: Mapping[str, _Points]) -> pd.DataFrame:
    """One row a point, in the order of the cells."""
    terms = sorted({term for points in curves.values() for term in points.losses})
    lengths = [len(points.values) for points in curves.values()]
    whole = np.full((sum(lengths), 1 + len(_POINT) + len(terms)), np.nan)
    places: dict[tuple[str, ...], list[int]] = {}
    for losses in {points.losses for points in curves.values()}:
        places[losses] = [*range(1 + len(_POINT)), *(1 + len(_POINT) + terms.index(term) for term in losses)]
    at = 0
    for points in curves.values():
        whole[at : at + len(points.values), places[points.losses]] = points.values
        at += len(points.values)
    of = np.repeat(np.arange(len(lengths)), lengths)
    cells = pd.Categorical.from_codes(of, categories=pd.Index(list(curves), dtype="str"))
    names = ["step", *_POINT, *(f"loss.{term}" for term in terms)]
    frame = pd.DataFrame({"cell": cells} | {name: whole[:, index] for index, name in enumerate(names)})
    return frame.astype({"step": "int64"})


def _number(value: float | None) -> float:
    return math.nan if value is None else value
