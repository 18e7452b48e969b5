"""A study: a base config and axes, expanded into one config a cell before anything runs."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from scale_ray.config import DEFAULTS, VARIANTS, ConfigError, TrialConfig, describe_problems, field_paths, suggest

Change = dict[str, Any]  # dotted path -> value

# Some minutes and gigabytes to plan. More is a mistake, such as a seed that was given as a number of seeds.
MOST_CELLS = 1_000_000
_TOO_MANY = f"a study has at most {MOST_CELLS:,} cells: give fewer values"


class Until(BaseModel):
    """What a study shall decide, by more seeds than the planned ones where these do not.

    A comparison of an approach with the baseline is decided when its interval, over all looks and comparisons (see
    `report.effects.sequential`), excludes 0 or is at most +- `half_width`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    half_width: float = Field(gt=0, le=100, description="percentage points")
    most_seeds: int = Field(20, ge=2, le=1000, description="that an approach may get on a pair")
    first: int | None = Field(None, ge=1, description="seeds that are planned; filled in by the study's run")
    baseline: str | None = Field(None, description="an approach; None: ce, or the study's first")


class Study(BaseModel):
    """Every combination of the values of all axes, on top of a base config.

    A study is plain data: it can be written as JSON and read back.

    Attributes:
        name: names the study's file in the store: letters, digits, dashes, underscores and dots.
        base: what all cells share.
        axes: name -> values. The name is a dotted path of TrialConfig. An axis may also move several fields together:
            then it has any name, and its values are dicts of dotted paths (see `pairs`, `combinations`, `approaches`).
            The first axis varies slowest.
        usual: method -> dotted path -> value: what a cell of that method has unless an axis sets it; by default
            nothing. `usual_settings(base)` gives what the methods' papers have.
        until: what is to be decided by more seeds than `axes` has; None: nothing.

    Raises:
        ConfigError: a name that cannot be a file's, an unknown field, or a field that two axes set.

    Examples:
        >>> study = Study("try", TrialConfig(), {"seed": [0, 1], "losses": combinations("ce", "ce+ssl")})
        >>> [f"{config.combination} seed {config.seed}" for config in study.cells()]
        ['ce seed 0', 'ce+ssl seed 0', 'ce seed 1', 'ce+ssl seed 1']
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    base: TrialConfig
    axes: dict[str, list[Any]]
    usual: dict[str, dict[str, Any]]
    until: Until | None = None
    _keep: Callable[[TrialConfig], bool] | None = PrivateAttr(None)

    def __init__(
        self,
        name: str,
        base: TrialConfig,
        axes: Mapping[str, Sequence[Any]],
        usual: Mapping[str, Mapping[str, Any]] | None = None,
        until: Until | None = None,
    ):
        try:
            super().__init__(name=name, base=base, axes=axes, usual=usual or {}, until=until)
        except ValidationError as error:
            problems = describe_problems(error).removeprefix("name: ").removeprefix("axes: ").removeprefix("usual: ")
            raise ConfigError(f"study {name!r}: {problems}") from None

    @field_validator("axes", mode="before")
    @classmethod
    def _list_values(cls, axes: Any) -> Any:
        """Take any sequence of values, such as a range or a tuple."""
        if not isinstance(axes, Mapping):
            return axes
        for axis, values in axes.items():
            if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
                raise ValueError(f"axis {axis!r} is {values!r}: give a list of values")
            if isinstance(values, Sized) and len(values) > MOST_CELLS:  # a range of so many
                raise ValueError(f"axis {axis!r} has {len(values):,} values: {_TOO_MANY}")
        return {axis: list(values) for axis, values in axes.items()}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w-][\w.-]*", name):
            raise ValueError(
                "the name is a file's: write only letters, digits, dashes, underscores and, not at its beginning, dots"
            )
        return name

    @field_validator("axes")
    @classmethod
    def _check_axes(cls, axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        known, setters = set(field_paths()), dict[str, str]()
        for axis, values in axes.items():
            if not values:
                raise ValueError(f"axis {axis!r} has no values: give at least one")
            for path in dict.fromkeys(path for value in values for path in change_of(axis, value)):
                if path not in known:
                    raise ValueError(
                        f"axis {axis!r}: {path!r} is not a config field: {suggest(path, known)}name a field by its "
                        "dotted path, or give dicts of dotted paths where several fields move together"
                    )
                if path in setters:
                    raise ValueError(f"axes {setters[path]!r} and {axis!r} both set {path}: keep one of them")
                setters[path] = axis
        cells = math.prod(map(len, axes.values()))
        if cells > MOST_CELLS:
            raise ValueError(f"{' x '.join(f'{len(values)} {axis}' for axis, values in axes.items())}: {_TOO_MANY}")
        return axes

    @field_validator("usual")
    @classmethod
    def _check_usual(cls, usual: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        known = set(field_paths())
        for method, fields in usual.items():
            for path in fields:
                if path not in known:
                    raise ValueError(f"usual of {method!r}: {path!r} is not a config field: {suggest(path, known)}")
        return usual

    @model_serializer(mode="wrap")
    def _write_filter(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As plain data, a filtered study has one axis, with the fields that each cell sets."""
        values: dict[str, Any] = write(self)
        if not self.usual:
            del values["usual"]
        if self.until is None:
            del values["until"]
        return values if self._keep is None else {**values, "axes": {"cell": list(self.changes())}}

    def changes(self) -> Iterator[Change]:
        """What each cell changes in the base config, by dotted path."""
        for values in itertools.product(*self.axes.values()):
            change: Change = {}
            for axis, value in zip(self.axes, values, strict=True):
                change |= change_of(axis, value)
            change = self.usual.get(change.get("method", self.base.method), {}) | change
            if self._keep is None or self._keeps(self.base.replace(change)):
                yield change

    def _keeps(self, config: TrialConfig) -> bool:
        assert self._keep is not None
        try:
            return bool(self._keep(config))
        except Exception as error:
            raise ConfigError(
                f"study {self.name!r}: its filter (`where`) fails on {describe(config)} "
                f"({type(error).__name__}: {error}): mend the function"
            ) from error

    def cells(self) -> list[TrialConfig]:
        """One config a cell, in the order in which they are to run.

        Raises:
            ConfigError: a value that its field does not take, two cells with the same config, or a filter that keeps no
                cell.
        """
        configs = [self.base.replace(change) for change in self.changes()]
        if not configs:
            raise ConfigError(f"study {self.name!r}: the filter keeps no cell")
        seen: set[tuple[Any, ...]] = set()
        for config in configs:
            values = config.hashable()
            if values in seen:
                raise ConfigError(
                    f"study {self.name!r} plans one cell twice ({describe(config)}): an axis repeats a value; give "
                    "each once"
                )
            seen.add(values)
        return configs

    def where(self, keep: Callable[[TrialConfig], bool] | None) -> "Study":
        """The study of those cells for which `keep` returns True, in the same order; None keeps all.

        A filter of a filtered study keeps the cells that both keep.
        """
        if keep is not None and not callable(keep):
            raise ConfigError(f"study {self.name!r}: where({keep!r}): give a function of a config")
        before, filtered = self._keep, Study(self.name, self.base, self.axes, self.usual, self.until)
        both = (lambda config: before(config) and keep(config)) if before and keep else keep or before
        filtered._keep = both
        return filtered

    @property
    def keep(self) -> Callable[[TrialConfig], bool] | None:
        """The filter that `where` was given."""
        return self._keep

    def with_axes(self, axes: Mapping[str, Sequence[Any]]) -> "Study":
        """The study with other values of these axes, each in the position that it has; new ones come last."""
        return Study(self.name, self.base, {**self.axes, **axes}, self.usual, self.until).where(self._keep)


