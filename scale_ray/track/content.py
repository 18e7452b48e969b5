"""What trackers are told of a cell: its run before the training, a point, and the outcome that its record gives."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig, flat_fields
from scale_ray.records import CurvePoint, Record, Result
from scale_ray.track.names import Names

# Raise it whenever another content is made of the same record: what trackers show is then sent again.
_FORM = 1

Value = str | int | float | bool


@dataclass(frozen=True)
class Run:
    """What is known of a cell before its training ends.

    Attributes:
        cell: the cell's id.
        study: name of the study, which is the run's project or experiment unless the user has named one.
        group: what the runs share that differ in nothing but the seed, in words; ends with `digest`.
        digest: 8 hex digits that tell the group from every other one.
        name: the group's words with the seed.
        seed: of the training.
        parameters: dotted path of a config field -> value.
        facts: what else is known: benchmark, domain pair, digests of the data.
    """

    cell: str
    study: str
    group: str
    digest: str
    name: str
    seed: int
    parameters: Mapping[str, Value]
    facts: Mapping[str, str]

    @property
    def key(self) -> str:
        """32 hex digits that name the run among those of all studies: several may have planned the cell."""
        return hashlib.sha256(f"{self.study}\0{self.cell}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Outcome:
    """What a cell's record says.

    Attributes:
        failure: `ValueError: its message` of a failed training; None where it is done.
        points: step -> metrics. The last step has the reported numbers, those of the last iterate.
        facts: recipe, code, host and what else stands beside the numbers.
        started: when the training began, in seconds since 1970.
        seconds: what it took.
        record: the record, as JSON.
        model: reads the trained model, a safetensors file; None where the store has none.
        mark: another one for every other content, the names of the run included.
    """

    failure: str | None
    points: Mapping[int, Mapping[str, float]]
    facts: Mapping[str, str]
    started: float
    seconds: float
    record: bytes
    model: Callable[[], bytes | None] | None
    mark: str

    def files(self) -> dict[str, bytes]:
        """What is attached to the run: the record, and the model where the store has one."""
        model = None if self.model is None else self.model()
        return {"record.json": self.record} | ({} if model is None else {"model.safetensors": model})

    def time_of(self, step: int) -> float:
        """About when the training was at this step, in seconds since 1970."""
        last = max(self.points, default=0)
        return self.started + (self.seconds * step / last if last else 0.0)


def run_of(cell: Cell, study: str, names: Names) -> Run:
    """The run of a cell in a study."""
    config = cell.config
    words, digest = names.of(cell)
    facts = {
        "benchmark": config.data.benchmark,
        "pair": config.pair,
        "approach": config.approach,
        "backbone": config.model.label,
        **{f"{role}_digest": digest for role, digest in cell.inputs.items()},
    }
    return Run(
        cell=cell.id,
        study=study,
        group=f"{words} {digest}",
        digest=digest,
        name=f"{words} seed {config.seed}",
        seed=config.seed,
        parameters=_parameters(config),
        facts=facts,
    )


def outcome_of(record: Record, run: Run, model: Callable[[], bytes | None] | None) -> Outcome:
    """What a record says of a run.

    Args:
        model: reads the trained model; None where the store has none.
    """
    provenance, content = record.provenance, record.to_json().encode()
    told = json.dumps([_FORM, run.group, run.name, model is not None]).encode()
    failure = None if record.failure is None else f"{record.failure.kind}: {record.failure.message}"
    return Outcome(
        failure=failure,
        points={} if record.result is None else _points(record.result, record),
        facts=_facts(record),
        started=datetime.fromisoformat(provenance.started).timestamp(),
        seconds=provenance.wall_seconds,
        record=content,
        model=model,
        mark=hashlib.sha256(told + content).hexdigest()[:16],
    )


@contextmanager
def in_folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Files in a folder of their own, which goes at the end of the block."""
    with TemporaryDirectory(prefix="scale_ray_") as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(folder)


def metrics_of(measured: CurvePoint | Result) -> dict[str, float]:
    """The numbers of a point or a result that are known and finite. Accuracies are in percent."""
    numbers: dict[str, float | None] = {
        "target_accuracy": measured.target_accuracy,
        "teacher_accuracy": measured.teacher_accuracy,
        "source_val_accuracy": measured.source_val_accuracy,
        "agreement": measured.agreement,
        **{f"validator/{name}": score for name, score in measured.validators.items()},
    }
    if isinstance(measured, CurvePoint):
        numbers |= {
            "kept_fraction": measured.kept_fraction,
            "kept_accuracy": measured.kept_accuracy,
            "kept_balance": measured.kept_balance,
            **{f"loss/{name}": value for name, value in measured.losses.items()},
        }
    return {name: value for name, value in numbers.items() if value is not None and math.isfinite(value)}


def _points(result: Result, record: Record) -> dict[int, dict[str, float]]:
    points = {point.step: metrics_of(point) for point in result.curve}
    seconds = {
        "seconds/wall": record.provenance.wall_seconds,
        "seconds/charged": record.provenance.charged_seconds,
        "seconds/evaluation": record.provenance.evaluation_seconds,
    }
    known = {name: value for name, value in seconds.items() if value is not None}
    points[result.steps] = points.get(result.steps, {}) | metrics_of(result) | known
    return points


def _parameters(config: TrialConfig) -> dict[str, Value]:
    fields = flat_fields(config.model_dump(mode="json"))
    fields["losses.terms"] = config.combination
    if config.tuning is not None:
        fields["tuning"] = str(config.tuning)
    return {path: _plain(value) for path, value in fields.items()}


def _plain(value: Any) -> Value:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _facts(record: Record) -> dict[str, str]:
    provenance = record.provenance
    facts: dict[str, Any] = {
        "recipe": record.recipe_version,
        **provenance.model_dump(include={"host", "device", "threads", "runner", "workers", "backend", "started"}),
        "git_commit": provenance.git_commit,
        "git_dirty": provenance.git_dirty,
        "versions": json.dumps(provenance.versions),
        "shared_steps": provenance.shared_steps,
    }
    if record.result is not None:
        facts["skipped_images"] = sum(map(len, record.result.skipped.values()))
    return {name: str(value) for name, value in facts.items() if value is not None}
