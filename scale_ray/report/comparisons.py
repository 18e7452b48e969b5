"""Every combination and method against a baseline, key by key: differences, exact tests, and how many seeds it takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from scale_ray.report.aggregate import by_combination, natural
from scale_ray.report.contrasts import by_key
from scale_ray.report.resampling import SEED, intervals, spread_within

ALPHA = 0.05
FLIPS = 9999  # all 2^n sign flips where they are no more than these, n <= 13; else so many at random
HALF_WIDTH = 1.0  # percentage points

COLUMNS = [
    "backbone", "label", "baseline", "estimate", "low", "high", "kind", "bootstrap_low", "bootstrap_high",
    "these_low", "these_high", "pairs", "keys", "left_out", "sd_keys", "sd_seeds",
    "p_pairs", "p_pairs_holm", "p_pairs_smallest", "p_keys", "p_keys_holm", "p_keys_smallest", "verdict",
    "seeds_needed", "seeds_needed_low", "seeds_needed_high", "over_pairs",
]  # fmt: skip


@dataclass(frozen=True)
class SignFlip:
    """A two-sided sign-flip permutation test of mean 0."""

    p: float
    smallest: float  # the least p that so few observations can give
    exact: bool


def sign_flip(differences: pd.Series) -> SignFlip:
    """Is the mean 0, if each difference could as well have had the other sign?

    Exact over all 2^n sign flips for n <= 13, otherwise over 9,999 drawn with a fixed seed (scipy's
    `permutation_test`; p = twice the smaller tail). With n observations p is never under 2 / 2^n: 0.25 for n = 3.
    """
    values, n = differences.to_numpy(dtype=float), len(differences)
    exact = 2**n <= FLIPS
    smallest = 2.0 / 2**n if exact else 2.0 / (FLIPS + 1)
    if n < 2:
        return SignFlip(1.0, 1.0, True)
    test = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=FLIPS, vectorized=True, rng=SEED
    )
    return SignFlip(float(test.pvalue), smallest, exact)


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds per pair for an interval of a half-width; infinite where there is no spread to go by."""

    seeds: float  # at the observed spread
    low: float  # at the ends of the 95 % interval of that spread
    high: float
    spread: float  # percentage points: sample standard deviation of seeds within pairs, pooled
    over_pairs: float  # half-width that no number of seeds beats where other pairs like these are meant; NaN for 1 pair


def seeds_needed(differences: pd.Series, half_width: float, level: float = 0.95) -> SeedsNeeded:
    """How many seeds per pair give a mean over these pairs an interval of +- `half_width`.

    The least S >= 2 with t(1 - (1 - level) / 2, P (S - 1)) s / sqrt(P S) <= half_width, P pairs, s the pooled spread
    of seeds within pairs. The spread itself is known roughly: `low` and `high` are S at the ends of its chi-squared
    interval. An interval as wide as its expectation comes out wider about every second time.

    Args:
        differences: percentage points; index (pair, seed).
        half_width: percentage points, > 0.
    """
    if not half_width > 0:
        raise ValueError(f"half-width {half_width}: give percentage points above 0")
    table = differences.to_frame("difference")
    means = differences.groupby(level="pair").mean()
    pairs = len(means)
    (spread,), freedom = spread_within(table)
    over_pairs = np.nan
    if pairs > 1:
        within = 0.0 if freedom == 0 else spread**2 * (1 / differences.groupby(level="pair").size()).mean()
        between = max(0.0, means.var() - within)
        over_pairs = stats.t.ppf((1 + level) / 2, pairs - 1) * np.sqrt(between / pairs)
    if freedom == 0:
        return SeedsNeeded(np.inf, np.inf, np.inf, np.nan, over_pairs)
    ends = spread * np.sqrt(freedom / stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], freedom))
    seeds, low, high = (_seeds(value, pairs, half_width, level) for value in (spread, *ends))
    return SeedsNeeded(seeds, low, high, spread, over_pairs)


