"""The space of a search: a typed range or a list of values for each tuned config field, as Optuna distributions.

losses.threshold=float:0.5:0.95          any number in the range
losses.threshold=float:0.5:0.95:0.05     in steps
losses.temperature=float:0.03:1:log      uniform on a logarithmic scale
optim.batch_size=int:16:64:16            integers
views.strong=randaugment|colour_affine   one of these; values are read as JSON where they are JSON, as in --set
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from scale_ray.config import ConfigError, TrialConfig, field_paths, suggest

Space = dict[str, BaseDistribution]  # by dotted path
Values = dict[str, Any]  # a setting: one value for each tuned field

_FORMS = "float:LOW:HIGH[:STEP|:log], int:LOW:HIGH[:STEP|:log] or a|b|c"

# A search of some dozen settings cannot separate the effects of more fields than this.
MANY_FIELDS = 5

# Values of one field: more than a search tells apart, and few enough to list.
MOST_VALUES = 100_000

# Fields that cannot be tuned: a setting is measured on them, or another option decides them.
_NOT_TUNED = {
    "seed": "it is a repeat of every setting: use --seeds",
    "data.benchmark": "it is not a hyperparameter: search on each",
    "data.source": "it is a repeat of every setting: use --pairs",
    "data.target": "it is a repeat of every setting: use --pairs",
    "parallel.workers": "it is not a hyperparameter: use --workers-per-trial",
    "tuning": "the search itself writes it",
}


def read_space(texts: Sequence[str], base: TrialConfig) -> Space:
    """`PATH=RANGE` texts as distributions. Both ends of a range, and all values of a list, must be valid in `base`.

    Raises:
        ConfigError: a text that is no range, an unknown field, a value that the field does not take, or a field that
            cannot be tuned.
    """
    from scale_ray.training.resolve import check_trial, without_unread  # not above: a report needs no torch

    space: Space = {}
    for text in texts:
        path, equals, form = text.partition("=")
        if not equals or not form:
            raise ConfigError(f"--space {text!r}: write PATH=RANGE, where RANGE is {_FORMS}")
        if path not in field_paths():
            raise ConfigError(
                f"--space {path}: no such field: {suggest(path, field_paths())}see `scale-ray train --help`"
            )
        if path in _NOT_TUNED:
            raise ConfigError(f"--space {path}: {_NOT_TUNED[path]}")
        if path in space:
            raise ConfigError(f"--space {path}: given twice: write one range")
        space[path] = _distribution(text, form)
        for value in _outermost(space[path]):
            try:
                check_trial(without_unread(base.replace({path: value}), base, of_methods=path == "method"))
            except ConfigError as error:
                raise ConfigError(f"--space {text}: {error}") from None
    if not space:
        raise ConfigError(f"a search needs something to search: --space PATH=RANGE, where RANGE is {_FORMS}")
    return space


def describe_space(space: Space) -> str:
    """`losses.threshold 0.5 to 0.95 by 0.05, losses.temperature 0.03 to 1 (log)`."""
    return ", ".join(f"{path} {_describe(distribution)}" for path, distribution in space.items())


def numeric(space: Space) -> list[str]:
    """The fields with a range of numbers."""
    return [path for path, each in space.items() if isinstance(each, FloatDistribution | IntDistribution)]


def logarithmic(space: Space) -> list[str]:
    """The fields that are searched on a logarithmic scale."""
    return [path for path in numeric(space) if getattr(space[path], "log", False)]


def size(space: Space) -> int | None:
    """The number of settings; None where a field has a continuous range."""
    counts = [_count(distribution) for distribution in space.values()]
    total = 1
    for count in counts:
        if count is None:
            return None
        total *= count
    return total


def settings(space: Space) -> Iterator[Values]:
    """Every setting of a finite space; the last field varies fastest."""
    for values in itertools.product(*map(_all, space.values())):
        yield dict(zip(space, values, strict=True))


def rounded(values: Mapping[str, Any]) -> Values:
    """Remove rounding errors of steps: 0.65 instead of 0.6500000000000001, which would be another identity."""
    return {path: float(f"{value:.12g}") if isinstance(value, float) else value for path, value in values.items()}


def default_setting(space: Space, base: TrialConfig) -> Values:
    """The setting that changes nothing: the value that each field has in the base config, also outside of its range."""

    def value(path: str, distribution: BaseDistribution) -> Any:
        usual = base.value(path)
        if isinstance(distribution, CategoricalDistribution):  # a choice may spell the value otherwise: `ce+ssl`
            alike = (choice for choice in distribution.choices if base.replace({path: choice}).value(path) == usual)
            return next(alike, usual)
        return usual

    return rounded({path: value(path, distribution) for path, distribution in space.items()})


def contains(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether a sampler of this space could propose the setting."""
    return all(_contains(distribution, values[path]) for path, distribution in space.items())


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not distribution.low <= value <= distribution.high:
        return False
    steps = (value - distribution.low) / distribution.step if distribution.step else 0.0
    return math.isclose(steps, round(steps), abs_tol=1e-6)


