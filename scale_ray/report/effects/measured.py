"""The measured cells of one benchmark and facet, as the functions of tables of effects take them."""

import itertools
from dataclasses import dataclass

import pandas as pd

from scale_ray.report.effects.combinations import combinations, is_combination, optional_terms
from scale_ray.report.effects.contrasts import by_key
from scale_ray.report.read.labels import combination_labels

_MOST_NAMED = 8  # missing combinations in a note


@dataclass(frozen=True)
class Measured:
    """Done cells of one benchmark and facet: columns label, backbone, pair, seed, accuracy (percent)."""

    cells: pd.DataFrame
    terms: tuple[str, ...]  # the optional loss terms that occur in them
    factorials: pd.DataFrame  # the cells of (backbone, pair, seed) keys that have all combinations of the terms
    baseline: str  # the label that others are compared with


def measure(cells: pd.DataFrame, baseline: str, metric: str) -> tuple[Measured, list[str]]:
    """Select and label the done cells of one benchmark and facet; also return notes on what was left out.

    Args:
        cells: as `load` returns them.
        baseline: a label.
        metric: a column of percentages.
    """
    tidied = tidy(cells, metric)
    terms = optional_terms(tidied["label"].unique())
    factorials, notes = complete_factorials(tidied, terms)
    return Measured(tidied, terms, factorials, baseline), notes


def tidy(cells: pd.DataFrame, metric: str = "target_accuracy") -> pd.DataFrame:
    """The done cells of one benchmark and facet as columns label, backbone, pair, seed, accuracy.

    The label is the loss combination (`ce` for source_only) or the method's variant: `dann`, `cdan+E`. A method with
    several combinations is labelled with both: `dann (ce)`.
    """
    ablation = cells["method"].isin(["scale", "source_only"])
    several = cells.groupby("method")["losses"].transform("nunique") > 1
    methods = cells["variant"].where(~several, cells["variant"] + " (" + cells["losses"] + ")")
    labels = combination_labels(cells[ablation]).reindex(cells.index).fillna(methods)
    tidied = cells[["backbone", "pair", "seed"]].assign(label=labels, accuracy=cells[metric])
    return tidied[(cells["status"] == "done") & cells[metric].notna()]


def complete_factorials(cells: pd.DataFrame, terms: tuple[str, ...]) -> tuple[pd.DataFrame, list[str]]:
    """The tidy cells of (backbone, pair, seed) keys that have all 2^n combinations of n terms, and notes on the rest.

    Without a term there is no factorial, and no note.
    """
    kept, notes = [], []
    plain = cells[cells["label"].map(is_combination).astype(bool)] if terms else cells.iloc[:0]
    size = 2 ** len(terms)
    for backbone, part in plain.groupby("backbone"):
        table = by_key(part)
        absent = size - len(table.columns)
        if absent:
            # Lazily: with many terms, few of the combinations are measured and few of the others are named.
            named = list(itertools.islice((label for label in combinations(terms) if label not in table), _MOST_NAMED))
            more = f" and {absent - len(named):,} more" if absent > len(named) else ""
            notes.append(f"{backbone}: no effects or Shapley values: no cell of {', '.join(named)}{more} is done.")
            continue
        whole = table.dropna()
        if len(whole) < len(table):
            notes.append(
                f"{backbone}: effects and Shapley values leave out {len(table) - len(whole)} of {len(table)} "
                f"(pair, seed) keys: not all {size} combinations are done."
            )
        kept.append(part[pd.MultiIndex.from_frame(part[["pair", "seed"]]).isin(whole.index)])
    return (pd.concat(kept) if kept else cells.iloc[:0]), notes
