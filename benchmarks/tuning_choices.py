"""How often a search chooses a setting that is no better than the default: the rule of scale_ray/tuning/decision.py.

    python benchmarks/tuning_choices.py [--searches 4000]

In a simulated search all settings are as good as the default, so every other choice is false. A score is the sum of an
effect of its setting on its pair, with the standard deviation `sd of pairs`, and an effect of its repeat, with standard
deviation 1. Early stopping keeps the settings that score highest on the first repeat, and always the default.
"""

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results import leave
from scipy import stats

from scale_ray.tuning.decision import ALPHA, p_above_zero, units_of

# settings besides the default, pairs, seeds, settings that early stopping keeps of them, sd of pairs
SEARCHES = [
    (9, 1, 3, 9, 0.0),
    (9, 1, 3, 1, 0.0),
    (24, 1, 3, 24, 0.0),
    (24, 1, 3, 12, 0.0),
    (24, 1, 3, 1, 0.0),
    (49, 1, 9, 49, 0.0),
    (49, 1, 9, 1, 0.0),
    (24, 3, 3, 24, 0.0),
    (24, 3, 3, 24, 1.0),
    (24, 6, 3, 24, 0.0),
    (24, 6, 3, 24, 1.0),
    (24, 6, 3, 1, 1.0),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--searches", type=int, default=4000, help="simulated searches per row")
    searches = parser.parse_args().searches
    rows = []
    for settings, pairs, seeds, kept, between in SEARCHES:
        rng = np.random.default_rng([settings, pairs, seeds, kept, int(between)])
        repeats = [f"pair {pair} seed {seed}" for seed in range(seeds) for pair in range(pairs)]
        units = units_of(repeats)
        assert units is not None
        counts = np.zeros(2)
        for _ in range(searches):
            gains = _gains_of_the_highest(rng, settings, pairs, seeds, kept, between)
            before = stats.ttest_1samp(gains, 0, alternative="greater").pvalue * kept
            after = p_above_zero(dict(zip(repeats, gains.tolist(), strict=True)), units) * settings
            counts += [before <= ALPHA and gains.mean() > 0, after <= ALPHA and gains.mean() > 0]
        false = 100 * counts / searches
        rows.append(
            {
                "settings": settings, "kept": kept, "pairs x seeds": f"{pairs} x {seeds}", "sd of pairs": between,
                "before": f"{false[0]:.1f}", "after": f"{false[1]:.1f}", "over": units.text,
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    print(leave("tuning_choices", "False choices of a search, percent", rows, _notes(searches)))


def _gains_of_the_highest(
    rng: np.random.Generator, settings: int, pairs: int, seeds: int, kept: int, between: float
) -> NDArray[np.float64]:
    """Of the highest setting over the default, by repeat. The default is the first."""
    of_pairs = between * rng.normal(size=(settings + 1, pairs))
    scores = np.tile(of_pairs, seeds) + rng.normal(size=(settings + 1, seeds * pairs))
    survivors = 1 + np.argsort(-scores[1:, 0])[:kept]
    best = survivors[scores[survivors].mean(axis=1).argmax()]
    gains: NDArray[np.float64] = scores[best] - scores[0]
    return gains


def _notes(searches: int) -> list[Any]:
    return [
        f"percent of {searches} searches a row; standard error of 5 % about {(5 * 95 / searches) ** 0.5:.1f} points",
        "settings: besides the default; kept: those of them that early stopping on the first repeat leaves",
        "before: t over all repeats, corrected for the settings that were kept; after: the rule of today, over what "
        "the last column names, corrected for all settings",
        "sd of pairs: of the effect of a setting on a pair, where the standard deviation of a score is 1; where 1, a "
        "choice is false for other pairs, and over seeds of these pairs it may be right for these",
    ]


if __name__ == "__main__":
    main()
