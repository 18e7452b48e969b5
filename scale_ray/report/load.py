"""From a store to tidy tables: one row a cell, one row a point of a curve. Nothing is averaged here."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from scale_ray.config import RECIPE_VERSION, TrialConfig, field_paths
from scale_ray.records import Record
from scale_ray.store import Store

# Fields of a config that have a column of their own; all others get one, by dotted path, where their values differ.
_NAMED_FIELDS = {"method", "seed", "data.benchmark", "data.source", "data.target", "model.backbone", "losses.terms"}

_COLUMNS = [
    "cell", "study", "benchmark", "source", "target", "pair", "method", "losses", "backbone", "seed", "status",
    "target_accuracy", "teacher_accuracy", "source_val_accuracy", "steps", "wall_seconds", "skipped_images", "error",
    "device", "host", "started", "git_commit", "git_dirty", "recipe_version", "versions",
    "source_digest", "target_digest", "weights_digest", "traceback", "superseded",
]  # fmt: skip
_TYPES = {
    "seed": "int64",
    "target_accuracy": "float64",
    "teacher_accuracy": "float64",
    "source_val_accuracy": "float64",
    "steps": "Int64",
    "wall_seconds": "float64",
    "skipped_images": "Int64",
    "recipe_version": "Int64",
    "git_dirty": "boolean",
    "superseded": "bool",
}
_CURVE_TYPES = {
    "cell": "str",
    "step": "int64",
    "target_accuracy": "float64",
    "teacher_accuracy": "float64",
    "source_val_accuracy": "float64",
    "kept_fraction": "float64",
}


class ReportError(ValueError):
    """The store's records make no table that could be trusted; the message names them and the remedy."""


class Contents(NamedTuple):
    """What a store holds: `cells` as `load` returns them; `curves`, one row a point of a finished cell's curve."""

    cells: pd.DataFrame
    curves: pd.DataFrame


def load(store: str | Path) -> pd.DataFrame:
    """Every cell of a store: planned cells and records, one row a cell, ordered by what it is, not by when it ran.

    Columns:
        cell: the identity, 64 hex digits. study: names of the studies that planned it, missing where none did.
        benchmark, source, target, pair (`source>target`), method, losses (`ce+ssl+dist+reg`), backbone, seed.
        status: `done`, `failed`, `missing` (planned, no record), `stale` (record of another recipe version).
        target_accuracy, teacher_accuracy, source_val_accuracy: percent, of the last iterate; target and source_val are
            the student's. Stale rows keep theirs: filter by status before averaging.
        steps; wall_seconds: training and evaluation; skipped_images: unreadable images left out.
        error: `kind: first line of the message`. traceback: whole.
        device, host, started (ISO 8601, UTC), git_commit, git_dirty, recipe_version, versions (JSON),
        source_digest, target_digest, weights_digest: where a record came from.
        superseded: a record nobody planned, of a config that a study planned anew with other data or recipe, or a
            stale one beside a current one; grids leave it out.
        any other field of `TrialConfig`, by dotted path (`losses.threshold`), where its values differ among the cells.

    Raises:
        StoreError: no such store, or a plan or record in it that cannot be read; none is skipped.
    """
    return read(store).cells


def read(store: str | Path) -> Contents:
    """Cells and curves in one pass over the store. Raises as `load` does."""
    opened = Store(store)
    planned: dict[str, TrialConfig] = {}
    studies: dict[str, list[str]] = defaultdict(list)
    for plan in opened.plans():
        for cell in plan.cells:
            planned.setdefault(cell.id, cell.config)
            studies[cell.id].append(plan.name)

    rows: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    configs: list[TrialConfig] = []
    recorded = set()
    for record in opened.records():
        recorded.add(record.id)
        config = planned.get(record.id, record.config)
        configs.append(config)
        rows.append(_identity(record.id, config, studies[record.id]) | _outcome(record))
        points += _points(record)
    for trial_id, config in planned.items():
        if trial_id not in recorded:
            configs.append(config)
            rows.append(_identity(trial_id, config, studies[trial_id]) | {"status": "missing"})

    cells = pd.DataFrame(rows, columns=_COLUMNS)
    cells["superseded"] = _superseded(cells, configs)
    cells = cells.astype(_TYPES)
    for path, values in _varying(configs).items():
        cells[path] = values
    order = ["benchmark", "method", "losses", "backbone", "pair", "seed", "cell"]
    curves = pd.DataFrame(points, columns=list(_CURVE_TYPES)).astype(_CURVE_TYPES)
    return Contents(cells.sort_values(order, ignore_index=True), curves)