def _seeds(spread: float, pairs: int, half_width: float, level: float) -> int:
    def wide(seeds: int) -> bool:
        quantile = stats.t.ppf((1 + level) / 2, pairs * (seeds - 1))
        return bool(quantile * spread / np.sqrt(pairs * seeds) > half_width)

    # The normal quantile is the least that t can be, so this many is never too many.
    seeds = max(2, int((stats.norm.ppf((1 + level) / 2) * spread / half_width) ** 2 / pairs))
    while wide(seeds):
        seeds += 1
    return seeds


def against_baseline(cells: pd.DataFrame, baseline: str = "ce", half_width: float = HALF_WIDTH) -> pd.DataFrame:
    """Every label minus the baseline, paired by (pair, seed): a row uses the keys that both have.

    The test at pair level is the headline: keys of one pair share images and are no independent evidence about pairs,
    so each pair counts once, with its mean over seeds. The test over keys asks less: no difference on any of these
    very pairs. Holm's correction is over the labels of one backbone. `differs` needs a Holm p at pair level of at
    most 0.05; where no data with so few pairs could give that, the verdict says so instead.

    Args:
        cells: columns label, backbone, pair, seed, accuracy (percent). A backbone without the baseline gives no row.
        half_width: what `seeds_needed` is asked for, percentage points.

    Returns:
        backbone, label, baseline; the columns of `intervals` (percentage points);
        sd_keys, sd_seeds: sample standard deviation over keys, and of seeds within pairs (pooled);
        left_out: keys that only one of the two has;
        p_pairs, p_pairs_holm; p_pairs_smallest: the least p that so many pairs can give; p_keys, p_keys_holm,
        p_keys_smallest: the same over keys; verdict: `differs`, `not shown` or `n too small`;
        seeds_needed, seeds_needed_low, seeds_needed_high, over_pairs: see `SeedsNeeded`.

    Raises:
        ReportError: a key twice.
    """
    parts = []
    for backbone in sorted(cells["backbone"].unique(), key=natural):
        table = by_key(cells[cells["backbone"] == backbone])
        rows = []
        for label in sorted(set(table) - {baseline}, key=by_combination) if baseline in table else []:
            shared = (table[label] - table[baseline]).dropna()
            left_out = int(table[[label, baseline]].notna().any(axis=1).sum()) - len(shared)
            if len(shared):
                rows.append({"backbone": backbone, "label": label, "baseline": baseline, "left_out": left_out})
                rows[-1] |= _paired(shared, half_width)
        if rows:
            parts.append(_corrected(pd.DataFrame(rows)))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _paired(shared: pd.Series, half_width: float) -> dict[str, Any]:
    """One row of `against_baseline` but for Holm and verdict."""
    over_pairs, over_keys = sign_flip(shared.groupby(level="pair").mean()), sign_flip(shared)
    needed = seeds_needed(shared, half_width)
    return intervals(shared.to_frame()).iloc[0].to_dict() | {
        "sd_keys": shared.std(),
        "sd_seeds": needed.spread,
        "p_pairs": over_pairs.p,
        "p_pairs_smallest": over_pairs.smallest,
        "p_keys": over_keys.p,
        "p_keys_smallest": over_keys.smallest,
        "seeds_needed": needed.seeds,
        "seeds_needed_low": needed.low,
        "seeds_needed_high": needed.high,
        "over_pairs": needed.over_pairs,
    }


def _corrected(rows: pd.DataFrame) -> pd.DataFrame:
    """Holm within the family that these rows are, and what may be said."""
    for level in ("pairs", "keys"):
        rows[f"p_{level}_holm"] = multipletests(rows[f"p_{level}"], method="holm")[1]
    # What Holm leaves where every row is at its least: no outcome with so few pairs gives less.
    hopeless = multipletests(rows["p_pairs_smallest"], method="holm")[1] > ALPHA
    rows["verdict"] = np.where(rows["p_pairs_holm"] <= ALPHA, "differs", np.where(hopeless, "n too small", "not shown"))
    return rows[COLUMNS]
