"""How certain an entry of a grid is: the interval of its mean, and whether it is significantly above another."""

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from scipy import stats

from scale_ray.report.tables.grid import Key

ALPHA = 0.05
FEWEST_SEEDS = 3  # with two, t is 12.7: the two values say more than an interval
_NOTHING = 1e-11  # of 1: a spread below it is rounding
FEWEST_KEYS = 6  # the smallest two-sided p of n signs is 2 / 2 ** n: 0.0625 for 5


def interval_over_seeds(
    values: Mapping[Key, float], weights: Mapping[Key, float], level: float = 0.95
) -> tuple[float, float] | None:
    """The interval of a weighted mean of accuracies, for the same pairs and other seeds.

    It is symmetric on the scale of log odds: logit(m) +- t s / (m (1 - m)), where m is the mean as a fraction and s its
    standard error: the standard deviation of seeds within pairs (pooled) times the root of the summed squared weights.
    So both ends are within 0 and 100 %.

    Args:
        values: (pair, seed) -> percent.
        weights: (pair, seed) -> weight, for the same keys, with the sum 1.
        level: nominal coverage.

    Returns:
        Percent; None with fewer than FEWEST_SEEDS seeds, or with less than two of them to spare for the spread.
    """
    of_pairs: dict[str, list[float]] = {}
    for (pair, _), value in values.items():
        of_pairs.setdefault(pair, []).append(value)
    freedom = len(values) - len(of_pairs)
    if len({seed for _, seed in values}) < FEWEST_SEEDS or freedom < FEWEST_SEEDS - 1:
        return None
    means = {pair: math.fsum(share) / len(share) for pair, share in of_pairs.items()}
    squares = math.fsum((value - means[pair]) ** 2 for pair, share in of_pairs.items() for value in share)
    error = math.sqrt(squares / freedom * math.fsum(weight**2 for weight in weights.values())) / 100
    mean = math.fsum(weight * values[key] for key, weight in weights.items()) / 100
    if error < _NOTHING or not 0 < mean < 1:
        return 100 * mean, 100 * mean
    odds, half = math.log(mean / (1 - mean)), _t(freedom, level) * error / (mean * (1 - mean))
    return _percent(odds - half), _percent(odds + half)


def _percent(log_odds: float) -> float:
    # Of the negative absolute value: the exponential of a large number overflows.
    small = math.exp(-abs(log_odds))
    return 100 * (1 if log_odds > 0 else small) / (1 + small)


@cache
def _t(freedom: int, level: float) -> float:
    return float(stats.t.ppf((1 + level) / 2, freedom))


def significantly_above(best: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `best` is significantly above `other`; both have the same keys in the same order.

    The test is a two-sided sign-flip permutation test of the mean difference at ALPHA. It is exact for up to 10
    differences and uses 1024 random flips with a fixed seed beyond. It is never significant under FEWEST_KEYS.
    """
    differences = np.subtract(best, other)
    if len(differences) < FEWEST_KEYS or differences.mean() <= 0:
        return False
    flips = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=1024, rng=0)
    return bool(flips.pvalue <= ALPHA)
