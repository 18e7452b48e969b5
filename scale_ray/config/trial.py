"""The config of one trial: everything that determines the numbers of a training."""

from collections.abc import Iterable, Mapping
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.fields import FieldInfo

from scale_ray.config.losses import BaselineConfig, LossesConfig, write_term
from scale_ray.config.parts import MOST, DataConfig, ModelConfig, OptimConfig, ParallelConfig, Part, ViewsConfig
from scale_ray.config.problems import ConfigError, parsed, suggest

# Raise it whenever the same config on the same data would train to other numbers: old records are then stale.
RECIPE_VERSION = 2

# Values of model.weights that are no file's path.
NAMED_WEIGHTS = ("none", "imagenet", "openai")


class Variant(NamedTuple):
    """A field whose value gives a method a row of its own in tables, as CDAN+E beside CDAN."""

    term: str | None  # the loss term that reads the field; None: the method itself reads it
    written: Mapping[object, str]  # value -> suffix of the method's name; other values have no suffix


# By dotted path. Numeric fields are not variants: cells with different thresholds belong in different tables.
VARIANTS: dict[str, Variant] = {
    "views.source": Variant(None, {"alternating": " strong-source"}),
    "losses.contrast": Variant("dist", {"proto": " proto", "bank": " bank"}),
    "losses.pseudo_labels": Variant(
        None, {"prototype": " prototype", "neighbours": " neighbours", "average": " average"}
    ),
    "losses.thresholding": Variant(None, {"flex": " flex", "relative": " relative"}),
    "losses.alignment": Variant(None, {"uniform": " uniform-aligned", "source": " source-aligned"}),
    "baseline.entropy_conditioning": Variant(None, {True: "+E"}),
    "baseline.prompt_ensemble": Variant(None, {True: " ensemble"}),
    "baseline.class_tokens": Variant(None, {True: " csc"}),
}


class TuningBudget(Part):
    """What was spent on finding a config's values, so that tables can show it beside an untuned config."""

    study: str = Field(description="name of the search")
    validator: str = Field(description="the validator that chose; oracle: target labels")
    sampler: str
    fields: tuple[str, ...] = Field(description="dotted paths of what was tuned")
    settings: int = Field(ge=1, description="how many were tried, including those that failed or were stopped early")
    steps: int = Field(ge=0, description="training steps of all settings together")
    losses: str = Field(description="the loss combination that was trained, as in ce+ssl")
    pairs: tuple[str, ...]
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        """In a table: `24 settings by im on mnist>mnistm (study tuning-digits)`."""
        by = "oracle (target labels)" if self.validator == "oracle" else self.validator
        return f"{self.settings} settings by {by} on {', '.join(self.pairs)} (study {self.study})"


