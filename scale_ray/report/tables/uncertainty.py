"""How certain an entry of a grid is: the interval of its mean, and whether it is significantly above another."""

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from scipy import stats

from scale_ray.report.tables.grid import Key

ALPHA = 0.05
FEWEST_KEYS = 6  # the smallest two-sided p of n signs is 2 / 2 ** n: 0.0625 for 5


def half_width_over_seeds(
    values: Mapping[Key, float], weights: Mapping[Key, float], level: float = 0.95
) -> float | None:
    """Half the width of the interval of a weighted sum, for the same pairs and other seeds.

    It is t times the standard deviation of seeds within pairs (pooled) times the root of the summed squared weights.
    For the mean over pairs of the means over a pair's seeds, it gives `these_low` and `these_high` of
    `resampling.intervals`.

    Args:
        values: (pair, seed) -> percent.
        weights: (pair, seed) -> weight, for the same keys.
        level: nominal coverage.

    Returns:
        Percentage points, or None if no pair has two seeds.
    """
    of_pairs: dict[str, list[float]] = {}
    for (pair, _), value in values.items():
        of_pairs.setdefault(pair, []).append(value)
    freedom = len(values) - len(of_pairs)
    if freedom == 0:
        return None
    means = {pair: math.fsum(share) / len(share) for pair, share in of_pairs.items()}
    squares = math.fsum((value - means[pair]) ** 2 for pair, share in of_pairs.items() for value in share)
    return _t(freedom, level) * math.sqrt(squares / freedom * math.fsum(weight**2 for weight in weights.values()))


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
