"""Which label is best by target labels, by how much over the baseline and the second, and how sure that is.

All numbers of one sentence are over the same (pair, seed) keys. Where labels lack keys, a part of the table is taken
that has no holes; labels that lack any of its keys are named and not ranked.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from scale_ray.report.effects.comparisons import ALPHA, against_baseline
from scale_ray.report.effects.resampling import intervals
from scale_ray.report.read.labels import count
from scale_ray.report.tables.uncertainty import FEWEST_KEYS

_MOST_NAMED = 6  # labels in a sentence


def of_scope(scope: str, table: pd.DataFrame, baseline: str) -> str:
    """The paragraph on one group of settings.

    Args:
        scope: what the group is.
        table: accuracies, (pair, seed) x label, percent; NaN where a label lacks a key.
        baseline: the label that others are compared with.
    """
    if len(table.columns) < 2:
        mean = _means(table).iloc[0]
        return f"{scope}: only {table.columns[0]} is done: {mean:.1f} % over {_extent(table)}."
    whole = without_holes(table)
    if len(whole.columns) < 2:  # nothing is in common
        return f"{scope}: no two of {len(table.columns)} have a pair and seed in common yet, so none can be compared."
    ranked = _means(whole).sort_values(ascending=False, kind="stable")
    best, second = map(str, ranked.index[:2])
    opening = f"{scope}: {best} has the highest accuracy by target labels, {ranked[best]:.1f} % on average over "
    opening += _extent(whole)
    if baseline not in table:
        sentences = [f"{opening}. The baseline {baseline} is not done, so there is no gain to state."]
    elif baseline not in whole:
        sentences = [f"{opening}. The baseline {baseline} lacks some of these trainings, so there is no gain to state."]
    elif best == baseline:
        sentences = [f"{opening}. It is the baseline: nothing that was tried is above it on average."]
    else:
        rows = differences(whole, baseline)
        row = pd.Series(rows.loc[best])
        sentences = [f"{opening}, {row['estimate']:.1f} points above the baseline {baseline}."]
        sentences += [_these_pairs(row), _other_pairs(row, len(rows)), *_others_that_differ(rows, best)]
    if second != baseline:
        sentences.append(_to_second(whole, best, second))
    if left := [str(label) for label in table if label not in whole]:
        were = "is not ranked, because it lacks" if len(left) == 1 else "are not ranked, because they lack"
        sentences.append(f"{named(left)} {were} some of these trainings.")
    if len(whole) < len(table):
        sentences.append(
            f"Not used here: {count(len(table) - len(whole), 'further (pair, seed) key')}, which some of the ranked "
            "ones lack. A row of the table of differences uses all keys that it shares with the baseline."
        )
    return " ".join(sentences)


def without_holes(table: pd.DataFrame) -> pd.DataFrame:
    """The keys and labels to compare: of the parts without a hole, one with many trainings, with 2 labels or more.

    The keys that most labels have come first. As many of them are taken as give the most trainings, each with all the
    labels that have these keys.
    """
    held = table.notna().to_numpy()
    order = np.argsort(-held.sum(axis=1), kind="stable")
    complete = np.logical_and.accumulate(held[order])  # row n: which labels have all of the first n + 1 keys
    labels = complete.sum(axis=1)
    trainings = np.where(labels >= 2, labels * np.arange(1, len(order) + 1), 0)
    last = int(trainings.argmax())  # the first of equal ones, which has the most labels
    return table.iloc[np.sort(order[: last + 1]), complete[last].nonzero()[0]]


def differences(whole: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The rows of `against_baseline` on a part without holes, by label."""
    cells = whole.melt(ignore_index=False, var_name="label", value_name="accuracy").reset_index()
    return against_baseline(cells.assign(backbone=""), baseline).set_index("label")


