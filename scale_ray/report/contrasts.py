"""Main effects, interactions and Shapley values of the optional loss terms: weights on the 2^3 combinations."""

from collections.abc import Iterable, Sequence
from itertools import combinations, permutations
from math import factorial, prod

import pandas as pd

from scale_ray.report.aggregate import natural
from scale_ray.report.load import ReportError
from scale_ray.report.resampling import intervals

TERMS = ("ssl", "dist", "reg")  # ce is always on


def combination(terms: Iterable[str]) -> str:
    """`ce+ssl+reg` for {reg, ssl}: as tables write it."""
    chosen = set(terms)
    return "+".join(["ce", *(term for term in TERMS if term in chosen)])


SUBSETS = [subset for size in range(len(TERMS) + 1) for subset in combinations(TERMS, size)]
COMBINATIONS = [combination(subset) for subset in SUBSETS]


def factorial_weights() -> pd.DataFrame:
    """Rows: the 8 combinations; columns: `ssl`, …, `ssl x dist`, …, `ssl x dist x reg`.

    With x = +1 where a term is on and -1 where it is off, an effect's weight is the product of its terms' x, over 4.
    So a main effect is the mean over the other terms' 4 settings of (on - off), and an interaction half the
    difference between a term's effect with the other on and with it off (Box, Hunter & Hunter, Statistics for
    Experimenters, 2nd ed., 2005, chapter 5). Half, so that all have one standard error.
    """
    half = 2 ** (len(TERMS) - 1)
    columns = {
        " x ".join(effect): [prod(1 if term in subset else -1 for term in effect) / half for subset in SUBSETS]
        for effect in SUBSETS[1:]
    }
    return pd.DataFrame(columns, index=COMBINATIONS)


def shapley_weights() -> pd.DataFrame:
    """Rows: the 8 combinations; columns: the terms.

    A term's Shapley value is what it adds to the accuracy when it joins those before it, averaged over the 3! orders
    in which terms can be switched on (Shapley, A value for n-person games, 1953). They sum to full - ce.
    """
    weights = {term: dict.fromkeys(COMBINATIONS, 0.0) for term in TERMS}
    for order in permutations(TERMS):
        for place, term in enumerate(order):
            weights[term][combination(order[: place + 1])] += 1 / factorial(len(TERMS))
            weights[term][combination(order[:place])] -= 1 / factorial(len(TERMS))
    return pd.DataFrame(weights)


def by_key(cells: pd.DataFrame) -> pd.DataFrame:
    """One backbone's cells as (pair, seed) x label, percent, NaN where a label lacks a key.

    Args:
        cells: tidy, columns label (`ce+ssl`, `dann`), pair, seed, accuracy (percent); others are not read.

    Raises:
        ReportError: a key twice: two backbones in one frame, or two records of one cell.
    """
    doubled = cells[cells.duplicated(["label", "pair", "seed"])]
    if len(doubled):
        raise ReportError(f"two accuracies for {_names(doubled)}: give one backbone, and one record a cell")
    return cells.pivot(index=["pair", "seed"], columns="label", values="accuracy")


def accuracies(cells: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """`by_key` of some labels, whole: each has every key that any of them has.

    Raises:
        ReportError: as `by_key`; or cells are missing, which it names.
    """
    table = by_key(cells[cells["label"].isin(labels)]).reindex(columns=pd.Index(labels, name="label"))
    cells = table.reset_index().melt(["pair", "seed"], var_name="label", value_name="accuracy")
    missing = cells[cells["accuracy"].isna()]
    if len(missing) or table.empty:
        names = _names(missing) if len(missing) else ", ".join(labels)
        raise ReportError(f"no accuracy for {names}: run what is missing, or leave out the keys that lack it")
    return table


def main_effects(cells: pd.DataFrame) -> pd.DataFrame:
    """`factorial_weights` on a full factorial, backbone by backbone.

    Args:
        cells: columns label, backbone, pair, seed, accuracy (percent); labels other than the 8 are not read.

    Returns:
        Columns backbone, effect, and those of `intervals`, in percentage points.

    Raises:
        ReportError: as `accuracies`.
    """
    return estimates(cells, factorial_weights(), "effect")


def shapley_values(cells: pd.DataFrame) -> pd.DataFrame:
    """`shapley_weights` on a full factorial: columns backbone, term, and those of `intervals`. Raises as above."""
    return estimates(cells, shapley_weights(), "term")


def estimates(cells: pd.DataFrame, weights: pd.DataFrame, name: str) -> pd.DataFrame:
    """`intervals` of weighted sums of accuracies: a row a backbone and a column of `weights`, which `name` heads."""
    parts = []
    for backbone in sorted(cells["backbone"].unique(), key=natural):
        table = accuracies(cells[cells["backbone"] == backbone], list(weights.index))
        part = intervals(table @ weights).rename_axis(name).reset_index()
        part.insert(0, "backbone", backbone)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _names(cells: pd.DataFrame) -> str:
    names = [f"{cell.label} on {cell.pair} seed {cell.seed}" for cell in cells.head(10).itertuples()]
    return ", ".join(names) + (f" and {len(cells) - 10} more" if len(cells) > 10 else "")
