"""Main effects, interactions and Shapley values of loss terms: weighted sums of a full factorial's accuracies.

The terms are the n optional ones; ce is always on. The factorial has 2^n combinations, so weights have 2^n rows.
"""

from collections.abc import Callable, Sequence
from math import factorial, prod

import pandas as pd

from scale_ray.report.effects.combinations import combination, combinations, subsets
from scale_ray.report.effects.resampling import intervals
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import natural


def factorial_weights(terms: Sequence[str]) -> pd.DataFrame:
    """Rows: the combinations; columns: `ssl`, …, `ssl x dist`, …, `ssl x dist x reg`.

    With x = +1 where a term is on and -1 where it is off, an effect's weight is the product of its terms' x, divided
    by 2^(n-1). A main effect is therefore the mean of (on - off) over all combinations of the other terms, and an
    interaction of two terms is half the difference between one term's effect with the other on and with it off (Box,
    Hunter & Hunter, Statistics for Experimenters, 2nd ed., 2005, chapter 5). With the half, all effects have the same
    standard error.
    """
    every = list(subsets(terms))
    half = 2 ** (len(terms) - 1)
    columns = {
        " x ".join(effect): [prod(1 if term in subset else -1 for term in effect) / half for subset in every]
        for effect in every[1:]
    }
    return pd.DataFrame(columns, index=list(map(combination, every)))


def shapley_weights(terms: Sequence[str]) -> pd.DataFrame:
    """Rows: the combinations; columns: the terms.

    A term's Shapley value is what it adds to the accuracy when it joins the terms before it, averaged over the n!
    orders in which terms can be switched on (Shapley, A value for n-person games, 1953). The values sum to the
    accuracy of the full combination minus that of ce. With s other terms on, s! (n-1-s)! of the orders put exactly
    these before the term.
    """
    n = len(terms)
    share = [factorial(size) * factorial(n - 1 - size) / factorial(n) for size in range(n)]
    columns = {
        term: [share[len(subset) - 1] if term in subset else -share[len(subset)] for subset in subsets(terms)]
        for term in terms
    }
    return pd.DataFrame(columns, index=list(combinations(terms)))


def by_key(cells: pd.DataFrame) -> pd.DataFrame:
    """One backbone's accuracies as (pair, seed) x label, percent, NaN where a label lacks a key.

    Args:
        cells: tidy, columns label (`ce+ssl`, `dann`), pair, seed, accuracy (percent); other columns are ignored.

    Raises:
        ReportError: a key occurs twice: two backbones in one frame, or two records of one cell.
    """
    duplicates = cells[cells.duplicated(["label", "pair", "seed"])]
    if len(duplicates):
        raise ReportError(f"two accuracies for {_names(duplicates)}: give one backbone and one record per cell")
    return cells.pivot(index=["pair", "seed"], columns="label", values="accuracy")


def accuracies(cells: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """`by_key` for these labels only, without gaps: each label has every key that any of them has.

    Raises:
        ReportError: as `by_key`, or cells are missing; the message names them.
    """
    table = by_key(cells[cells["label"].isin(labels)]).reindex(columns=pd.Index(labels, name="label"))
    cells = table.reset_index().melt(["pair", "seed"], var_name="label", value_name="accuracy")
    missing = cells[cells["accuracy"].isna()]
    if len(missing) or table.empty:
        names = _names(missing) if len(missing) else ", ".join(labels)
        raise ReportError(f"no accuracy for {names}: run what is missing, or leave out the keys that lack it")
    return table


def main_effects(cells: pd.DataFrame, terms: Sequence[str]) -> pd.DataFrame:
    """Main effects and interactions by backbone, from a full factorial: see `factorial_weights`.

    Args:
        cells: columns label, backbone, pair, seed, accuracy (percent); labels outside the factorial are ignored.
        terms: the optional loss terms.

    Returns:
        Columns backbone, effect, and those of `intervals`, in percentage points. Empty without cells.

    Raises:
        ReportError: as `accuracies`.
    """
    return _estimates(cells, terms, factorial_weights, "effect")


def shapley_values(cells: pd.DataFrame, terms: Sequence[str]) -> pd.DataFrame:
    """Shapley values by backbone, with the column `term`; otherwise as `main_effects`. See `shapley_weights`."""
    return _estimates(cells, terms, shapley_weights, "term")


def _estimates(
    cells: pd.DataFrame, terms: Sequence[str], weights_of: Callable[[Sequence[str]], pd.DataFrame], name: str
) -> pd.DataFrame:
    """`intervals` of weighted sums of accuracies: one row per backbone and column of the weights, named in `name`."""
    if cells.empty:  # the weights of many terms are large, and only a complete factorial needs them
        return pd.DataFrame()
    weights = weights_of(terms)
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