def named(labels: Sequence[str]) -> str:
    """`a, b and c`; of many, the first."""
    shown = list(labels[:_MOST_NAMED])
    if len(labels) > _MOST_NAMED:
        shown.append(f"{len(labels) - _MOST_NAMED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _means(table: pd.DataFrame) -> pd.Series:
    """Mean over pairs of the mean over a pair's seeds, by label."""
    return table.groupby(level="pair").mean().mean()


def _extent(table: pd.DataFrame) -> str:
    """`12 pairs and 3 seeds`, `12 pairs with 1 to 3 seeds each`."""
    of_pairs = table.groupby(level="pair").size()
    seeds = table.index.get_level_values("seed").nunique()
    pairs = count(len(of_pairs), "pair")
    if len(table) == len(of_pairs) * seeds:
        return f"{pairs} and {count(seeds, 'seed')}"
    fewest, most = int(of_pairs.min()), int(of_pairs.max())
    return f"{pairs} with {fewest if fewest == most else f'{fewest} to {most}'} of {seeds} seeds each"


def _these_pairs(row: pd.Series) -> str:
    low, high = row["these_low"], row["these_high"]
    if not pd.isna(low):
        if low == high:
            return "All seeds gave the same gain on these pairs, so there is no spread to make an interval of."
        return f"On these pairs, other seeds would give {_range(low, high)} points (95 %)."
    if "," in row["by_seed"]:
        return f"On these pairs, the seeds gave {row['by_seed']} points; they are too few for an interval."
    return "With one seed there is no interval for other seeds."


def _other_pairs(row: pd.Series, comparisons: int) -> str:
    """What the gain says about other pairs, by the method of its interval and by the verdict of its test."""
    pairs = count(int(row["pairs"]), "pair")
    if pd.isna(row["low"]):
        return f"Whether the gain holds on other pairs, {pairs} cannot show."
    if row["low"] == row["high"]:
        found = "On other pairs: all pairs gave the same gain, so there is no spread to make an interval of"
    elif row["kind"] == "t over pairs":
        found = f"On other pairs: {_range(row['low'], row['high'])} points (95 %, if gains are normally distributed)"
    else:
        found = f"On other pairs: {_range(row['low'], row['high'])} points (95 %, of this comparison alone)"
    corrected = f" after correction for {comparisons} comparisons" if comparisons > 1 else ""
    if row["verdict"] == "differs":
        return f"{found}; it differs from the baseline ({_p(row['p_pairs_holm'])}{corrected})."
    if row["verdict"] == "not shown":
        return f"{found}; that it differs from the baseline is not shown ({_p(row['p_pairs_holm'])}{corrected})."
    if row["pairs"] < FEWEST_KEYS:
        return f"{found}. With fewer than {FEWEST_KEYS} pairs no test can show that it differs."
    return f"{found}. {pairs} are too few to show that it differs: p{corrected} cannot be below {ALPHA:g}."


def _others_that_differ(rows: pd.DataFrame, best: str) -> list[str]:
    """Which labels besides the best are shown to differ on other pairs, the largest difference first."""
    shown = rows[(rows["verdict"] == "differs") & (rows.index != best)]
    shown = shown.sort_values("estimate", ascending=False, kind="stable")
    if shown.empty:
        return []
    texts = [f"{label} ({row['estimate']:+.1f})" for label, row in shown.iterrows()]
    also = "Also" if rows.loc[best, "verdict"] == "differs" else "But"
    return [f"{also} shown to differ from the baseline there: {named(texts)}."]


def _to_second(whole: pd.DataFrame, best: str, second: str) -> str:
    """Whether the second is told apart from the best by other seeds on these pairs."""
    found = intervals((whole[best] - whole[second]).to_frame("gap")).loc["gap"]
    gap = f"The second, {second}, is {found['estimate']:.1f} points below"
    low, high = found["these_low"], found["these_high"]
    if pd.isna(low):
        return f"{gap}."
    if low == high:
        return f"{gap}, with all seeds alike."
    if low > 0:
        return f"{gap}; with other seeds on these pairs, {_range(low, high)} points (95 %)."
    return f"{gap}; with other seeds on these pairs, their order may be the other way round."


def _range(low: float, high: float) -> str:
    """`1.2 to 3.4`, or the end that there is."""
    if not math.isfinite(low):
        return "no bound" if not math.isfinite(high) else f"at most {high:.1f}"
    if not math.isfinite(high):
        return f"at least {low:.1f}"
    short = f"{low:.1f} to {high:.1f}"
    return short if f"{low:.1f}" != f"{high:.1f}" else f"{low:.2f} to {high:.2f}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.01 else f"p = {value:.2f}"