def varying_fields(cells: pd.DataFrame) -> list[str]:
    """The columns that hold config fields by dotted path: those whose values differ and that have no named column."""
    return [path for path in field_paths() if path not in _NAMED_FIELDS and path in cells.columns]


def _identity(trial_id: str, config: TrialConfig, studies: list[str]) -> dict[str, Any]:
    return {
        "cell": trial_id,
        "study": ", ".join(studies) or None,
        "benchmark": config.data.benchmark,
        "source": config.data.source,
        "target": config.data.target,
        "pair": config.pair,
        "method": config.method,
        "losses": config.combination,
        "backbone": config.model.backbone,
        "seed": config.seed,
    }


def _outcome(record: Record) -> dict[str, Any]:
    origin = record.provenance
    row = {
        "status": record.status if record.recipe_version == RECIPE_VERSION else "stale",
        "wall_seconds": origin.wall_seconds,
        "device": origin.device,
        "host": origin.host,
        "started": origin.started,
        "git_commit": origin.git_commit,
        "git_dirty": origin.git_dirty,
        "recipe_version": record.recipe_version,
        "versions": json.dumps(origin.versions, sort_keys=True),
        **{f"{role}_digest": digest for role, digest in record.inputs.items()},
    }
    if record.result:
        result = record.result
        row |= {
            "target_accuracy": result.target_accuracy,
            "teacher_accuracy": result.teacher_accuracy,
            "source_val_accuracy": result.source_val_accuracy,
            "steps": result.steps,
            "skipped_images": sum(map(len, result.skipped.values())),
        }
    if record.failure:
        failure = record.failure
        message = failure.message.strip().partition("\n")[0]
        row |= {"error": f"{failure.kind}: {message}", "traceback": failure.traceback}
    return row


def _points(record: Record) -> Iterable[dict[str, Any]]:
    if record.status == "done" and record.recipe_version == RECIPE_VERSION and record.result:
        for point in record.result.curve:
            yield {"cell": record.id} | {name: getattr(point, name) for name in _CURVE_TYPES if name != "cell"}


def _superseded(cells: pd.DataFrame, configs: list[TrialConfig]) -> list[bool]:
    """A new recipe, or other data, gives a planned cell a new id: its old record must not stand beside it as another.

    Two records that nobody planned are not told apart so: `grids` refuses them.
    """
    leftover = cells["study"].isna().tolist()
    if not any(leftover):
        return leftover
    meanings = [config.canonical_json() for config in configs]
    planned = {meaning for meaning, old in zip(meanings, leftover, strict=True) if not old}
    stale = (cells["status"] == "stale").tolist()
    answered = {meaning for meaning, old in zip(meanings, stale, strict=True) if not old}
    return [
        unplanned and (meaning in planned or (old and meaning in answered))
        for meaning, unplanned, old in zip(meanings, leftover, stale, strict=True)
    ]


def _varying(configs: list[TrialConfig]) -> dict[str, list[Any]]:
    columns = {}
    for path in field_paths():
        if path in _NAMED_FIELDS:
            continue
        values = [config.value(path) for config in configs]
        if len(set(values)) > 1:
            columns[path] = [json.dumps(value) if isinstance(value, tuple) else value for value in values]
    return columns
