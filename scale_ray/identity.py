"""A trial's id: the hash of everything that determines its numbers.

A stored record is found by its id alone, so an id must not change because the package grows:

- The fields of the first release (`FIRST_FIELDS`) are in the hash as they are.
- A field that was added later carries `Introduced(value)` in scale_ray/config: the value that a config without the
  field stands for. It enters the hash only where it differs from that value.

A change that makes the same config train to other numbers is another matter: it raises `RECIPE_VERSION`.
"""

import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scale_ray.config import RECIPE_VERSION, Introduced, TrialConfig
from scale_ray.config.parts import Items, Part

_REQUIRED = object()

# The fields of the first release and the defaults that ids are written against. No field is ever added here: see
# `Introduced`. A value changes with RECIPE_VERSION alone, as that of model.batch_norm did with recipe 2.
FIRST_FIELDS: dict[str, Any] = {
    "method": "scale",
    "seed": 0,
    "data.benchmark": "office_home",
    "data.source": "Art",
    "data.target": "Clipart",
    "data.image_size": 224,
    "data.resize": 256,
    "data.holdout": 0.1,
    "data.class_balance": "source",
    "data.gamma": 0.5,
    "data.corrupt": "error",
    "views.crop_scale": (0.5, 1.0),
    "views.flip": True,
    "views.strong": "randaugment",
    "views.randaugment_operations": 2,
    "views.randaugment_magnitude": 10,
    "model.backbone": "resnet50",
    "model.weights": "imagenet",
    "model.encoder": "trained",
    "model.frozen_views": 4,
    "model.bottleneck_dim": 256,
    "model.hidden_dim": 1024,
    "model.projection_dim": 128,
    "model.contrast_level": "pooled",
    "model.batch_norm": "domain",
    "model.teacher_momentum": 0.99,
    "losses.terms": {"ce": 1.0, "ssl": 1.0, "dist": 1.0, "reg": 1.0},
    "losses.threshold": 0.8,
    "losses.temperature": 0.1,
    "losses.consistency": "cross_entropy",
    "losses.contrast": "dist",
    "losses.bank_size": 200,
    "losses.covariance": "diagonal",
    "losses.statistics_window": "cumulative",
    "losses.reg_mean": "batch",
    "baseline.weight": 1.0,
    "baseline.reversal_gamma": 10.0,
    "baseline.entropy_conditioning": False,
    "baseline.mcc_temperature": 2.5,
    "baseline.prompt_ensemble": False,
    "baseline.shared_tokens": 16,
    "baseline.domain_tokens": 16,
    "baseline.prompt_threshold": 0.5,
    "baseline.content_tokens": 4,
    "baseline.entropy_weight": 0.01,
    "baseline.alignment_weight": 1.0,
    "baseline.mapping_weight": 0.1,
    "optim.steps": 20_000,
    "optim.warmup_steps": 1_000,
    "optim.batch_size": 32,
    "optim.learning_rate": 0.003,
    "optim.encoder_factor": 0.1,
    "optim.momentum": 0.9,
    "optim.nesterov": True,
    "optim.weight_decay": 1e-3,
    "optim.schedule": "inverse",
    "optim.precision": "float32",
    "parallel.workers": 1,
    "parallel.sync_batch_norm": False,
    "evaluate_every": 1_000,
    **dict.fromkeys(
        (
            "tuning.study",
            "tuning.validator",
            "tuning.sampler",
            "tuning.fields",
            "tuning.settings",
            "tuning.steps",
            "tuning.losses",
            "tuning.pairs",
            "tuning.seeds",
        ),
        _REQUIRED,
    ),
}

# Fields of the first release that are left out of the hash together, where all of a group have their default.
_LEFT_OUT_TOGETHER = (
    tuple(path for path in FIRST_FIELDS if path.startswith("baseline.")),
    ("model.encoder", "model.frozen_views", "model.bottleneck_dim"),
    ("losses.bank_size",),
)