def pairs(*texts: str) -> list[Change]:
    """An axis of domain pairs: `pairs("mnist:mnistm", "optdigits:mnist")`, source first.

    Raises:
        ConfigError: a text that is not `source:target`.
    """
    found = []
    for text in texts:
        source, _, target = (name.strip() for name in text.replace(">", ":").partition(":"))
        if not (source and target):
            raise ConfigError(f"{text!r} is not a domain pair: write source:target, as in mnist:mnistm")
        found.append({"data.source": source, "data.target": target})
    return found


def combinations(*texts: str) -> list[Change]:
    """An axis of loss combinations: `combinations("ce", "ce+ssl+0.5*dist")`. `ce` alone is the method source_only."""
    return [{"method": "source_only" if text == "ce" else "scale", "losses.terms": text} for text in texts]


def approaches(*texts: str) -> list[Change]:
    """An axis of methods, each written `METHOD[:TERMS][/FIELD=VALUE…][@BACKBONE[=WEIGHTS]]`.

    `scale:ce+ssl`, `scale/losses.contrast=bank`, `cdan/baseline.entropy_conditioning=true`,
    `clip_zero_shot@clip_rn50=openai`. A method without terms trains with ce, and scale with all of its terms.

    Raises:
        ConfigError: a text that cannot be read, or a field that is no variant of the method (see `config.VARIANTS`).
    """
    return [_method(text) for text in texts]


