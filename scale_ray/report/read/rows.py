"""Records and plans as flat rows for `load`. Each record is validated, flattened and released."""

import gc
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from scale_ray.config import RECIPE_VERSION, ConfigError, ParallelConfig, TrialConfig, field_paths
from scale_ray.records import VALIDATOR_NAMES, Record, Result
from scale_ray.report.read.labels import pre_training
from scale_ray.store import PlanFile, Store, StoreError, unreadable

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
OUTCOME = [
    "status", "target_accuracy", "teacher_accuracy", "source_val_accuracy", "class_mean_accuracy", "kept_fraction",
    "kept_accuracy", *VALIDATORS, "steps", "shared_steps", "wall_seconds", "charged_seconds", "evaluation_seconds",
    "worker_hours", "classes", "source_images", "target_images", "skipped_images",
    "error", "device", "host", "runner", "workers", "backend", "started", "git_commit", "git_dirty",
    "package_version", "recipe_version", "versions", "source_digest", "target_digest", "weights_digest", "traceback",
    "oracle_accuracy",
]  # fmt: skip
COLUMNS = [*_IDENTITY, *OUTCOME]
_ROLES = {"source", "target", "weights"}  # inputs whose digests have a column in any case


class Unread(Record):
    """A record whose config is not validated yet."""

    config: dict[str, Any]  # type: ignore[assignment]


class Row(NamedTuple):
    """What is kept of a record."""

    config: bytes  # JSON, without the seed
    seed: int
    outcome: tuple[Any, ...]  # in the order of OUTCOME
    code: dict[str, str]  # input -> digest, of a user's own code


class _Config(NamedTuple):
    """What rows say of a config, whatever its seed."""

    text: bytes  # JSON, without the seed
    named: tuple[Any, ...]  # the columns of `_IDENTITY` from benchmark to pre_training
    number: int  # of its other fields


class Rows:
    """A store's plans and records as flat rows. Records and plans may be added, replaced and forgotten at any time.

    Attributes:
        plans: study -> ids of its cells.
        other_values: values of `OTHER_FIELDS`, indexed by the number in a row's column `other_fields`.
    """

    def __init__(self) -> None:
        self._configs: dict[bytes, _Config] = {}  # by their text
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._rows: dict[str, Row] = {}  # by cell
        self._planned: dict[str, tuple[bytes, int]] = {}  # cell -> its config and seed
        self.plans: dict[str, tuple[str, ...]] = {}
        self.other_values: list[tuple[Any, ...]] = []

    def add_plan(self, plan: PlanFile, store: Store) -> None:
        """Add a study, or replace it.

        Raises:
            StoreError: a config is none of this version.
        """
        refuse = partial(store.no_plan, plan.name)
        texts = [self._config(dict(config), refuse)[0] for config in plan.configs]
        for cell in plan.cells:
            self._planned.setdefault(cell.id, (texts[cell.config], cell.seed))
        self.plans[plan.name] = tuple(cell.id for cell in plan.cells)

    def add(self, record: Unread, store: Store) -> None:
        """Add a cell's record, or replace it."""
        refuse = partial(unreadable, store.record_location(record.id, record.status))
        config, seed = self._config(record.config, refuse)
        outcome, roles = _outcome(record), record.inputs.keys() - _ROLES
        code = {role: record.inputs[role] for role in roles}
        self._rows[record.id] = Row(config, seed, tuple(map(outcome.get, OUTCOME)), code)

    def restore(self, found: Mapping[str, Row]) -> None:
        """Add rows of records that were read before, by cell.

        Raises:
            UserError: a config is none of this version. No row was added then.
        """
        same: dict[bytes, bytes] = {}
        rows = {}
        for cell, row in found.items():
            if row.config not in same:
                values = from_json(row.config) | {"seed": row.seed}
                same[row.config], _ = self._config(values, partial(unreadable, "index"))
            rows[cell] = row._replace(config=same[row.config])
        self._rows |= rows

    def forget(self, cell: str) -> None:
        """Remove a cell's record."""
        self._rows.pop(cell, None)

    def forget_plan(self, study: str) -> None:
        """Remove a study."""
        self.plans.pop(study, None)

    def of_records(self) -> Mapping[str, Row]:
        """What is kept of each record, by cell, in the order of the cells."""
        return dict(sorted(self._rows.items()))

    def config(self, cell: str) -> TrialConfig:
        """The config of a cell that has a record or is planned. It is parsed anew at each call."""
        text, seed = self._rows[cell][:2] if cell in self._rows else self._planned[cell]
        return TrialConfig.parse(from_json(text) | {"seed": seed})

    def text(self, cell: str) -> bytes:
        """The config of a cell as JSON, without its seed: the same object for all seeds."""
        return self._rows[cell].config if cell in self._rows else self._planned[cell][0]

    def outcome(self, cell: str, *columns: str) -> tuple[Any, ...] | None:
        """These columns of a cell's record; None without a record."""
        row = self._rows.get(cell)
        return None if row is None else tuple(row.outcome[OUTCOME.index(column)] for column in columns)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """One tuple of `COLUMNS` per cell."""
        studies: dict[str, list[str]] = defaultdict(list)
        for study in sorted(self.plans):
            for cell in self.plans[study]:
                studies[cell].append(study)
        for cell, row in self._rows.items():
            names = ", ".join(studies[cell]) if cell in studies else None
            config = self._planned[cell] if cell in studies else (row.config, row.seed)
            yield (cell, names, *self._identity(*config), *row.outcome)
        nothing = tuple(map({"status": "missing"}.get, OUTCOME))
        for cell, planned_by in studies.items():
            if cell not in self._rows:
                yield (cell, ", ".join(planned_by), *self._identity(*self._planned[cell]), *nothing)

    def code(self) -> dict[str, dict[str, str]]:
        """Input, such as `method mine` -> cell -> digest of the user's own code."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for cell, row in self._rows.items():
            for role, digest in row.code.items():
                found[role][cell] = digest
        return found

    def _identity(self, text: bytes, seed: int) -> tuple[Any, ...]:
        """The columns of `_IDENTITY` from benchmark on."""
        config = self._configs[text]
        return (*config.named, seed, config.number)

    def _config(self, values: dict[str, Any], refuse: Callable[[Exception], StoreError]) -> tuple[bytes, int]:
        """A config's text and its seed.

        Configs that differ only in the seed are validated once: validation is the most expensive part of a record.

        Args:
            values: the config as read.
            refuse: the error for what is wrong with it.
        """
        seed = values.pop("seed", 0)
        text = to_json(values)
        if text not in self._configs or not (type(seed) is int and 0 <= seed < 2**31):
            try:
                config = TrialConfig.parse(values | {"seed": seed})
            except ConfigError as error:
                raise refuse(ConfigError(f"config: {error}")) from None
            self._configs[text] = self._describe(text, config)
        return self._configs[text].text, seed  # one object for all of the text

    def _describe(self, text: bytes, config: TrialConfig) -> _Config:
        if config.any_workers_alike:  # then the number of workers is not part of the cell's id
            config = config.model_copy(update={"parallel": ParallelConfig()})
        data = config.data
        named = (data.benchmark, data.source, data.target, config.pair, config.method, config.variant)
        values = _other_values_of(config)
        number = self._numbers.setdefault(values, len(self.other_values))
        if number == len(self.other_values):
            self.other_values.append(values)
        return _Config(text, (*named, config.combination, config.model.label, pre_training(config.model)), number)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Pause the cyclic garbage collector: rows hold no cycles, and scanning 100,000 of them dominates the run time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _outcome(record: Unread) -> dict[str, Any]:
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
