"""Every combination and method against a baseline, key by key: differences, exact tests, seeds needed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from scale_ray.report.aggregate import by_combination, natural
from scale_ray.report.contrasts import by_key
from scale_ray.report.resampling import SEED, intervals, nested, same_keys, spread_within

ALPHA = 0.05
MOST_EXACT = 13  # observations of which all 2^n sign flips are tried
FLIPS = 1999  # at random beyond: p is never under 0.001, which leaves Holm room for 50 comparisons
HALF_WIDTH = 1.0  # percentage points

COLUMNS = [
    "backbone", "label", "baseline", "estimate", "low", "high", "kind", "bootstrap_low", "bootstrap_high",
    "these_low", "these_high", "pairs", "keys", "left_out", "sd_keys", "sd_seeds",
    "p_pairs", "p_pairs_holm", "p_pairs_smallest", "p_keys", "p_keys_holm", "p_keys_smallest", "verdict",
    "seeds_needed", "seeds_needed_low", "seeds_needed_high", "over_pairs",
]  # fmt: skip


def sign_flip(differences: pd.DataFrame) -> pd.DataFrame:
    """Is a column's mean 0, if each of its numbers could as well have had the other sign? Two-sided.

    Exact over all 2^n sign flips for n <= 13, else over 1,999 drawn with a fixed seed: scipy's `permutation_test`,
    twice the smaller tail. NaN is no observation.

    Returns:
        One row a column: p; smallest: the least p that n observations can give, 2 / 2^n, so 0.25 for n = 3.
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

    Own lines: statsmodels' `multipletests` collects garbage at every call, a tenth of a second each.
    """
    ordered = p.sort_values()
    stepped = ordered * np.arange(len(p), 0, -1)
    return stepped.cummax().clip(upper=1.0).reindex(p.index)


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
    # What Holm leaves where every row is at its least: no outcome with so few pairs gives less.
    hopeless = holm(rows["p_pairs_smallest"]) > ALPHA
    rows["verdict"] = np.where(rows["p_pairs_holm"] <= ALPHA, "differs", np.where(hopeless, "n too small", "not shown"))
    for name, field in (("", "seeds"), ("_low", "low"), ("_high", "high")):
        rows[f"seeds_needed{name}"] = pd.Series({label: getattr(need, field) for label, need in needed.items()})
    rows["over_pairs"] = pd.Series({label: need.over_pairs for label, need in needed.items()})
    return rows.rename_axis("label")
