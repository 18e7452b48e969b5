"""Candidates that a validator cannot tell apart, as it sees a sample of the images."""

import math
from typing import NamedTuple

import pandas as pd

from scale_ray.training.evidence import SAMPLE_SIZE


class Tie(NamedTuple):
    """Candidates whose scores are less than an error below the highest one.

    Attributes:
        candidates: their names, the highest score first, without the one that is chosen.
        error: standard error of a share of the images, in percent.
    """

    candidates: list[str]
    error: float


def tie(scores: pd.DataFrame, validator: str, source: int, target: int) -> Tie:
    """The candidates that may be as good as the first.

    The error is 100 sqrt(q (1 - q) / n), with q the highest score / 100 and n the images that the validator sees: of
    the target for `ensv`; for `coherence`, which is a mean of two shares, of the domain with fewer, a sample at most.
    The scores of two candidates are of the same images, so their difference is more certain than that; but the error of
    a score as a measure of accuracy, which may be larger, is not in it.

    Args:
        scores: columns `candidate` and the validator's name in percent, the highest score first.
        validator: whose scores they are. By one that is no share of images no candidate is tied.
        source, target: how many images each domain has.
    """
    seen = {"coherence": min(source, target, SAMPLE_SIZE), "ensv": target}
    if validator not in seen:
        return Tie([], 0.0)
    best = float(scores[validator].iloc[0])
    share = min(1.0, max(0.0, best / 100))
    error = 100 * math.sqrt(share * (1 - share) / seen[validator])
    close = scores.iloc[1:]
    return Tie([str(name) for name in close.loc[close[validator] > best - error, "candidate"]], error)
