"""Which setting a search chooses: the highest score, where it is reliably above the default's; else the default.

The highest of many settings is partly luck. So it must be above the default by a one-sided paired t-test over the
repeats, at 0.05 after Bonferroni's correction for the number of settings that were compared with the default.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.tuning.setting import Setting
from scale_ray.tuning.space import Space

ALPHA = 0.05
FEWEST_REPEATS = 3
_EDGE = 0.05  # share of a range, on its scale, that counts as its edge


@dataclass(frozen=True)
class Decision:
    """What a search chooses.

    Attributes:
        chosen: the setting to use.
        highest: the one with the highest score.
        why: in one sentence.
    """

    chosen: Setting
    highest: Setting
    why: str


def highest(settings: Sequence[Setting], validator: str) -> Setting | None:
    """The setting with the highest mean score among those whose repeats are all done; the first of equal ones."""
    done = [setting for setting in settings if setting.state == "done" and validator in setting.validators]
    return max(done, key=lambda setting: setting.validators[validator], default=None)


def decide(settings: Sequence[Setting], validator: str) -> Decision | None:
    """The chosen setting; None where none is done."""
    best = highest(settings, validator)
    if best is None:
        return None
    usual = next((each for each in settings if each.default and each.state == "done"), None)
    if usual is None or validator not in usual.validators:
        return Decision(best, best, "it scores highest; the default setting is not done, so nothing says what it gains")
    if usual.number == best.number:
        return Decision(usual, best, "the default setting scores highest, so it is kept")
    gains = [high - low for high, low in zip(best.by_repeat[validator], usual.by_repeat[validator], strict=True)]
    gain = f"setting {best.number} scores {fmean(gains):.4g} above the default"
    if len(gains) < FEWEST_REPEATS:
        return Decision(
            usual,
            best,
            f"{gain}, but {len(gains)} repeat{'s' * (len(gains) != 1)} cannot show that this is reliable "
            f"({FEWEST_REPEATS} at least: --seeds, --pairs), so the default is kept",
        )
    compared = sum(each.state == "done" for each in settings) - 1
    p = min(1.0, compared * _p_above_zero(gains))
    test = f"one-sided paired t over {len(gains)} repeats, p {p:.2g} after correction for {compared} settings"
    if p <= ALPHA:
        return Decision(best, best, f"{gain} ({test})")
    return Decision(usual, best, f"{gain}, which is not reliable ({test}), so the default is kept")


def _p_above_zero(gains: Sequence[float]) -> float:
    from scipy.stats import t  # takes a second to import

    mean = fmean(gains)
    spread = math.sqrt(math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1))
    if spread == 0:
        return 0.0 if mean > 0 else 1.0
    return float(t.sf(mean / (spread / math.sqrt(len(gains))), len(gains) - 1))


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
            advice = _next_range(path, distribution, side, base)
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
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, place = _on_scale(distribution, value)
    if not low <= place <= high:
        return None
    share = (place - low) / (high - low)
    return "lower" if share <= _EDGE else "upper" if share >= 1 - _EDGE else None


def _on_scale(distribution: FloatDistribution | IntDistribution, value: float) -> tuple[float, float, float]:
    scale: Callable[[float], float] = math.log if distribution.log else float
    return scale(distribution.low), scale(distribution.high), scale(value)


def _next_range(path: str, distribution: BaseDistribution, side: str, base: TrialConfig | None) -> str:
    """The advice: half of the range again beyond the edge, or as much of it as the field takes."""
    if isinstance(distribution, CategoricalDistribution):
        return f"try values {'below' if side == 'lower' else 'above'} it as well"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, _ = _on_scale(distribution, distribution.low)
    back: Callable[[float], float] = math.exp if distribution.log else float
    for share in (0.5, 0.25, 0.1, 0.05):
        reach = share * (high - low)
        outer = back(low - reach if side == "lower" else high + reach)
        inner = back((low + high) / 2)
        ends = sorted((outer, inner))
        kind = "int" if isinstance(distribution, IntDistribution) else "float"
        shown = [str(round(end)) if kind == "int" else f"{end:.3g}" for end in ends]
        if base is not None and _takes(base, path, shown[0 if side == "lower" else 1], kind):
            log = ":log" if distribution.log else ""
            step = f":{distribution.step:g}" if distribution.step and not log and kind == "int" else ""
            return f"try --space {path}={kind}:{shown[0]}:{shown[1]}{log}{step}"
    return "the field takes no value beyond it"


def _takes(base: TrialConfig, path: str, text: str, kind: str) -> bool:
    try:
        base.replace({path: int(text) if kind == "int" else float(text)})
    except ConfigError:
        return False
    return True


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
