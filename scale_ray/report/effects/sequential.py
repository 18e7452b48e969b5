"""Comparisons that are looked at several times: which of them are decided, with error rates that hold all the same.

A study that gives more seeds to what is not decided looks at its own results and may stop at any of K looks. Each
interval therefore has the level 1 - 0.05 / (K C) for C comparisons: by Bonferroni, the probability that any interval of
any look misses its true value is at most 5 %, whatever the rule by which the study stops. (Group-sequential bounds of
Pocock's kind, Biometrika 64 (2), 1977, with the union bound in place of the joint distribution, which costs some
percent of width for up to six looks and needs no assumption on how looks depend on each other.)
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from scale_ray.config import TrialConfig
from scale_ray.report.effects.resampling import nested, spread_within
from scale_ray.report.read.labels import by_combination, natural
from scale_ray.study import Until

ERROR = 0.05  # over all comparisons and looks

Verdict = Literal["higher", "lower", "known", "undecided"]


class Decision(NamedTuple):
    """What is known of an approach against the baseline, on these pairs and for other seeds.

    Attributes:
        backbone, approach, baseline: what is compared.
        estimate, low, high: percentage points; NaN where there is no interval yet.
        seeds: the smallest number of seeds that a pair has of both; 0 where a planned pair has none.
        verdict: `higher` or `lower` than the baseline; `known`: no difference is shown, and the interval is at most
            +- `Until.half_width`; else `undecided`.
        open: whether more seeds may decide it.
    """

    backbone: str
    approach: str
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
        known = f"no difference is shown, known to ±{until.half_width:g} points"
        open_ = ", more seeds follow" if self.open else ""
        meaning = {"known": known, "undecided": f"not decided{open_}"}.get(self.verdict, self.verdict)
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        compared = f"{self.backbone}: {self.approach} against {self.baseline}"
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


def decisions(planned: Mapping[str, TrialConfig], accuracies: Mapping[str, float], until: Until) -> list[Decision]:
    """Every approach of a study against the baseline, by backbone.

    Args:
        planned: the config of every cell, by id; what is compared, and on which pairs, does not depend on results.
        accuracies: percent, of the cells that are done.
        until: what the study was asked to decide, with its `first` and `baseline`.
    """
    assert until.first is not None
    assert until.baseline is not None
    known: dict[tuple[str, str], dict[tuple[str, int], float]] = defaultdict(dict)
    pairs: dict[str, set[str]] = defaultdict(set)
    for cell, config in planned.items():
        of_approach = known[config.model.label, config.approach]
        pairs[config.model.label].add(config.pair)
        if cell in accuracies:
            of_approach[config.pair, config.seed] = accuracies[cell]
    compared = [key for key in known if key[1] != until.baseline and (key[0], until.baseline) in known]
    error = ERROR / (len(looks(until.first, until.most_seeds)) * max(1, len(compared)))
    found = []
    for backbone, approach in sorted(compared, key=lambda key: (natural(key[0]), by_combination(key[1]))):
        one, other = known[backbone, approach], known[backbone, until.baseline]
        differences = {key: one[key] - other[key] for key in sorted(one.keys() & other.keys())}
        if {pair for pair, _ in differences} == pairs[backbone]:
            estimate, half, seeds = interval(_series(differences), error)
        else:
            estimate, half, seeds = math.nan, math.nan, 0
        found.append(decide(backbone, approach, estimate, half, seeds, until))
    return found


def decide(backbone: str, approach: str, estimate: float, half: float, seeds: int, until: Until) -> Decision:
    """The decision by an estimate and the half-width of its interval."""
    verdict: Verdict = "undecided"
    if abs(estimate) > half:
        verdict = "higher" if estimate > 0 else "lower"
    elif half <= until.half_width:
        verdict = "known"
    more = verdict == "undecided" and seeds < until.most_seeds
    low, high = estimate - half, estimate + half
    return Decision(backbone, approach, until.baseline or "", estimate, low, high, seeds, verdict, more)


def _series(differences: Mapping[tuple[str, int], float]) -> "pd.Series[float]":
    index = pd.MultiIndex.from_tuples(differences, names=["pair", "seed"])
    return pd.Series(list(differences.values()), index, dtype=float)


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
    data, counts = nested(values.to_frame())
    (spread,), freedom = spread_within(data, counts)
    estimate, seeds = float(np.nanmean(data, axis=1).mean()), int(counts.min())
    if not freedom:
        return estimate, math.nan, seeds
    quantile = float(stats.t.ppf(1 - error / 2, freedom))
    return estimate, quantile * float(spread) * math.sqrt((1 / counts).sum()) / len(counts), seeds
