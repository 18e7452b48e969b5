"""What the page's script and its lists know of single trials: facts, curves, differences, why some failed."""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from scale_ray.report.load import varying_fields

# A page lists so many trials; a grid's figures are always of all. 864 take some 1.5 MB.
LISTED = 2000
_CURVE_POINTS = 50
_TRACEBACKS = 50

# Where a trial came from: heading -> column. A column that the frame does not have, or a missing value, is not shown.
_FACTS = {
    "cell": "cell",
    "study": "study",
    "error": "error",
    "seed": "seed",
    "steps": "steps",
    "of them shared": "shared_steps",
    "wall time (s)": "wall_seconds",
    "worker hours": "worker_hours",
    "started": "started",
    "device": "device",
    "workers": "workers",
    "runner": "runner",
    "joined by": "backend",
    "host": "host",
    "git commit": "git_commit",
    "uncommitted changes": "git_dirty",
    "recipe version": "recipe_version",
    "versions": "versions",
    "source digest": "source_digest",
    "target digest": "target_digest",
    "weights digest": "weights_digest",
    "skipped images": "skipped_images",
}
_SHOWN = ["pair", "status", "target_accuracy", "teacher_accuracy"]
# A pair and a seed are a trial's place, not a departure from its study.
_CONFIG = ["method", "losses", "backbone"]
_SERIES = ["target_accuracy", "teacher_accuracy", "source_val_accuracy", "kept", "kept_accuracy"]


class Cause(NamedTuple):
    """Failures of one kind whose messages differ in numbers at most."""

    error: str
    trials: pd.DataFrame
    traceback: str | None  # of the first of them; only the commonest causes keep theirs


def listed(cells: pd.DataFrame) -> pd.DataFrame:
    """The trials that a page has room for; what failed or is missing comes before what is done."""
    if len(cells) <= LISTED:
        return cells
    return cells.sort_values("status", key=lambda status: status == "done", kind="stable")[:LISTED].sort_index()


def payload(cells: pd.DataFrame, points: pd.DataFrame | None) -> str:
    """Trials as JSON for page.js: columns by level and code, curves of at most 50 points, what most of a study shares.

    Args:
        cells: the listed trials, in the order in which the page counts them.
        points: their curves (`Contents.curves`).
    """
    cells = cells.assign(cause=_cause_of(cells))
    facts = {heading: column for heading, column in _FACTS.items() if column in cells}
    config = [*_CONFIG, *varying_fields(cells)]
    wanted = dict.fromkeys([*_SHOWN, *facts.values(), *config, "cause"])
    curves, steps = _curves(cells["cell"], points)
    document = {
        "facts": facts,
        "config": config,
        "columns": {column: _coded(cells[column]) for column in wanted},
        "commonest": _commonest(cells, config),
        "steps": steps,
        "curves": curves,
    }
    # A script element ends at the first `</script`, wherever it stands.
    return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def causes(cells: pd.DataFrame) -> list[Cause]:
    """Why trials failed, the commonest cause first."""
    failed = cells[cells["status"] == "failed"]
    groups = sorted(failed.groupby(_cause_of(failed)), key=lambda group: (-len(group[1]), str(group[0])))
    return [
        Cause(str(error), trials, trials["traceback"].iloc[0] if place < _TRACEBACKS else None)
        for place, (error, trials) in enumerate(groups)
    ]


def _cause_of(cells: pd.DataFrame) -> pd.Series:
    return cells["error"].where(cells["status"] == "failed").map(_normalised, na_action="ignore")


def _normalised(error: str) -> str:
    """Ids and numbers as `#`: a batch size or an address makes no new cause."""
    return re.sub(r"0x[0-9a-fA-F]+|\b[0-9a-f]{12,}\b|\d+(\.\d+)?(e[+-]?\d+)?", "#", error)


def _coded(column: pd.Series) -> dict[str, list[Any]]:
    """Each value once; a missing one has the code -1."""
    codes, levels = pd.factorize(column)
    return {"levels": [_plain(level) for level in levels], "codes": codes.tolist()}


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return round(value, 4) if isinstance(value, float) else value


def _commonest(cells: pd.DataFrame, config: Iterable[str]) -> dict[str, dict[str, Any]]:
    """study -> field -> [the value that most trials have, or None; how many have it; trials; distinct values]."""
    found: dict[str, dict[str, Any]] = {}
    for study, share in cells.groupby(cells["study"].fillna("")):
        of_study = found[str(study)] = {}
        for field in config:
            counts = share[field].value_counts()
            most = int(counts.iloc[0])
            value = _plain(counts.index[0]) if 2 * most > len(share) else None
            of_study[field] = [value, most, len(share), len(counts)]
    return found


def _curves(trials: pd.Series, points: pd.DataFrame | None) -> tuple[list[Any], list[list[int]]]:
    """By trial: its series in percent and which of the distinct lists of steps they belong to, or None."""
    steps: dict[tuple[int, ...], int] = {}
    drawn: dict[str, Any] = {}
    if points is not None:
        points = points[points["cell"].isin(trials)].assign(kept=lambda frame: 100 * frame["kept_fraction"])
        series = [name for name in _SERIES if name in points]
        for cell, curve in points.groupby("cell"):
            curve = curve.sort_values("step")
            curve = curve.iloc[:: -max(1, -(-len(curve) // _CURVE_POINTS))].iloc[::-1]  # the last point is always one
            key = tuple(curve["step"].tolist())
            values = {name: curve[name].astype(float).round(2) for name in series if curve[name].notna().any()}
            drawn[str(cell)] = {"steps": steps.setdefault(key, len(steps))} | {
                name: [None if pd.isna(value) else value for value in column] for name, column in values.items()
            }
    return [drawn.get(trial) for trial in trials], [list(key) for key in steps]
