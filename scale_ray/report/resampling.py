"""Intervals for the mean of per-(pair, seed) figures: seeds nested in domain pairs.

Everything that `effects_tables` estimates is a weighted sum of combinations' accuracies, so it has one value per
(pair, seed) key, and its estimate is the mean over pairs of the mean over a pair's seeds. The combinations of a key
share data, first weights and batches: the sum is taken before anything is resampled, so that a draw holds the same
keys for every combination and what they share cancels.

docs/statistics.md has the formulas, their sources, and how often each interval covered the truth in simulations.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

DRAWS = 4000
SEED = 20250101  # the same store gives the same report
FEWEST_PAIRS = 6  # for studentised draws: under it many draws repeat one pair, and intervals grow without bound
_NOTHING = 1e-9  # points: a spread below it is rounding
_CHUNK = 2_000_000  # numbers drawn at a time: bounds memory

Floats = NDArray[np.float64]


def intervals(values: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The mean of every column with three intervals that answer different questions.

    Args:
        values: percentage points; index (pair, seed), unique; one column an estimate; no holes.
        level: nominal coverage.

    Returns:
        One row a column of `values`:
        estimate: mean over pairs of the means over a pair's seeds.
        low, high: the headline, for other pairs like these and other seeds. `kind` says how: `studentised bootstrap`
            (pairs, then seeds within pairs) from 6 pairs on, `t over pairs` for 2 to 5, NaN for one pair.
        bootstrap_low, bootstrap_high: percentiles of the same draws, NaN for one pair. Too narrow with few pairs:
            meant for 95 %, with 3 pairs they hold the truth in some 75 to 90 %.
        these_low, these_high: for these very pairs and other seeds: t, from the pooled spread within pairs; NaN where
            no pair has two seeds.
        pairs, keys: how many.
    """
    if not values.index.is_unique or values.empty or values.isna().any(axis=None):
        raise ValueError("values need one number for every (pair, seed) key and column: drop or fill what has none")
    tail = (1 - level) / 2
    data, counts = _nested(values)
    pair_means = np.nanmean(data, axis=1)
    pairs, estimate = len(counts), pair_means.mean(axis=0)
    low = high = bootstrap_low = bootstrap_high = np.full(estimate.shape, np.nan)
    kind = "one pair"
    if pairs > 1:
        means, errors = _draws(data, counts)
        bootstrap_low, bootstrap_high = np.quantile(means, [tail, 1 - tail], axis=0)
        error = pair_means.std(axis=0, ddof=1) / np.sqrt(pairs)
        if pairs >= FEWEST_PAIRS:
            kind = "studentised bootstrap"
            upper, lower = _studentised(means - estimate, errors, tail)
        else:
            kind = "t over pairs"
            upper = stats.t.ppf(1 - tail, pairs - 1)
            lower = -upper
        low, high = (estimate - np.where(error > _NOTHING, side, 0.0) * error for side in (upper, lower))
    spread, freedom = spread_within(values)
    half = stats.t.ppf(1 - tail, freedom) * spread * np.sqrt((1 / counts).sum()) / pairs
    columns = {
        "estimate": estimate, "low": low, "high": high, "kind": kind,
        "bootstrap_low": bootstrap_low, "bootstrap_high": bootstrap_high,
        "these_low": estimate - half, "these_high": estimate + half, "pairs": pairs, "keys": len(values),
    }  # fmt: skip
    return pd.DataFrame(columns, index=values.columns)


def spread_within(values: pd.DataFrame) -> tuple[Floats, int]:
    """Pooled sample standard deviation of seeds within pairs, by column, and its degrees of freedom (NaN at 0)."""
    grouped = values.groupby(level="pair")
    freedom = len(values) - grouped.ngroups
    squares = ((values - grouped.transform("mean")) ** 2).sum().to_numpy(dtype=float)
    return np.sqrt(squares / freedom) if freedom else np.full(squares.shape, np.nan), freedom


def _nested(values: pd.DataFrame) -> tuple[Floats, NDArray[np.int64]]:
    """(pairs, most seeds of a pair, columns), NaN behind a pair's last seed; and the pairs' numbers of seeds."""
    parts = [part.to_numpy(dtype=float) for _, part in values.sort_index().groupby(level="pair")]
    counts = np.array([len(part) for part in parts])
    data = np.full((len(parts), counts.max(), values.shape[1]), np.nan)
    for place, part in zip(data, parts, strict=True):
        place[: len(part)] = part
    return data, counts


def _draws(data: Floats, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Means of DRAWS samples of pairs, then of as many seeds within each as it has, and their errors over pairs."""
    rng = np.random.default_rng(SEED)
    pairs, seeds, columns = data.shape
    size = max(1, _CHUNK // data.size)
    means, errors = [], []
    for start in range(0, DRAWS, size):
        number = min(size, DRAWS - start)
        pair = rng.integers(pairs, size=(number, pairs))
        count = counts[pair][..., None]
        seed = (rng.random((number, pairs, seeds)) * count).astype(np.int64)
        weight = (np.arange(seeds) < count) / count
        drawn = np.einsum("dps,dpsc->dpc", weight, data[pair[..., None], seed])
        means.append(drawn.mean(axis=1))
        errors.append(drawn.std(axis=1, ddof=1) / np.sqrt(pairs))
    return np.concatenate(means), np.concatenate(errors)


def _studentised(deviations: Floats, errors: Floats, tail: float) -> tuple[Floats, Floats]:
    """Upper and lower quantile of deviation / error. A draw without spread is infinitely far, or 0 if it is not off."""
    flat = np.where(np.abs(deviations) > _NOTHING, np.copysign(np.inf, deviations), 0.0)
    ratio = np.divide(deviations, errors, out=flat, where=errors > _NOTHING)
    lower, upper = np.quantile(ratio, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return upper, lower