class TrialConfig(Part):
    """Everything that determines the numbers of one training. Any field is an axis, by its dotted path.

    The defaults are the fields' own. `base_config` has those that suit a benchmark, a method and a frozen encoder.
    """

    method: str = "scale"
    seed: int = Field(0, ge=0, lt=2**31)
    data: DataConfig = DataConfig()
    views: ViewsConfig = ViewsConfig()
    model: ModelConfig = ModelConfig()
    losses: LossesConfig = LossesConfig()
    baseline: BaselineConfig = BaselineConfig()
    optim: OptimConfig = OptimConfig()
    parallel: ParallelConfig = ParallelConfig()
    evaluate_every: int = Field(
        1_000, ge=1, le=MOST, description="steps between two evaluations; the last step is evaluated too"
    )
    tuning: TuningBudget | None = Field(None, description="what `scale-ray tune` spent, where it chose the values")

    @model_serializer(mode="wrap")
    def _leave_out_no_tuning(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `tuning` out of an untuned config, as in configs of before this field existed."""
        values: dict[str, Any] = write(self)
        return values if self.tuning is not None else {key: value for key, value in values.items() if key != "tuning"}

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        workers, batch = self.parallel.workers, self.optim.batch_size
        if self.parallel.sync_batch_norm and self.model.batch_norm == "domain":
            raise ValueError(
                "model.batch_norm='domain' keeps statistics that parallel.sync_batch_norm cannot synchronise: set that "
                "to false, or model.batch_norm to 'joint'"
            )
        if batch % workers:
            raise ValueError(
                f"optim.batch_size={batch} cannot be split evenly over parallel.workers={workers}: make it a multiple"
            )
        if batch == workers and not self.any_workers_alike:
            raise ValueError(
                f"optim.batch_size={batch} leaves each of parallel.workers={workers} one image, too few for BatchNorm: "
                "lower parallel.workers, or set model.batch_norm to 'frozen'"
            )
        return self

    @property
    def any_workers_alike(self) -> bool:
        """Whether any number of workers gives one worker's result, up to last bits: BatchNorm sees no partial batch."""
        return self.parallel.workers == 1 or self.parallel.sync_batch_norm or self.model.batch_norm == "frozen"

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from nested values.

        Raises:
            ConfigError: one line per problem, each naming the field by its dotted path.
        """
        return parsed(cls, values)

    def replace(self, changes: Mapping[str, Any]) -> Self:
        """A copy with other values at dotted paths: `config.replace({"losses.threshold": 0.9})`.

        Raises:
            ConfigError: a path that is no field (with the nearest one that is), or a value out of range.
        """
        # Unchanged parts stay the same objects: the cells of a large study share most of their parts.
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        known = _field_paths(type(self))
        for path, value in changes.items():
            if path not in known:
                hint = suggest(path, known) or f"fields: {list(known)}"
                raise ConfigError(f"unknown field {path!r}: {hint}".rstrip())
            *parents, leaf = path.split(".")
            part = values
            for parent in parents:
                if isinstance(part[parent], BaseModel):
                    part[parent] = part[parent].model_dump()
                part = part[parent]
            part[leaf] = value
        return self.parse(values)

    def value(self, path: str) -> Any:
        """The value at a dotted path."""
        return _getter(path)(self)

    @property
    def pair(self) -> str:
        """The domain pair as tables write it: `mnist>mnistm`."""
        return f"{self.data.source}>{self.data.target}"

    @property
    def combination(self) -> str:
        """The loss combination as tables write it: `ce+ssl+dist+reg`, with weights other than 1."""
        return "+".join(write_term(name, weight) for name, weight in self.losses.terms.items())

    @property
    def approach(self) -> str:
        """The loss combination of scale and source_only, the variant of any other method: `ce+ssl`, `cdan+E`."""
        if self.method not in ("scale", "source_only"):
            return self.variant
        return self.combination if self.variant == self.method else f"{self.combination} ({self.variant})"

    @property
    def variant(self) -> str:
        """The method with the suffixes of its variants: `scale`, `scale bank`, `cdan+E`."""
        chosen = [
            variant.written.get(self.value(path), "")
            for path, variant in VARIANTS.items()
            if variant.term is None or variant.term in self.losses.terms
        ]
        return "".join([self.method, *chosen])


# Made once: a study of many cells asks for it some twenty times in each.
DEFAULTS = TrialConfig()


def field_paths() -> list[str]:
    """The dotted paths of all fields of a trial, in the order of their declaration."""
    return list(_field_paths(TrialConfig))


def field_info(path: str) -> FieldInfo:
    """The declaration of the field at a dotted path."""
    part: type[BaseModel] = TrialConfig
    *parents, name = path.split(".")
    for parent in parents:
        annotation = part.model_fields[parent].annotation
        assert isinstance(annotation, type)
        part = annotation
    return part.model_fields[name]


_getter = cache(attrgetter)


@cache
def _field_paths(config: type[TrialConfig]) -> tuple[str, ...]:

    def walk(part: type[BaseModel], prefix: str) -> Iterable[str]:
        for name, field in part.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from walk(field.annotation, f"{prefix}{name}.")
            else:
                yield prefix + name

    return tuple(walk(config, ""))


def flat_fields(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted paths. The values of losses.terms and tuning are objects themselves."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = prefix + key
        if isinstance(value, dict) and path not in ("losses.terms", "tuning"):
            flat |= flat_fields(value, path + ".")
        else:
            flat[path] = value
    return flat


def absolute_weights(weights: str) -> str:
    """A weights file by its absolute path; names such as `imagenet` as they are."""
    return weights if weights in NAMED_WEIGHTS else str(Path(weights).expanduser().absolute())
