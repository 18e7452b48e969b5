"""Studies that give more seeds to what is not decided: how often they are right, and how many seeds they take.

    python benchmarks/until_coverage.py [--studies 500]

A simulated study compares C approaches with a baseline on P pairs. A difference is its approach's true one on these
pairs (all 0; all 2; or 0 to 4, evenly) plus that of its seed, with a standard deviation of 1: normal; exponential; or
normal with a standard deviation of 0.4 to 1.6, evenly over the pairs. Seeds begin with 3 and double up to 20.
"""

import argparse
import itertools
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from results import leave

from scale_ray.report.effects.sequential import ERROR, Decision, decide, interval, looks
from scale_ray.study import Until

FIRST, MOST, HALF_WIDTH = 3, 20, 1.0
UNTIL = Until(half_width=HALF_WIDTH, most_seeds=MOST, first=FIRST, baseline="ce")
SIZES = [(1, 1), (1, 5), (3, 5), (6, 5), (6, 15)]  # pairs, comparisons
EFFECTS = ("all 0", "all 2", "0 to 4")
SHAPES = ("normal", "exponential", "unequal pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=500, help="simulated studies per row")
    studies = parser.parse_args().studies
    rows = []
    for (pairs, comparisons), effects, shape in itertools.product(SIZES, EFFECTS, SHAPES):
        if pairs == 1 and shape == "unequal pairs":
            continue
        rng = np.random.default_rng([pairs, comparisons, EFFECTS.index(effects), SHAPES.index(shape)])
        place = {"pairs": pairs, "comparisons": comparisons, "true differences": effects, "seeds are": shape}
        rows.append(place | _row(rng, pairs, comparisons, effects, shape, studies))
        print(rows[-1], flush=True)
    notes = [
        f"{studies} studies a row; {FIRST} to {MOST} seeds, looks at {looks(FIRST, MOST)}; +-{HALF_WIDTH:g} points",
        "right: studies in which every interval at which a comparison stopped contains the true difference; at least "
        "95 % is promised",
        "naive: the same rule with 95 % intervals that count neither looks nor comparisons",
        "wrong order: studies in which a comparison was called higher or lower and is not",
        "decided: comparisons that stopped with an order, or with an interval of at most +-1",
        f"seeds: mean over the comparisons; a fixed design has {MOST}",
    ]
    print(leave("until_coverage", "More seeds until decided: error rates and seeds", rows, notes))


def _row(
    rng: np.random.Generator, pairs: int, comparisons: int, effects: str, shape: str, studies: int
) -> dict[str, Any]:
    truth = {"all 0": np.zeros(comparisons), "all 2": np.full(comparisons, 2.0)}.get(
        effects, np.linspace(0, 4, comparisons)
    )
    number = len(looks(FIRST, MOST)) * comparisons
    right, naive, wrong, decided, seeds = 0, 0, 0, [], []
    for _ in range(studies):
        values = [_seeds(rng, pairs, shape) + each for each in truth]
        ends = list(zip((_stop(each, ERROR / number) for each in values), truth, strict=True))
        right += all(end.low <= each <= end.high for end, each in ends)
        wrong += any(_false(end, each) for end, each in ends)
        loose = zip((_stop(each, ERROR) for each in values), truth, strict=True)
        naive += all(end.low <= each <= end.high for end, each in loose)
        decided += [end.verdict != "undecided" for end, _ in ends]
        seeds += [end.seeds for end, _ in ends]
    return {
        "right, %": f"{100 * right / studies:.1f}",
        "naive, %": f"{100 * naive / studies:.1f}",
        "wrong order, %": f"{100 * wrong / studies:.1f}",
        "decided, %": f"{100 * np.mean(decided):.0f}",
        "seeds": f"{np.mean(seeds):.1f}",
        "seeds saved, %": f"{100 * (1 - np.mean(seeds) / MOST):.0f}",
    }


def _false(end: Decision, truth: float) -> bool:
    """Whether an order was told that is not there."""
    return {"higher": truth <= 0, "lower": truth >= 0}.get(end.verdict, False)


def _seeds(rng: np.random.Generator, pairs: int, shape: str) -> NDArray[np.float64]:
    if shape == "exponential":
        return rng.exponential(size=(pairs, MOST)) - 1
    spread = np.linspace(0.4, 1.6, pairs)[:, None] if shape == "unequal pairs" else 1.0
    return rng.normal(size=(pairs, MOST)) * spread


def _stop(values: NDArray[np.float64], error: float) -> Decision:
    """The decision at the look at which a comparison stops."""
    for count in looks(FIRST, MOST):
        index = pd.MultiIndex.from_product([range(len(values)), range(count)], names=["pair", "seed"])
        found = decide("", "", *interval(pd.Series(values[:, :count].ravel(), index), error), UNTIL)
        if not found.open:
            break
    return found


if __name__ == "__main__":
    main()