def identity(config: TrialConfig, inputs: Mapping[str, str]) -> str:
    """The trial's id: 64 hex digits.

    The number of workers is no part of it where it can change only the last bits of a result.

    Args:
        config: what is trained.
        inputs: digests of what is read, by role: `source`, `target`, `weights` where a file was named, and the source
            code of a user's own entries. They stand for the files, so neither host nor path matters.
    """
    parts = {name: getattr(config, name) for name in type(config).model_fields}
    if "weights" in inputs:
        parts["model"] = config.model.model_copy(update={"weights": "file"})
    if config.any_workers_alike:
        parts["parallel"] = config.parallel.model_copy(update={"workers": 1, "sync_batch_norm": False})
    texts = {
        name: _text(type(config), name, *(part.hashable() if isinstance(part, Part) else [part]))
        for name, part in sorted(parts.items())
    }
    fields = ",".join(f'"{name}":{text}' for name, text in texts.items() if text)
    document = f'{{"config":{{{fields}}},"inputs":{_json(dict(inputs))},"recipe":{RECIPE_VERSION}}}'
    return hashlib.sha256(document.encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=10_000, typed=True)  # the cells of a study share most of their parts
def _text(config: type[TrialConfig], name: str, *values: Any) -> str:
    """A part as JSON without the fields that are no part of an id; empty where none is left.

    Args:
        config: the class of the config.
        name: of its field.
        values: of the field; of a part, see `Part.hashable`.
    """
    kind, introduced = _part_of(config.model_fields[name].annotation), _introduced(config)
    if kind is None:
        return "" if introduced.get(name, _REQUIRED) == values[0] else _json(*values)
    if values == (None,):  # an optional part that is not there
        return ""
    found = {
        field: dict(value) if isinstance(value, Items) else value
        for field, value in zip(kind.model_fields, values, strict=True)
    }
    for group in _LEFT_OUT_TOGETHER:
        of_part = [path.partition(".")[2] for path in group if path.startswith(f"{name}.")]
        if of_part and all(found[field] == FIRST_FIELDS[f"{name}.{field}"] for field in of_part):
            found = {field: value for field, value in found.items() if field not in of_part}
    kept = {field: value for field, value in found.items() if introduced.get(f"{name}.{field}", _REQUIRED) != value}
    return _json(kept) if kept else ""


def declaration_problems(config: type[TrialConfig] = TrialConfig) -> list[str]:
    """What is wrong with the declared fields of a config class: one sentence per problem, each with its remedy."""
    problems = []
    fields = dict(_fields(config, ""))
    for path, field in fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Introduced)]
        default = _REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        if path in FIRST_FIELDS:
            before = FIRST_FIELDS[path]
        elif marks:
            before = marks[0].value
        else:
            problems.append(
                f"{path}: a new config field must not change the ids of stored records: declare the value that a "
                "config without it stands for, as in "
                f"`{path.rpartition('.')[2]}: Annotated[TYPE, Introduced(VALUE)] = VALUE` in scale_ray/config"
            )
            continue
        if default != before:
            problems.append(
                f"{path}: its default is {default!r} and was {before!r} when the field was introduced: keep the old "
                "default and set the new value in the benchmarks' `defaults`; where the default must change, change it "
                "in identity.py or in its `Introduced` too, and raise RECIPE_VERSION"
            )
    problems += [
        f"{path}: this field of the first release is gone, and stored records have it: keep it, or raise "
        "SCHEMA_VERSION and convert them"
        for path in FIRST_FIELDS.keys() - fields.keys()
    ]
    return problems


@cache
def _introduced(config: type[TrialConfig]) -> dict[str, Any]:
    """Path -> value at introduction of every field that was added after the first release."""
    problems = declaration_problems(config)
    assert not problems, "\n".join(problems)
    return {
        path: mark.value
        for path, field in _fields(config, "")
        for mark in field.metadata
        if path not in FIRST_FIELDS and isinstance(mark, Introduced)
    }


def _fields(part: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf field of a config class by its dotted path; of an optional part too."""
    for name, field in part.model_fields.items():
        nested = _part_of(field.annotation)
        if nested is None:
            yield prefix + name, field
        else:
            yield from _fields(nested, f"{prefix}{name}.")


def _part_of(annotation: Any) -> type[BaseModel] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), None)
