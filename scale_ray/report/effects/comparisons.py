"""Differences of every combination and method from a baseline, paired by key, with tests and seeds needed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from scale_ray.report.effects.contrasts import by_key
from scale_ray.report.effects.resampling import SEED, intervals, nested, same_keys, spread_within
from scale_ray.report.read.labels import by_combination, natural

ALPHA = 0.05
MOST_EXACT = 13  # up to so many observations, all 2^n sign flips are enumerated
FLIPS = 1999  # random flips beyond: p is at least 0.001, which Holm's correction can carry for 50 comparisons
HALF_WIDTH = 1.0  # percentage points

COLUMNS = [
    "backbone", "label", "baseline", "estimate", "low", "high", "kind", "bootstrap_low", "bootstrap_high",
    "these_low", "these_high", "by_pair", "by_seed", "verdict_these_pairs", "pairs", "keys", "left_out",
    "sd_keys", "sd_seeds",
    "p_pairs", "p_pairs_holm", "p_pairs_smallest", "p_keys", "p_keys_holm", "p_keys_smallest", "verdict",
    "seeds_needed", "seeds_needed_low", "seeds_needed_high", "over_pairs",
]  # fmt: skip


def sign_flip(differences: pd.DataFrame) -> pd.DataFrame:
    """Two-sided sign-flip permutation test, by column, that the mean is 0.

    Exact over all 2^n sign flips for n <= 13, otherwise over 1,999 flips drawn with a fixed seed. p is twice the
    smaller tail of scipy's `permutation_test`. NaN values are left out.

    Returns:
        One row per column: p, and `smallest`, the smallest p that n observations can give: 2 / 2^n, 0.25 for n = 3.
    """
    found = []
    for part in same_keys(differences):
        n = len(part)
        flips = 2**n if n <= MOST_EXACT else FLIPS
        p = np.ones(part.shape[1])
        if n > 1:
            p = stats.permutation_test(
                (part.to_numpy(),), np.mean, permutation_type="samples", n_resamples=flips, vectorized=True, rng=SEED
            ).pvalue
        smallest = 2 / flips if n <= MOST_EXACT else 2 / (flips + 1)
        found.append(pd.DataFrame({"p": p, "smallest": smallest}, index=part.columns))
    return pd.concat(found)


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjusted p-values (A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6, 1979).

    Not statsmodels' `multipletests`: it runs the garbage collector at every call, which takes a tenth of a second.
    """
    ordered = p.sort_values()
    stepped = ordered * np.arange(len(p), 0, -1)
    return stepped.cummax().clip(upper=1.0).reindex(p.index)


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds per pair for an interval of a given half-width; infinite if the spread of seeds is unknown."""

    seeds: float  # at the observed spread
    low: float  # at the ends of the 95 % interval of that spread
    high: float
    spread: float  # percentage points: sample standard deviation of seeds within pairs, pooled
    over_pairs: float  # half-width for other pairs like these with unlimited seeds; NaN for one pair


def seeds_needed(differences: pd.Series, half_width: float, level: float = 0.95) -> SeedsNeeded:
    """How many seeds per pair give the mean over these pairs an interval of +- `half_width`.

    The result is the smallest S >= 2 with t(1 - (1 - level) / 2, P (S - 1)) s / sqrt(P S) <= half_width, for P pairs
    and the pooled standard deviation s of seeds within pairs. s is itself an estimate: `low` and `high` are S at the
    ends of its chi-squared interval. An interval planned this way turns out wider about every second time.

    Args:
        differences: percentage points; index (pair, seed).
        half_width: percentage points, > 0.
        level: nominal coverage.
    """
    if not half_width > 0:
        raise ValueError(f"half-width {half_width}: give percentage points above 0")
    data, counts = nested(differences.dropna().sort_index().to_frame())
    (spread,), freedom = spread_within(data, counts)
    pairs, over_pairs = len(counts), np.nan
    if pairs > 1:
        within = spread**2 * (1 / counts).mean() if freedom else 0.0
        between = max(0.0, np.nanmean(data, axis=1).var(ddof=1) - within)
        over_pairs = float(stats.t.ppf((1 + level) / 2, pairs - 1) * np.sqrt(between / pairs))
    if not freedom:
        return SeedsNeeded(np.inf, np.inf, np.inf, np.nan, over_pairs)
    ends = spread * np.sqrt(freedom / stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], freedom))
    seeds, low, high = (_seeds(value, pairs, half_width, level) for value in (spread, *ends))
    return SeedsNeeded(seeds, low, high, spread, over_pairs)


def _seeds(spread: float, pairs: int, half_width: float, level: float) -> int:
    def wide(seeds: int) -> bool:
        quantile = stats.t.ppf((1 + level) / 2, pairs * (seeds - 1))
        return bool(quantile * spread / np.sqrt(pairs * seeds) > half_width)

    # The normal quantile is a lower bound of t, so this start never exceeds the result.
    seeds = max(2, int((stats.norm.ppf((1 + level) / 2) * spread / half_width) ** 2 / pairs))
    while wide(seeds):
        seeds += 1
    return seeds


def against_baseline(cells: pd.DataFrame, baseline: str = "ce", half_width: float = HALF_WIDTH) -> pd.DataFrame:
    """Every label minus the baseline, paired by (pair, seed); a row uses the keys that both have.

    The headline test is over pairs: keys of one pair share images and are not independent evidence about pairs, so
    each pair counts once, with its mean over seeds. The test over keys has a weaker null hypothesis: no difference on
    any of these pairs. Holm's correction is over the labels of one backbone. The verdict `differs` needs a Holm p over
    pairs of at most 0.05. The verdict is `n too small` if no data with so few pairs could give that.

    Args:
        cells: columns label, backbone, pair, seed, accuracy (percent). A backbone without the baseline has no row.
        baseline: a label.
        half_width: of the interval for `seeds_needed`, percentage points.

    Returns:
        One row per backbone and label:
        the columns of `intervals`, percentage points.
        sd_keys, sd_seeds: sample standard deviation over keys, and of seeds within pairs (pooled).
        left_out: number of keys that only one of the two has.
        p_pairs, p_pairs_holm: p over pairs; p_pairs_smallest: the smallest p that so many pairs can give.
        p_keys, p_keys_holm, p_keys_smallest: the same over keys.
        verdict: `differs`, `not shown` or `n too small`, for other pairs like these.
        verdict_these_pairs: for these very pairs and other seeds, by whether their interval is above or below 0:
            `higher`, `lower`, `not shown`, or `n too small` where there is no interval.
        seeds_needed, seeds_needed_low, seeds_needed_high, over_pairs: see `SeedsNeeded`.

    Raises:
        ReportError: a key occurs twice.
    """
    parts = []
    for backbone in sorted(cells["backbone"].unique(), key=natural):
        table = by_key(cells[cells["backbone"] == backbone])
        labels = sorted(set(map(str, table)) - {baseline}, key=by_combination)
        if baseline in table and labels:
            held = table[labels].notna().to_numpy() | table[[baseline]].notna().to_numpy()
            shared = table[labels].sub(table[baseline], axis=0)
            left_out = held.sum(axis=0) - shared.notna().sum()
            shared = shared.dropna(axis=1, how="all")
            if len(shared.columns):
                rows = _compared(shared, half_width).assign(backbone=backbone, baseline=baseline, left_out=left_out)
                parts.append(rows.reset_index()[COLUMNS])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _compared(shared: pd.DataFrame, half_width: float) -> pd.DataFrame:
    """Rows of `against_baseline` by label, from differences by key."""
    needed = {label: seeds_needed(shared[label], half_width) for label in shared}
    rows = intervals(shared)
    rows["sd_keys"] = shared.std()
    rows["sd_seeds"] = pd.Series({label: need.spread for label, need in needed.items()})
    for level, observed in (("pairs", shared.groupby(level="pair").mean()), ("keys", shared)):
        test = sign_flip(observed)
        rows[f"p_{level}"], rows[f"p_{level}_smallest"] = test["p"], test["smallest"]
        rows[f"p_{level}_holm"] = holm(test["p"])
    # Holm's p if every row had its smallest p: no outcome with so few pairs gives less.
    hopeless = holm(rows["p_pairs_smallest"]) > ALPHA
    rows["verdict"] = np.where(rows["p_pairs_holm"] <= ALPHA, "differs", np.where(hopeless, "n too small", "not shown"))
    rows["verdict_these_pairs"] = np.select(
        [rows["these_low"].isna(), rows["these_low"] > 0, rows["these_high"] < 0],
        ["n too small", "higher", "lower"],
        "not shown",
    )
    for name, field in (("", "seeds"), ("_low", "low"), ("_high", "high")):
        rows[f"seeds_needed{name}"] = pd.Series({label: getattr(need, field) for label, need in needed.items()})
    rows["over_pairs"] = pd.Series({label: need.over_pairs for label, need in needed.items()})
    return rows.rename_axis("label")
