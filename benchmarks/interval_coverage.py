"""Coverage of 95 % intervals where pairs and seeds vary, which decided the intervals that the report uses.

    python benchmarks/interval_coverage.py [--studies 4000]

A simulated study consists of pairs x seeds differences of mean 0. Each is the sum of an effect of its pair, with
standard deviation 0, 1 or 3, and an effect of its seed, with standard deviation 1. Effects of pairs are normal;
exponential, so that a few pairs have far larger effects; or, for the 12 ordered pairs of 4 domains, the effect of the
source plus that of the target.
"""

import argparse
import itertools
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from results import leave
from scipy import stats

from scale_ray.report.effects import resampling

FEWEST_PAIRS = resampling.FEWEST_PAIRS
SIZES = [(2, 3), (3, 3), (6, 3), (12, 3), (12, 5)]  # pairs, seeds
BETWEEN = [
    (0.0, "normal"),
    (1.0, "normal"),
    (3.0, "normal"),
    (1.0, "exponential"),
    (3.0, "exponential"),
    (3.0, "4 domains"),
]


def _of_four_domains(rng: np.random.Generator, size: tuple[int, int, int]) -> NDArray[np.float64]:
    roles = rng.normal(size=(2, 4, size[2])) / 2**0.5
    return np.array([[roles[0, source] + roles[1, target]] for source, target in itertools.permutations(range(4), 2)])


SHAPES = {
    "normal": lambda rng, size: rng.normal(size=size),
    "exponential": lambda rng, size: rng.exponential(size=size) - 1,
    "4 domains": _of_four_domains,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=4000, help="simulated studies per row")
    studies = parser.parse_args().studies
    rows = []
    for (pairs, seeds), (between, shape) in itertools.product(SIZES, BETWEEN):
        rng = np.random.default_rng([pairs, seeds, int(between)])
        if shape == "4 domains" and pairs != 12:
            continue
        effects = between * SHAPES[shape](rng, (pairs, 1, studies))
        data = effects + rng.normal(size=(pairs, seeds, studies))
        place = {"pairs": pairs, "seeds": seeds, "sd of pairs": between, "pairs are": shape}
        rows.append(place | _coverages(data, effects.mean(axis=(0, 1))))
        print(rows[-1], flush=True)
    print(leave("interval_coverage", "Coverage of 95 % intervals, and median width of some", rows, _notes(studies)))


def _coverages(data: NDArray[np.float64], of_these: NDArray[np.float64]) -> dict[str, Any]:
    """Percentage of the studies (last axis) whose interval contains the truth: 0, or `of_these` for the pairs drawn."""
    pairs, seeds, studies = data.shape
    index = pd.MultiIndex.from_product([range(pairs), range(seeds)], names=["pair", "seed"])
    values = pd.DataFrame(data.reshape(pairs * seeds, studies), index=index)
    studentised, t = (_with_studentised_from(fewest, values) for fewest in (2, pairs + 1))
    bca = stats.bootstrap(
        (data.mean(axis=1),), np.mean, axis=0, n_resamples=1999, batch=50, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return {
        "t": _held(t["low"], t["high"]),
        "studentised": _held(studentised["low"], studentised["high"]),
        "percentiles": _held(t["bootstrap_low"], t["bootstrap_high"]),
        "BCa": _held(bca.low, bca.high),
        "these pairs": _held(t["these_low"] - of_these, t["these_high"] - of_these),
        "report": "studentised" if pairs >= FEWEST_PAIRS else "t",
        "width t": _width(t),
        "width studentised": _width(studentised),
    }


def _with_studentised_from(fewest: int, values: pd.DataFrame) -> pd.DataFrame:
    resampling.FEWEST_PAIRS, resampling.FEWEST_UNITS = fewest, 1  # of two pairs too, which the report does not show
    return resampling.intervals(values)


def _held(low: Any, high: Any) -> float:
    return round(100 * float(np.mean((low <= 0) & (high >= 0))), 1)


def _width(found: pd.DataFrame) -> str:
    return f"{(found['high'] - found['low']).median():.2f}"


def _notes(studies: int) -> list[str]:
    error = (95 * 5 / studies) ** 0.5
    return [
        f"percent of {studies} studies a row; standard error of a coverage near 95 % about {error:.1f} points",
        "seeds have standard deviation 1; widths in the same units",
        "t: over pair means; studentised, percentiles: of draws of pairs, then of seeds within; BCa: of pair means; "
        "these pairs: t over seeds, where the truth is the mean of the pairs' own effects; report: its headline",
        "4 domains: the effect of a pair is that of its source plus that of its target, of 4 drawn domains",
    ]


if __name__ == "__main__":
    main()
