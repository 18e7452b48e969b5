"""The regret of every validator, which reads target labels: a table for benchmarks."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from scale_ray.records import ORACLE
from scale_ray.report.selection.candidates import ALL_PAIRS, SCORES, Candidates
from scale_ray.report.selection.text import ORACLE_COLUMN

ALL_SETS = "all"
MEAN, WORST = "mean regret (target labels)", "worst regret (target labels)"
OVERALL = "regret of one choice (target labels)"
ACCURACY = "accuracy (target labels)"

REGRET_NOTES = [
    "By target labels: it measures the validators on benchmarks, and nothing may be chosen by it.",
    "Regret: points of target accuracy of the validator's choice below the best candidate; means over seeds.",
]

_COLUMNS = ["benchmark", "backbone", "validator", MEAN, WORST, OVERALL, "spearman", "pairs", "candidates"]
CHOICE_COLUMNS = ["benchmark", "backbone", "validator", "choice", ACCURACY, OVERALL]
_FEWEST_RANKS = 3  # with fewer candidates a rank correlation means nothing


def regrets(found: Candidates) -> pd.DataFrame:
    """Regret of every validator by set and over all, **by target labels**: for benchmarks, never to choose by.

    | column | unit, meaning |
    |---|---|
    | benchmark, backbone | the set; `all`: all sets, each counting once |
    | validator | from the smallest worst regret to the largest; the oracle chooses by target labels |
    | mean regret (target labels) | points of target accuracy below the best candidate, mean over pairs |
    | worst regret (target labels) | the same, of the worst pair |
    | regret of one choice (target labels) | points that one choice for all pairs is below the best such choice |
    | spearman | rank correlation of score and target accuracy, mean over pairs; empty with fewer than 3 candidates |
    | pairs, candidates | how many pairs, and how many candidates each has at most |

    Of all sets, the third regret is that of the worst set. A validator is left out of a set where a training has no
    score by it, and then of `all`. A set whose target has no labels has no row.
    """
    sets = _by_set(found)
    rows: list[dict[str, Any]] = []
    labelled = {set_: of_pairs for set_, of_pairs in sets.items() if _is_scored(of_pairs, ORACLE)}
    for name in SCORES if labelled else ():
        rows += [_of_set(set_, of_pairs, name) for set_, of_pairs in labelled.items() if _is_scored(of_pairs, name)]
    return over_all(rows)


def over_all(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The table of `regrets` from its rows of single sets: they in its order, then those over all sets."""
    by_set = pd.DataFrame(list(rows), columns=_COLUMNS)
    sets = len(by_set[["benchmark", "backbone"]].drop_duplicates())
    of_validators = [part for _, part in by_set.groupby("validator", sort=False) if len(part) == sets > 1]
    everywhere = [_of_all(part) for part in of_validators]
    frame = pd.DataFrame([*rows, *everywhere], columns=_COLUMNS).assign(
        last=lambda frame: frame["benchmark"] == ALL_SETS
    )
    order = ["last", "benchmark", "backbone", WORST, MEAN]
    return frame.sort_values(order, kind="stable", ignore_index=True).drop(columns="last")


def choices(found: Candidates) -> pd.DataFrame:
    """The one choice of every validator for all pairs of a set, and what it costs **by target labels**.

    | column | unit, meaning |
    |---|---|
    | benchmark, backbone | the set |
    | validator | as in `regrets`, from the smallest regret to the largest |
    | choice | the candidate with the highest score, mean over seeds and pairs |
    | accuracy (target labels) | percent, its target accuracy |
    | regret of one choice (target labels) | points below the best candidate |

    A validator is left out where a training has no score by it, and a set where no candidate is on all pairs.
    """
    rows = []
    for (benchmark, backbone), of_pairs in _by_set(found).items():
        if ALL_PAIRS not in of_pairs and len(of_pairs) > 1:
            continue
        means = of_pairs.get(ALL_PAIRS, next(iter(of_pairs.values())))
        for name in SCORES if _is_scored(of_pairs, ORACLE) else ():
            if _is_scored(of_pairs, name):
                place = int(means[name].argmax())
                accuracy = float(means[ORACLE].iloc[place])
                rows.append(
                    {
                        "benchmark": benchmark,
                        "backbone": backbone,
                        "validator": ORACLE_COLUMN if name == ORACLE else name,
                        "choice": str(means.index[place]),
                        ACCURACY: accuracy,
                        OVERALL: float(means[ORACLE].max()) - accuracy,
                    }
                )
    frame = pd.DataFrame(rows, columns=CHOICE_COLUMNS)
    return frame.sort_values(["benchmark", "backbone", OVERALL], kind="stable", ignore_index=True)


def least_worst(table: pd.DataFrame) -> str | None:
    """The validator with the smallest worst regret over all sets of a table of `regrets`; None if there is none."""
    everywhere = table[table["benchmark"] == ALL_SETS]
    ranked = (table if everywhere.empty else everywhere)["validator"]
    return next((str(name) for name in ranked if name != ORACLE_COLUMN), None)


def _by_set(found: Candidates) -> dict[tuple[str, str], dict[str, pd.DataFrame]]:
    """Set -> pair, or ALL_PAIRS -> mean scores of the candidates."""
    sets: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
    for set_, pair, means in found.compared():
        sets.setdefault(set_, {})[pair] = means
    return sets


def _is_scored(of_pairs: dict[str, pd.DataFrame], name: str) -> bool:
    return not any(means[name].isna().any() for means in of_pairs.values())


def _of_set(set_: tuple[str, str], of_pairs: dict[str, pd.DataFrame], name: str) -> dict[str, Any]:
    """The row of one validator on one set."""
    regret = {
        pair: float(means[ORACLE].max() - means[ORACLE].iloc[means[name].argmax()]) for pair, means in of_pairs.items()
    }
    overall = regret.pop(ALL_PAIRS, max(regret.values()))  # with one pair, that pair's
    correlations = [
        float(means[name].corr(means[ORACLE], method="spearman"))
        for pair, means in of_pairs.items()
        if pair != ALL_PAIRS and len(means) >= _FEWEST_RANKS and means[name].nunique() > 1 < means[ORACLE].nunique()
    ]
    return {
        "benchmark": set_[0],
        "backbone": set_[1],
        "validator": ORACLE_COLUMN if name == ORACLE else name,
        MEAN: fmean(regret.values()),
        WORST: max(regret.values()),
        OVERALL: overall,
        "spearman": fmean(correlations) if correlations else None,
        "pairs": len(regret),
        "candidates": max(len(means) for means in of_pairs.values()),
    }


def _of_all(rows: pd.DataFrame) -> dict[str, Any]:
    """The row of one validator over all sets."""
    return {
        "benchmark": ALL_SETS,
        "backbone": ALL_SETS,
        "validator": rows["validator"].iloc[0],
        MEAN: rows[MEAN].mean(),
        WORST: rows[WORST].max(),
        OVERALL: rows[OVERALL].max(),
        "spearman": rows["spearman"].astype("float64").mean(),
        "pairs": rows["pairs"].sum(),
        "candidates": rows["candidates"].max(),
    }
