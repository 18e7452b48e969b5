"""Records and plans as flat rows for `load`. Each record is validated, flattened and released."""

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic_core import to_json

from scale_ray.cell import Cell
from scale_ray.config import RECIPE_VERSION, ConfigError, ParallelConfig, TrialConfig, field_paths
from scale_ray.records import VALIDATOR_NAMES, Record, Result
from scale_ray.report.read.labels import pre_training
from scale_ray.store import Store, StudyPlan, unreadable

# Config field -> its column. Any other field gets a column named by its dotted path if its values differ.
NAMED_FIELDS = {
    "method": "method",
    "seed": "seed",
    "data.benchmark": "benchmark",
    "data.source": "source",
    "data.target": "target",
    "model.backbone": "backbone",
    "losses.terms": "losses",
}
OTHER_FIELDS = [path for path in field_paths() if path not in NAMED_FIELDS]
_other_values_of = attrgetter(*OTHER_FIELDS)

VALIDATORS = [f"validator_{name}" for name in VALIDATOR_NAMES]

_IDENTITY = [
    "cell", "study", "benchmark", "source", "target", "pair", "method", "variant", "losses", "backbone",
    "pre_training", "seed", "other_fields",
]  # fmt: skip
_OUTCOME = [
    "status", "target_accuracy", "teacher_accuracy", "source_val_accuracy", "class_mean_accuracy", "kept_fraction",
    "kept_accuracy", *VALIDATORS, "steps", "shared_steps", "wall_seconds", "charged_seconds", "evaluation_seconds",
    "worker_hours", "classes", "source_images", "target_images", "skipped_images",
    "error", "device", "host", "runner", "workers", "backend", "started", "git_commit", "git_dirty",
    "package_version", "recipe_version", "versions", "source_digest", "target_digest", "weights_digest", "traceback",
    "oracle_accuracy",
]  # fmt: skip
COLUMNS = [*_IDENTITY, *_OUTCOME]
_ROLES = {"source", "target", "weights"}  # inputs whose digests have a column in any case
_POINT = ["target_accuracy", "teacher_accuracy", "source_val_accuracy", "kept_fraction", "kept_accuracy"]


class _Unread(Record):
    """A record whose config is not validated yet."""

    config: dict[str, Any]  # type: ignore[assignment]


class _UnreadCell(Cell):
    """A planned cell whose config is not validated yet."""

    config: dict[str, Any]  # type: ignore[assignment]


class _UnreadPlan(StudyPlan):
    """A plan whose cells' configs are not validated yet."""

    cells: list[_UnreadCell]  # type: ignore[assignment]


