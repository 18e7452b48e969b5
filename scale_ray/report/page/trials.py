"""Single trials on the page: their facts, curves, differences from their study, and causes of failure."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from scale_ray.report.read.load import varying_fields

LISTED = 2000  # trials on a page at most; grids always count all. 864 trials take about 1.5 MB
_CURVE_POINTS = 50
_TRACEBACKS = 50

# A trial's origin: heading -> column. A column that the frame lacks, or a missing value, is not shown.
_FACTS = {
    "cell": "cell",
    "study": "study",
    "error": "error",
    "seed": "seed",
    "steps": "steps",
    "shared steps": "shared_steps",
    "wall time (s)": "wall_seconds",
    "worker hours": "worker_hours",
    "started": "started",
    "device": "device",
    "workers": "workers",
    "runner": "runner",
    "backend": "backend",
    "host": "host",
    "git commit": "git_commit",
    "uncommitted changes": "git_dirty",
    "recipe version": "recipe_version",
    "versions": "versions",
    "source digest": "source_digest",
    "target digest": "target_digest",
    "weights digest": "weights_digest",
    "source images": "source_images",
    "target images": "target_images",
    "skipped images": "skipped_images",
}
_SHOWN = ["pair", "status", "target_accuracy", "teacher_accuracy"]
# Pair and seed are not among them: they differ within every study.
_CONFIG = ["method", "losses", "backbone"]
_SERIES = ["target_accuracy", "teacher_accuracy", "source_val_accuracy", "kept", "kept_accuracy"]


class Cause(NamedTuple):
    """Failures of one kind whose messages differ only in numbers."""

    error: str
    trials: pd.DataFrame
    traceback: str | None  # of the first trial; None beyond the most common causes


def listed(cells: pd.DataFrame) -> pd.DataFrame:
    """The trials on the page: at most LISTED, those that are not done before those that are."""
    if len(cells) <= LISTED:
        return cells
    return cells.sort_values("status", key=lambda status: status == "done", kind="stable")[:LISTED].sort_index()


def payload(cells: pd.DataFrame, curves: pd.DataFrame | None) -> str:
    """Trials as JSON for page.js: coded columns, curves of at most 50 points, the most common values of each study.

    Args:
        cells: the listed trials, in the order of their numbers on the page.
        curves: their curves (`Curves.of`).
    """
    cells = cells.assign(cause=_cause_of(cells))
    facts = {heading: column for heading, column in _FACTS.items() if column in cells}
    config = [*_CONFIG, *varying_fields(cells)]
    wanted = dict.fromkeys([*_SHOWN, *facts.values(), *config, "cause"])
    series, steps = _series_of(cells["cell"], curves)
    document = {
        "facts": facts,
        "config": config,
        "columns": {column: _coded(cells[column]) for column in wanted},
        "common": _common(cells, config),
        "steps": steps,
        "curves": series,
    }
    # A script element ends at the first `</script`, even inside a string.
    return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def curve_of(trial: str, curves: pd.DataFrame) -> dict[str, Any] | None:
    """A trial's curve of at most 50 points: steps, and by name its series in percent; None without a curve."""
    (found,), steps = _series_of(pd.Series([trial]), curves)
    return None if found is None else found | {"steps": steps[0]}


def causes(cells: pd.DataFrame) -> list[Cause]:
    """Why trials failed, the most common cause first."""
    failed = cells[cells["status"] == "failed"]
    groups = sorted(failed.groupby(_cause_of(failed)), key=lambda group: (-len(group[1]), str(group[0])))
    return [
        Cause(str(error), trials, trials["traceback"].iloc[0] if index < _TRACEBACKS else None)
        for index, (error, trials) in enumerate(groups)
    ]


def _cause_of(cells: pd.DataFrame) -> pd.Series:
    return cells["error"].where(cells["status"] == "failed").map(_normalised, na_action="ignore")


def _normalised(error: str) -> str:
    """The message with ids and numbers as `#`: another batch size or address is not another cause."""
    return re.sub(r"0x[0-9a-fA-F]+|\b[0-9a-f]{12,}\b|\d+(\.\d+)?(e[+-]?\d+)?", "#", error)


def _coded(column: pd.Series) -> dict[str, list[Any]]:
    """Distinct values and their codes; a missing value has the code -1."""
    codes, levels = pd.factorize(column)
    return {"levels": [_plain(level) for level in levels], "codes": codes.tolist()}


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return round(value, 4) if isinstance(value, float) else value


def _common(cells: pd.DataFrame, config: Iterable[str]) -> dict[str, dict[str, Any]]:
    """study -> field -> [value of more than half of the trials or None, its count, trials, distinct values]."""
    found: dict[str, dict[str, Any]] = {}
    for study, share in cells.groupby(cells["study"].fillna("")):
        of_study = found[str(study)] = {}
        for field in config:
            counts = share[field].value_counts()
            most = int(counts.iloc[0])
            value = _plain(counts.index[0]) if 2 * most > len(share) else None
            of_study[field] = [value, most, len(share), len(counts)]
    return found


def _series_of(trials: pd.Series, curves: pd.DataFrame | None) -> tuple[list[Any], list[list[int]]]:
    """Each trial's series in percent with the index of its list of steps (None without a curve), and these lists."""
    steps: dict[tuple[int, ...], int] = {}
    drawn: dict[str, Any] = {}
    if curves is not None:
        curves = curves[curves["cell"].isin(trials)].assign(kept=lambda frame: 100 * frame["kept_fraction"])
        curves = curves.sort_values(["cell", "step"])
        series = {name: curves[name].astype(float).round(2).to_numpy() for name in _SERIES if name in curves}
        of_trials = curves.groupby("cell", observed=True).indices  # places in the sorted frame
        for cell, places in of_trials.items():
            places = places[:: -max(1, -(-len(places) // _CURVE_POINTS))][::-1]  # always with the last point
            key = tuple(curves["step"].to_numpy()[places].tolist())
            values = {name: column[places].tolist() for name, column in series.items()}
            drawn[str(cell)] = {"steps": steps.setdefault(key, len(steps))} | {
                name: [None if math.isnan(value) else value for value in column]
                for name, column in values.items()
                if not all(map(math.isnan, column))
            }
    return [drawn.get(trial) for trial in trials], [list(key) for key in steps]
