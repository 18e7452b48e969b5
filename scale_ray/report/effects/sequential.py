"""Comparisons that are looked at several times: which of them are decided, with error rates that hold all the same.

A study that gives more seeds to what is not decided looks at its own results and may stop at any of K looks. Each
interval therefore has the level 1 - 0.05 / (K C) for C comparisons: by Bonferroni, the probability that any interval of
any look misses its true value is at most 5 %, whatever the rule by which the study stops. (Group-sequential bounds of
Pocock's kind, Biometrika 64 (2), 1977, with the union bound in place of the joint distribution, which costs some
percent of width for up to six looks and needs no assumption on how looks depend on each other.)
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from scale_ray.report.effects.contrasts import by_key
from scale_ray.report.effects.measured import tidy
from scale_ray.report.effects.resampling import nested, spread_within
from scale_ray.report.read.labels import by_combination, natural
from scale_ray.study import Until

ERROR = 0.05  # over all comparisons and looks

Verdict = Literal["higher", "lower", "close", "undecided"]


class Decision(NamedTuple):
    """What is known of an approach against the baseline, on these pairs and for other seeds.

    Attributes:
        backbone, label, baseline: as tables of effects name them.
        estimate, low, high: percentage points; low and high are NaN where there is no interval yet.
        seeds: the smallest number of seeds that a pair has of both.
        verdict: `higher` or `lower` than the baseline; `close`: the interval is at most +- `Until.half_width`; else
            `undecided`.
        open: whether more seeds may decide it.
    """

    backbone: str
    label: str
    baseline: str
    estimate: float
    low: float
    high: float
    seeds: int
    verdict: Verdict
    open: bool

    def told(self, until: Until) -> str:
        """In one line."""
        interval = "" if math.isnan(self.low) else f" [{self.low:+.2f}, {self.high:+.2f}]"
        close, open_ = f"within ±{until.half_width:g} points", ", more seeds follow" if self.open else ""
        meaning = {"close": close, "undecided": f"not decided{open_}"}.get(self.verdict, self.verdict)
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        compared = f"{self.backbone}: {self.label} against {self.baseline}"
        return f"{compared}: {self.estimate:+.2f}{interval} points, {seeds}: {meaning}"


def looks(first: int, most: int) -> list[int]:
    """Seeds per pair at each look: doubled every time, and `most` at the last.

    Examples:
        >>> looks(3, 20)
        [3, 6, 12, 20]
    """
    found = [first]
    while found[-1] < most:
        found.append(min(2 * found[-1], most))
    return found


def decisions(cells: pd.DataFrame, until: Until) -> list[Decision]:
    """Every label of each backbone against the baseline.

    Args:
        cells: of one study, as `load` returns them.
        until: what the study was asked to decide, with its `first` and `baseline`.
    """
    assert until.first is not None
    assert until.baseline is not None
    tidied = tidy(cells)
    differences: dict[tuple[str, str], pd.Series[float]] = {}
    for backbone in sorted(map(str, tidied["backbone"].unique()), key=natural):
        table = by_key(tidied[tidied["backbone"] == backbone])
        if until.baseline in table:
            for label in sorted(set(map(str, table)) - {until.baseline}, key=by_combination):
                differences[backbone, label] = (table[label] - table[until.baseline]).dropna()
    error = ERROR / (len(looks(until.first, until.most_seeds)) * max(1, len(differences)))
    found = []
    for (backbone, label), values in differences.items():
        estimate, half, seeds = interval(values, error)
        verdict = _verdict(estimate, half, until.half_width)
        more = verdict == "undecided" and seeds < until.most_seeds
        low, high = estimate - half, estimate + half
        found.append(Decision(backbone, label, until.baseline, estimate, low, high, seeds, verdict, more))
    return found


def decision_note(until: Until) -> str:
    """What the decisions of a study mean, and what its other tables do not say."""
    return (
        f"seeds were added, {until.first} to {until.most_seeds} on a pair, until a difference from {until.baseline} "
        f"was shown or known to within ±{until.half_width:g} points. These intervals count every look and comparison: "
        "all are right in 95 % of such studies. Intervals of other tables do not count that seeds were added."
    )


def interval(values: "pd.Series[float]", error: float) -> tuple[float, float, int]:
    """The mean over pairs of the mean over seeds, the half-width of its t interval, and the fewest seeds of a pair.

    Args:
        values: by (pair, seed).
        error: probability with which the interval may miss the mean of these pairs over all seeds.
    """
    if values.empty:
        return math.nan, math.nan, 0
    data, counts = nested(values.to_frame())
    (spread,), freedom = spread_within(data, counts)
    estimate, seeds = float(np.nanmean(data, axis=1).mean()), int(counts.min())
    if not freedom:
        return estimate, math.nan, seeds
    quantile = float(stats.t.ppf(1 - error / 2, freedom))
    return estimate, quantile * float(spread) * math.sqrt((1 / counts).sum()) / len(counts), seeds


def _verdict(estimate: float, half: float, half_width: float) -> Verdict:
    if abs(estimate) > half:
        return "higher" if estimate > 0 else "lower"
    return "close" if half <= half_width else "undecided"
