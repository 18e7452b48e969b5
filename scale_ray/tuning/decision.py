"""Which setting a search chooses: the highest score, where it is reliably above the default's; else the default.

The highest of many settings is partly luck. So it must be above the default by a one-sided paired t-test, at 0.05 after
Bonferroni's correction for every setting that was begun: one that was ended early could have been the highest.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scale_ray.records import ORACLE
from scale_ray.report.read.labels import count
from scale_ray.tuning.setting import Setting

ALPHA = 0.05

# Of fewer values the spread is not known.
FEWEST = 3

# From so many pairs on, pairs are what a gain is tested over. Fewer would leave a test over pairs no power after the
# correction: over 3 pairs, t must be 15 where 24 settings are compared.
PAIRS = 6


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


@dataclass(frozen=True)
class Units:
    """What a gain is tested over.

    Attributes:
        pairs: whether it is the means of pairs; else it is seeds within pairs.
        text: `12 pairs`, `9 seeds of 3 pairs`.
        scope: what the test speaks of.
    """

    pairs: bool
    text: str
    scope: str


def highest(settings: Sequence[Setting], validator: str) -> Setting | None:
    """The setting with the highest mean score among those whose repeats are all done; the first of equal ones."""
    done = [setting for setting in settings if setting.state == "done" and validator in setting.validators]
    return max(done, key=lambda setting: setting.validators[validator], default=None)


def decide(settings: Sequence[Setting], validator: str) -> Decision | None:
    """The chosen setting; None where none is done.

    Args:
        settings: all that were begun.
        validator: whose scores are compared.
    """
    best = highest(settings, validator)
    if best is None:
        return None
    usual = next((each for each in settings if each.default), None)
    if usual is None:
        return Decision(best, best, "it scores highest; which setting is the default is not known")
    if usual.number == best.number:
        return Decision(usual, best, "the default setting scores highest, so it is kept")
    if usual.state != "done" or validator not in usual.validators:
        state = usual.state if usual.state != "done" else f"without a score by {validator}"
        why = (
            f"setting {best.number} scores highest, but the default setting is {state}, so nothing can be compared with"
        )
        return Decision(usual, best, f"{why} it, and it is kept")
    of_default = usual.by_repeat[validator]
    gains = {repeat: score - of_default[repeat] for repeat, score in best.by_repeat[validator].items()}
    gain = f"setting {best.number} scores {fmean(gains.values()):.4g} above the default"
    units = units_of(gains)
    if units is None:
        few = f"{count(len(gains), 'repeat')} cannot show that this is reliable ({FEWEST} at least: --seeds, --pairs)"
        return Decision(usual, best, f"{gain}, but {few}, so the default is kept")
    compared = len(settings) - 1
    p = min(1.0, compared * p_above_zero(gains, units))
    test = f"one-sided paired t over {units.text}, p {p:.2g} after correction for {count(compared, 'setting')}"
    if p > ALPHA:
        return Decision(usual, best, f"{gain}, not reliably for {units.scope} ({test}), so the default is kept")
    score = "target accuracy" if validator == ORACLE else f"{validator}, not in accuracy"
    return Decision(best, best, f"{gain}, reliably for {units.scope} ({test}): a gain in {score}")


def units_of(repeats: Iterable[str]) -> Units | None:
    """Pairs from 6 on, or where too few have several seeds; else seeds within pairs; None where both are too few."""
    pairs = [_pair(repeat) for repeat in repeats]
    different = len(set(pairs))
    seeds_are_enough = len(pairs) - different >= FEWEST - 1
    if different >= PAIRS or (different >= FEWEST and not seeds_are_enough):
        return Units(True, count(different, "pair"), "other pairs like these")
    if not seeds_are_enough:
        return None
    these = "this pair" if different == 1 else "these pairs"
    return Units(False, f"{len(pairs)} seeds of {count(different, 'pair')}", f"other seeds on {these} only")


def p_above_zero(gains: Mapping[str, float], units: Units) -> float:
    """One-sided p of the mean gain over pairs, each of which counts the same: docs/statistics.md, intervals by t."""
    from scipy.stats import t  # takes a second to import

    by_pair: dict[str, list[float]] = {}
    for repeat, gain in gains.items():
        by_pair.setdefault(_pair(repeat), []).append(gain)
    means = [fmean(values) for values in by_pair.values()]
    if units.pairs:
        deviations, freedom = [mean - fmean(means) for mean in means], len(means) - 1
        weight = 1 / len(means)
    else:
        deviations = [gain - fmean(values) for values in by_pair.values() for gain in values]
        freedom = len(gains) - len(by_pair)
        weight = sum(1 / len(values) for values in by_pair.values()) / len(by_pair) ** 2
    error = math.sqrt(weight * math.fsum(deviation**2 for deviation in deviations) / freedom)
    if error == 0:
        return 0.0 if fmean(means) > 0 else 1.0
    return float(t.sf(fmean(means) / error, freedom))


def _pair(repeat: str) -> str:
    """`mnist>mnistm` of `mnist>mnistm seed 0`."""
    return repeat.rpartition(" seed ")[0]