def warm_ups_meet(space: Space, base: TrialConfig) -> bool:
    """Whether settings can share a warm-up (docs/method.md, section 9): some fields act only after it.

    Where a field that acts in the warm-up has a continuous range, no two settings have the same value of it.
    """
    acting = [path for path, distribution in space.items() if _acts_in_warm_up(path, distribution, base)]
    return len(acting) < len(space) and size({path: space[path] for path in acting}) is not None


def _acts_in_warm_up(path: str, distribution: BaseDistribution, base: TrialConfig) -> bool:
    from scale_ray.methods import METHODS

    configs = [base.replace({path: value}) for value in _outermost(distribution)]
    prefixes = [METHODS[config.method].warm_up(config) for config in configs]
    return any(prefix is None or prefix != prefixes[0] for prefix in prefixes)


def _describe(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "|".join(map(str, distribution.choices))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    how = " (log)" if distribution.log else f" by {distribution.step:g}" if distribution.step else ""
    return f"{distribution.low:g} to {distribution.high:g}{how}"


def _distribution(text: str, form: str) -> BaseDistribution:
    kind, *parts = form.split(":")
    if kind not in ("float", "int"):
        return _choice(text, form)
    number = float if kind == "float" else int
    try:
        low, high, *rest = parts
        log = rest == ["log"]
        step = number(rest[0]) if rest and not log else None
        if step is not None and not math.isfinite(step):
            raise ValueError(f"the step is {step}")
        if len(rest) > 1:
            raise ValueError("one thing at most may follow HIGH: a step, or log")
        if kind == "float":
            found: BaseDistribution = FloatDistribution(float(low), float(high), log=log, step=step)
        else:
            found = IntDistribution(int(low), int(high), log=log, step=1 if step is None else int(step))
    except ArithmeticError:  # of Optuna's exact numbers
        raise ConfigError(
            f"--space {text!r}: the step is too small for the range: take a larger one, or none"
        ) from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--space {text!r}: {str(error).rstrip('.')}: write {_FORMS}") from None
    if (_count(found) or 0) > MOST_VALUES:
        raise ConfigError(
            f"--space {text!r}: has {_count(found):,} values, {MOST_VALUES:,} is the most: take a larger step, or none "
            "in float:LOW:HIGH"
        )
    if found.single():
        raise ConfigError(f"--space {text!r}: has one value: use --set, or widen it")
    return found


def _choice(text: str, form: str) -> BaseDistribution:
    values = [_value(part.strip()) for part in form.split("|")]
    if len(values) < 2:
        raise ConfigError(
            f"--space {text!r}: neither a range nor several values: write {_FORMS}; for one value use --set"
        )
    if any(isinstance(value, list | dict) for value in values):
        raise ConfigError(f"--space {text!r}: a value must be a number, a word, true, false or null")
    if len(set(map(str, values))) < len(values):
        raise ConfigError(f"--space {text!r}: names a value twice")
    return CategoricalDistribution(values)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _outermost(distribution: BaseDistribution) -> list[Any]:
    """The ends of a range, all values of a list."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def _count(distribution: BaseDistribution) -> int | None:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return None
    return round((distribution.high - distribution.low) / distribution.step) + 1  # Optuna makes it a whole number


def _all(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, FloatDistribution)
    assert distribution.step is not None
    return [distribution.low + index * distribution.step for index in range(_count(distribution) or 0)]