class Reader:
    """Reads a store's plans and records in one pass.

    Attributes:
        studies: names of all studies; complete after `rows` is exhausted.
        other_values: values of `OTHER_FIELDS`, indexed by the number in a row's column `other_fields`.
        curves: curves of done records; empty unless requested.
        code: input, such as `method mine` -> cell -> digest of the user's own code.
    """

    def __init__(self, store: str | Path, *, curves: bool = False):
        self._store = Store(store)
        self._wants_curves = curves
        self._known: dict[bytes, tuple[tuple[Any, ...], int]] = {}  # by a config's JSON without its seed
        self._numbers: dict[tuple[Any, ...], int] = {}
        self.studies: set[str] = set()
        self.other_values: list[tuple[Any, ...]] = []
        self.curves = Curves()
        self.code: dict[str, dict[str, str]] = defaultdict(dict)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield one tuple of `COLUMNS` per cell. Raises a StoreError at the first file that cannot be read."""
        planned, studies = self._plans()
        for record in self._store.records_as(_Unread):
            read = self._identity(record.config, self._store.record_location(record.id, record.status))
            identity = planned.pop(record.id, read)
            yield (record.id, _names(studies, record.id), *identity, *map(_outcome(record).get, _OUTCOME))
            for role in record.inputs.keys() - _ROLES:
                self.code[role][record.id] = record.inputs[role]
            if self._wants_curves and record.status == "done" and record.recipe_version == RECIPE_VERSION:
                self.curves.add(record)
        nothing = tuple(map({"status": "missing"}.get, _OUTCOME))
        for trial_id, identity in planned.items():
            yield (trial_id, _names(studies, trial_id), *identity, *nothing)

    def _plans(self) -> tuple[dict[str, tuple[Any, ...]], dict[str, list[str]]]:
        """The identity columns of every planned cell and the studies that planned it. Configs are not kept."""
        planned: dict[str, tuple[Any, ...]] = {}
        studies: dict[str, list[str]] = defaultdict(list)
        for plan in self._store.plans_as(_UnreadPlan):
            self.studies.add(plan.name)
            for cell in plan.cells:
                planned.setdefault(cell.id, self._identity(cell.config, f"cell {cell.id} of study {plan.name}"))
                studies[cell.id].append(plan.name)
        return planned, studies

    def _identity(self, values: dict[str, Any], source: str) -> tuple[Any, ...]:
        """A cell's named fields, its seed and the number of its other fields.

        Configs that differ only in the seed are validated once: validation is the most expensive part of a record.

        Args:
            values: the config as read.
            source: the file or plan that it is from, for the error message.
        """
        seed = values.pop("seed", 0)
        text = to_json(values)
        if text not in self._known or not (type(seed) is int and 0 <= seed < 2**31):
            try:
                config = TrialConfig.parse(values | {"seed": seed})
            except ConfigError as error:
                raise unreadable(source, f"config: {error}") from None
            self._known[text] = self._describe(config)
        named, number = self._known[text]
        return (*named, seed, number)

    def _describe(self, config: TrialConfig) -> tuple[tuple[Any, ...], int]:
        if config.any_workers_alike:  # then the number of workers is not part of the cell's id
            config = config.model_copy(update={"parallel": ParallelConfig()})
        data = config.data
        named = (data.benchmark, data.source, data.target, config.pair, config.method, config.variant)
        values = _other_values_of(config)
        number = self._numbers.setdefault(values, len(self.other_values))
        if number == len(self.other_values):
            self.other_values.append(values)
        return (*named, config.combination, config.model.label, pre_training(config.model)), number


class Curves:
    """Points of many curves in flat arrays: 100,000 curves as Python objects would not fit into memory."""

    def __init__(self) -> None:
        self._cells: list[str] = []
        self._of = array("q")  # index into _cells
        self._steps = array("q")
        self._values = {name: array("d") for name in _POINT}
        self._losses: dict[str, array[float]] = {}

    def add(self, record: Record) -> None:
        for point in record.result.curve if record.result else ():
            for term in point.losses.keys() - self._losses.keys():
                self._losses[term] = array("d", [math.nan]) * len(self._of)
            self._of.append(len(self._cells))
            self._steps.append(point.step)
            for name, values in self._values.items():
                values.append(_number(getattr(point, name)))
            for term, losses in self._losses.items():
                losses.append(point.losses.get(term, math.nan))
        self._cells.append(record.id)

    def frame(self) -> pd.DataFrame:
        columns = {"step": self._steps} | self._values | {f"loss.{term}": self._losses[term] for term in self._losses}
        cells = pd.Categorical.from_codes(np.asarray(self._of), categories=pd.Index(self._cells, dtype="str"))
        return pd.DataFrame({"cell": cells} | {name: np.asarray(values) for name, values in columns.items()})


def _names(studies: dict[str, list[str]], trial_id: str) -> str | None:
    return ", ".join(studies[trial_id]) if trial_id in studies else None


def _outcome(record: _Unread) -> dict[str, Any]:
    origin = record.provenance
    charged = origin.wall_seconds if origin.charged_seconds is None else origin.charged_seconds
    row = {
        "status": record.status if record.recipe_version == RECIPE_VERSION else "stale",
        "shared_steps": origin.shared_steps,
        "wall_seconds": origin.wall_seconds,
        "evaluation_seconds": origin.evaluation_seconds,
        "charged_seconds": origin.charged_seconds,
        "worker_hours": charged * origin.workers / 3600,
        "device": origin.device,
        "host": origin.host,
        "runner": origin.runner,
        "workers": origin.workers,
        "backend": origin.backend,
        "started": origin.started,
        "git_commit": origin.git_commit,
        "git_dirty": origin.git_dirty,
        "package_version": origin.versions.get("scale-ray"),
        "recipe_version": record.recipe_version,
        "versions": json.dumps(origin.versions, sort_keys=True),
        **{f"{role}_digest": digest for role, digest in record.inputs.items()},
    }
    if record.result:
        row |= _figures(record.result, record.config["data"])
    if record.failure:
        failure = record.failure
        message = failure.message.strip().partition("\n")[0]
        row |= {"error": f"{failure.kind}: {message}", "traceback": failure.traceback}
    return row


def _figures(result: Result, data: Mapping[str, Any]) -> dict[str, Any]:
    last = result.curve[-1] if result.curve else None
    return {
        "target_accuracy": result.target_accuracy,
        "teacher_accuracy": result.teacher_accuracy,
        "source_val_accuracy": result.source_val_accuracy,
        "class_mean_accuracy": _class_mean(result.confusion),
        "kept_fraction": last and last.kept_fraction,
        "kept_accuracy": last and last.kept_accuracy,
        **{f"validator_{name}": value for name, value in result.validators.items()},
        "steps": result.steps,
        "classes": len(result.classes) or None,
        "source_images": result.images.get(data["source"]),
        "target_images": result.images.get(data["target"]),
        "skipped_images": sum(map(len, result.skipped.values())),
        "oracle_accuracy": max(_known(point.target_accuracy for point in result.curve), default=None),
    }


def _known(values: Iterable[float | None]) -> list[float]:
    """Those that are there: a target without labels has no accuracies."""
    return [value for value in values if value is not None]


def _class_mean(confusion: list[list[int]]) -> float | None:
    """Mean accuracy over classes, percent. Classes without a target image are left out."""
    shares = [row[index] / total for index, row in enumerate(confusion) if (total := sum(row))]
    return 100 * sum(shares) / len(shares) if shares else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
