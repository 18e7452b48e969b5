"""Intervals for the mean of values per (pair, seed): seeds nested in domain pairs.

Every estimate is a weighted sum of combinations' accuracies, so it has one value per (pair, seed) key. The estimate is
the mean over pairs of the mean over a pair's seeds. The combinations of a key share data, initial weights and batches.
The sum is therefore taken before anything is resampled: a draw has the same keys for every combination, and what the
combinations share cancels.

docs/statistics.md has the formulas, their sources, and how often each interval covered the truth in simulations.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

DRAWS = 4000
SEED = 20250101  # the same store gives the same report
FEWEST_PAIRS = 6  # for studentised draws: with fewer, many draws repeat one pair and intervals grow without bound
FEWEST_UNITS = 3  # pairs or seeds: of two, the values themselves say more than an interval by t = 12.7
_NOTHING = 1e-9  # percentage points: a spread below it is rounding
_CHUNK = 2_000_000  # numbers drawn at a time, to bound memory

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def intervals(values: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The mean of every column with three intervals that answer different questions.

    Args:
        values: percentage points; unique index (pair, seed); one column per estimate, NaN where it lacks a key.
        level: nominal coverage.

    Returns:
        One row per column of `values` that has any number:
        estimate: mean over pairs of the means over a pair's seeds.
        low, high: the headline interval, for other pairs like these and other seeds. `kind` is its method:
            `studentised bootstrap` (pairs, then seeds within pairs) from 6 pairs on, `t over pairs` for 3 to 5; NaN
            for `one pair` and `two pairs`.
        bootstrap_low, bootstrap_high: percentiles of the same draws, NaN for one pair. Too narrow with few pairs: at
            a nominal 95 %, with 3 pairs they cover the truth in 72 to 94 % of studies.
        these_low, these_high: t interval for the same pairs and other seeds, from the pooled standard deviation
            within pairs; NaN with fewer than three seeds, or fewer than two degrees of freedom.
        by_pair, by_seed: where fewer than three pairs (seeds) give no interval, their values as a text: `1.20, 3.40`.
            A seed that lacks pairs says so, as its value is not comparable: `1.20 (1 of 6 pairs), 3.40`.
        pairs, keys: their numbers.
    """
    parts = [_intervals(part, (1 - level) / 2) for part in same_keys(values)]
    if not parts:
        raise ValueError("no value to give an interval to")
    found = pd.concat(parts)
    return found.loc[[column for column in values if column in found.index]]


def same_keys(values: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Split `values` into parts without NaN: columns that have the same keys. Columns without any key are dropped."""
    if not values.index.is_unique:
        raise ValueError("values need unique (pair, seed) keys")
    patterns: dict[bytes, list[object]] = {}
    held = values.notna()
    for column in values:
        patterns.setdefault(held[column].to_numpy().tobytes(), []).append(column)
    for columns in patterns.values():
        part = values.loc[held[columns[0]], columns].sort_index()
        if len(part):
            yield part


def nested(values: pd.DataFrame) -> tuple[Floats, Counts]:
    """The values as an array (pairs, largest number of seeds, columns), padded with NaN, and each pair's seed count."""
    pair = pd.factorize(values.index.get_level_values("pair"))[0]
    counts = np.bincount(pair)
    seed = values.groupby(pair).cumcount().to_numpy()
    data = np.full((len(counts), counts.max(), values.shape[1]), np.nan)
    data[pair, seed] = values.to_numpy(dtype=float)
    return data, counts


def spread_within(data: Floats, counts: Counts) -> tuple[Floats, int]:
    """Pooled sample standard deviation of seeds within pairs by column (NaN at 0 degrees of freedom), and those."""
    freedom = int((counts - 1).sum())
    squares = np.nansum((data - np.nanmean(data, axis=1, keepdims=True)) ** 2, axis=(0, 1))
    return np.sqrt(squares / freedom) if freedom else np.full(squares.shape, np.nan), freedom


def _intervals(values: pd.DataFrame, tail: float) -> pd.DataFrame:
    data, counts = nested(values)
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
            lower, upper = _studentised(means - estimate, errors, tail)
        else:
            kind = "t over pairs"
            upper = np.full(estimate.shape, stats.t.ppf(1 - tail, pairs - 1))
            lower = -upper
        low, high = (estimate - np.where(error > _NOTHING, side, 0.0) * error for side in (upper, lower))
    if 1 < pairs < FEWEST_UNITS:
        kind, low, high = "two pairs", np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
    spread, freedom = spread_within(data, counts)
    seeds = values.index.get_level_values("seed").nunique()
    known = seeds >= FEWEST_UNITS and freedom >= FEWEST_UNITS - 1
    half = stats.t.ppf(1 - tail, freedom) * spread * np.sqrt((1 / counts).sum()) / pairs
    half = np.where(spread > _NOTHING, half, 0.0) if known else np.nan * estimate
    of_seeds = values.groupby(level="seed")
    by_seed = of_seeds.mean().to_numpy(dtype=float)
    lacks = [f" ({size} of {pairs} pairs)" * (size < pairs) for size in of_seeds.size()]
    columns = {
        "estimate": estimate, "low": low, "high": high, "kind": kind,
        "bootstrap_low": bootstrap_low, "bootstrap_high": bootstrap_high,
        "these_low": estimate - half, "these_high": estimate + half,
        "by_pair": _texts(pair_means) if pairs < FEWEST_UNITS else "",
        "by_seed": "" if known else _texts(by_seed, lacks),
        "pairs": pairs, "keys": len(values),
    }  # fmt: skip
    return pd.DataFrame(columns, index=values.columns)


def _texts(values: Floats, remarks: Sequence[str] | None = None) -> list[str]:
    """The values (units, columns) of every column as a text, each followed by the remark on its unit."""
    remarks = remarks or [""] * len(values)
    return [
        ", ".join(f"{value:.2f}{remark}" for value, remark in zip(column, remarks, strict=True)) for column in values.T
    ]


def _draws(data: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """Means of DRAWS bootstrap samples and their standard errors over pairs.

    A draw samples pairs with replacement, then as many seeds within each drawn pair as it has.
    """
    rng = np.random.default_rng(SEED)
    pairs, seeds, _ = data.shape
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


def _studentised(deviations: Floats, errors: Floats, tail: float) -> Floats:
    """Both quantiles of deviation / error. The ratio of a draw without spread is infinite, or 0 without deviation."""
    flat = np.where(np.abs(deviations) > _NOTHING, np.copysign(np.inf, deviations), 0.0)
    ratio = np.divide(deviations, errors, out=flat, where=errors > _NOTHING)
    return np.quantile(ratio, [tail, 1 - tail], axis=0, method="inverted_cdf")