def _method(text: str) -> Change:
    approach, _, network = (part.strip() for part in text.partition("@"))
    kind, *chosen = (part.strip() for part in approach.split("/"))
    method, _, terms = (part.strip() for part in kind.partition(":"))
    backbone, _, weights = (part.strip() for part in network.partition("="))
    change: Change = {
        "method": method,
        "losses.terms": terms or (dict(DEFAULTS.losses.terms) if method == "scale" else "ce"),
    }
    for setting in chosen:
        path, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(
                f"method {text!r}: {setting!r} sets nothing: write FIELD=VALUE, as in losses.contrast=bank"
            )
        change[path] = value
        _check_variant(text, path, DEFAULTS.replace(change))
    if backbone:
        change["model.backbone"] = backbone
    if weights:
        file = Path(weights).expanduser()
        change["model.weights"] = str(file.absolute()) if file.is_file() else weights
    return change


def _check_variant(text: str, path: str, config: TrialConfig) -> None:
    """Refuse a field that gives a method no row of its own, or that the loss combination does not read."""
    if path not in VARIANTS:
        raise ConfigError(
            f"method {text!r}: {path} is not a variant of a method: {suggest(path, VARIANTS)}choose from "
            f"{', '.join(VARIANTS)}, or set it for all methods with --set"
        )
    term = VARIANTS[path].term
    if term is not None and term not in config.losses.terms:
        raise ConfigError(
            f"method {text!r}: {path} is a setting of loss term {term!r}, and {config.combination} is trained: add the "
            "term, or leave the setting out"
        )


def change_of(axis: str, value: Any) -> Change:
    """The fields that a value of an axis sets. A dict is the value of one field where the axis is a dotted path."""
    return dict(value) if isinstance(value, Mapping) and "." not in axis else {axis: value}


# Fields that `describe` names in any case.
_DESCRIBED = {
    *("seed", "data.source", "data.target", "method", "losses.terms", "model.backbone", "model.encoder"),
    *VARIANTS,
}


def differing_fields(configs: Sequence[TrialConfig]) -> list[str]:
    """The fields in which these configs differ, beside those that `describe` names in any case."""
    # The configs of a study share most of their parts, so that only a few objects need to be compared.
    parts = {
        name: list({id(part): part for config in configs if (part := getattr(config, name)) is not None}.values())
        for name in TrialConfig.model_fields
    }

    def values(path: str) -> set[str]:
        name, _, leaf = path.partition(".")
        return {repr(getattr(part, leaf) if leaf else part) for part in parts[name]}

    return [path for path in field_paths() if path not in _DESCRIBED and len(values(path)) > 1]


def describe(config: TrialConfig, fields: Iterable[str] = ()) -> str:
    """A cell in one line: `mnist>mnistm ce+ssl lenet seed 0`, `mnist>mnistm dann lenet seed 0 model.batch_norm=joint`.

    Args:
        config: of the cell.
        fields: further fields to name, by dotted path: see `differing_fields`.
    """
    values = "".join(f" {path}={config.value(path)}" for path in fields)
    return f"{config.pair} {config.approach} {config.model.label} seed {config.seed}{values}"
