"""What somebody asks the service for: a study as JSON, and what its trials may use."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from scale_ray.config import (
    NAMED_WEIGHTS,
    ConfigError,
    Execution,
    Resources,
    Root,
    TrialConfig,
    describe_problems,
    flat_fields,
)
from scale_ray.data.defaults import base_config, usual_settings
from scale_ray.errors import UserError
from scale_ray.study import Change, Study, approaches, combinations, pairs

MOST_NAME = 100  # characters of a study's name: it is part of file names and of Ray's job ids

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
        max_length=MOST_NAME,
        description="letters, digits, dashes, underscores and, not at its beginning, dots",
    ),
]

_WEIGHTS = "model.weights"

# Axes whose values may be written as on the command line.
_WRITTEN: dict[str, Callable[..., list[Change]]] = {"pair": pairs, "losses": combinations, "method": approaches}


class StudyDocument(BaseModel):
    """A study as JSON. What it leaves out has the benchmark's defaults, as on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    base: dict[str, Any] = Field({}, description="fields of every cell, nested or by dotted path")
    steps: int | None = Field(
        None, ge=1, description="training steps; the warm-up and the points of the curve change in proportion"
    )
    axes: dict[str, list[Any]] = Field(
        description="axis -> values: a dotted path; or pair, losses, method, whose values are written as for --pairs, "
        "--losses, --methods; or any name, whose values are objects of dotted paths"
    )

    @field_validator("axes")
    @classmethod
    def _check_axes(cls, axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if not axes:
            raise ValueError('a study has an axis at least: give one, such as {"seed": [0]}')
        return axes

    @property
    def planned(self) -> int:
        """How many cells the values of its axes make."""
        return math.prod(map(len, self.axes.values()))

    def study(self, known_weights: Mapping[str, str] | None = None) -> Study:
        """The study.

        Args:
            known_weights: name -> file, of weights that a document may name.

        Raises:
            UserError: a field or value does not exist, or two axes set the same field.
        """
        known = known_weights or {}
        given = _with_files(flat_fields(self.base), known)
        axes = {axis: _values(axis, values, known) for axis, values in self.axes.items()}
        for values in axes.values():  # a base without a pair or method of its own has the first of its axis
            first = values[0] if values and isinstance(values[0], dict) else {}
            for path in ("data.source", "data.target"):
                if path in first:
                    given.setdefault(path, first[path])
        base = base_config(str(given.get("data.benchmark", "digits")), given, steps=self.steps)
        usual = usual_settings(base) if "method" in axes else {}
        told = {
            method: {path: value for path, value in fields.items() if path not in given}
            for method, fields in usual.items()
        }
        return Study(self.name, base, axes, told)


def _values(axis: str, values: list[Any], known_weights: Mapping[str, str]) -> list[Any]:
    """The values of an axis, those of a known name read from their texts."""
    if axis in _WRITTEN and all(isinstance(value, str) for value in values):
        return list(_WRITTEN[axis](*values))
    if axis == _WEIGHTS:
        return [_with_files({axis: value}, known_weights)[axis] for value in values]
    return [_with_files(value, known_weights) if isinstance(value, dict) else value for value in values]


def _with_files(fields: dict[str, Any], known_weights: Mapping[str, str]) -> dict[str, Any]:
    """Fields by dotted path, with the name of weights that the service knows replaced by their file."""
    file = known_weights.get(str(fields.get(_WEIGHTS)))
    return fields if file is None else {**fields, _WEIGHTS: file}


class Asked(BaseModel):
    """How the trials of a submission run: the fields of `Execution` and `Resources` that name no place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    checkpoint_every: int = Field(500, ge=1)
    keep_model: bool | None = None
    keep_predictions: bool = False
    hang_after: float = Field(1800, ge=0)
    cpus: int = Field(1, ge=1)
    gpus: float | None = Field(None, ge=0)
    workers: int = Field(1, ge=1)

    def execution(self, root: Root | None) -> Execution:
        kept = ("device", "checkpoint_every", "keep_model", "keep_predictions", "hang_after")
        return Execution.parse({"root": root, **self.model_dump(include=set(kept))})

    def resources(self, address: str | None = None) -> Resources:
        return Resources.parse({**self.model_dump(include={"cpus", "gpus", "workers"}), "address": address})


class Submission(BaseModel):
    """What `POST /api/studies` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: StudyDocument
    store: str = Field("default", description="name of a store that the service knows")
    root: str | None = Field(None, description="name of a folder of images that the service knows")
    run: Asked = Asked()
    priority: int = Field(0, ge=-100, le=100, description="higher ones come first")
    share: float = Field(1.0, gt=0, le=1000, description="weight among studies of one priority")

    @classmethod
    def parse(cls, values: Any) -> Self:
        """Build it from what a request or a file holds.

        Raises:
            ConfigError: one line per problem.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(describe_problems(error, cls)) from None


def refuse_places(config: TrialConfig, known: Mapping[str, str]) -> None:
    """Refuse a config that would open a place of the submitter's choosing.

    Args:
        config: of a cell.
        known: name -> file of the weights that the service knows.

    Raises:
        UserError: it names a file of weights itself, or a domain that is no name.
    """
    weights = config.model.weights
    if weights not in NAMED_WEIGHTS and weights not in known.values():
        names = ", ".join([*NAMED_WEIGHTS, *known])
        raise UserError(
            f"model.weights: the service opens no file of a submitter's choosing: choose from {names}, or ask its "
            "operator to add the file"
        )
    for field, domain in (("data.source", config.data.source), ("data.target", config.data.target)):
        if "/" in domain or "\\" in domain or domain.startswith("."):
            raise UserError(f"{field} {domain!r}: a path and no domain's name: give the name of a domain")
