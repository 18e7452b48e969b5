"""Values at the edge of what was searched, and the range to try next."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from scale_ray.config import ConfigError, TrialConfig, field_info
from scale_ray.tuning.space import Space

_EDGE = 0.05  # share of a range, on its scale, that counts as its edge

Range = FloatDistribution | IntDistribution


def edges(space: Space, values: Mapping[str, Any], base: TrialConfig | None) -> list[str]:
    """One line for each field whose value is at the edge of its range, with the range to try next.

    Args:
        values: the setting that scores highest.
        base: says which values the fields take; without it no range is named.
    """
    lines = []
    for path, distribution in space.items():
        side = _edge(distribution, values[path])
        if side:
            advice = _advice(path, distribution, side, base)
            lines.append(f"{path}={_text(values[path])} is at the {side} edge of what was searched: {advice}")
    return lines


def _edge(distribution: BaseDistribution, value: Any) -> str | None:
    """`lower`, `upper`, or None. A list of numbers has edges too."""
    if isinstance(distribution, CategoricalDistribution):
        numbers = [
            each for each in distribution.choices if isinstance(each, int | float) and not isinstance(each, bool)
        ]
        if len(numbers) < max(2, len(distribution.choices)) or value not in numbers:
            return None
        return "lower" if value == min(numbers) else "upper" if value == max(numbers) else None
    assert isinstance(distribution, Range)
    scale = math.log if distribution.log else float
    low, high, place = scale(distribution.low), scale(distribution.high), scale(value)
    if not low <= place <= high:
        return None
    share = (place - low) / (high - low)
    return "lower" if share <= _EDGE else "upper" if share >= 1 - _EDGE else None


def _advice(path: str, distribution: BaseDistribution, side: str, base: TrialConfig | None) -> str:
    """The range from the middle of the old one to a value beyond its edge, the first of some that the field takes."""
    if isinstance(distribution, CategoricalDistribution) or base is None:
        return f"try values {'below' if side == 'lower' else 'above'} it as well"
    assert isinstance(distribution, Range)
    lower, number = side == "lower", int if isinstance(distribution, IntDistribution) else float
    for place in _beyond(path, distribution, lower):
        outer = number(_drawn(distribution, place, up=not lower))
        is_beyond = outer < distribution.low if lower else outer > distribution.high
        if is_beyond and _takes(base, path, outer):
            inner = number(_drawn(distribution, _on_scale(distribution, 0.5), up=False))
            low, high = sorted((outer, inner))
            return f"try --space {path}={number.__name__}:{low:.12g}:{high:.12g}{_how(distribution)}"
    return "the field takes no value beyond it"


def _beyond(path: str, distribution: Range, lower: bool) -> Iterator[float]:
    """Half of the range again beyond its edge, the field's own bound, then ever less."""

    def place(share: float) -> float:
        return _on_scale(distribution, -share if lower else 1 + share)

    yield place(0.5)
    for limit in field_info(path).metadata:
        bound = getattr(limit, "ge" if lower else "le", None)
        if bound is not None and (bound > 0 or not distribution.log):
            yield float(bound)
    yield from (place(0.5**power) for power in range(2, 9))


def _on_scale(distribution: Range, share: float) -> float:
    """The value at a share of the range, 0 to 1 inside, on the range's own scale."""
    if distribution.log:
        return distribution.low * (distribution.high / distribution.low) ** share
    return distribution.low + share * (distribution.high - distribution.low)


def _drawn(distribution: Range, place: float, *, up: bool) -> float:
    """The next value that a range through this place would draw: a step from `low`, a whole number, or a short one."""
    next_whole = math.ceil if up else math.floor
    if distribution.step and not distribution.log:
        steps = round((place - distribution.low) / distribution.step, 6)
        return distribution.low + next_whole(steps) * distribution.step
    if isinstance(distribution, IntDistribution):
        return next_whole(place)
    span = distribution.high - distribution.low
    fine = min(span, place) if distribution.log else span
    return round(place, 2 - math.floor(math.log10(fine)))


def _how(distribution: Range) -> str:
    if distribution.log:
        return ":log"
    step = distribution.step
    return f":{step:g}" if step and (step != 1 or isinstance(distribution, FloatDistribution)) else ""


def _takes(base: TrialConfig, path: str, value: float) -> bool:
    try:
        base.replace({path: value})
    except ConfigError:
        return False
    return True


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
