"""What each validator would choose, and how many of them agree: no target label is read for it."""

import pandas as pd

from scale_ray.records import SET_VALIDATOR_NAMES, VALIDATOR_NAMES, WITHIN_ONE_METHOD
from scale_ray.report.read.labels import count
from scale_ray.report.selection.candidates import ALL_PAIRS, SET, Candidates

COLUMNS = ["benchmark", "backbone", "validator", "would choose", "the same on", "counts"]
ACROSS, WITHIN = "yes", "no: ranks settings of one method alone"


def agreement(found: Candidates) -> pd.DataFrame:
    """The one choice of every validator for all pairs of a set, where it has a score of every training.

    | column | unit, meaning |
    |---|---|
    | benchmark, backbone | the set |
    | validator | its name |
    | would choose | the candidate with the highest score, mean over seeds and pairs |
    | the same on | on how many single pairs its choice is that candidate |
    | counts | whether it can compare these candidates; those that rank settings of one method alone cannot where
        several are compared |

    A set with one candidate has no row.
    """
    kinds = found.trainings.groupby(SET)["kind"].nunique()
    sets: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
    for set_, pair, means in found.compared():
        sets.setdefault(set_, {})[pair] = means
    rows = []
    for set_, of_pairs in sets.items():
        if ALL_PAIRS not in of_pairs and len(of_pairs) > 1:
            continue
        overall = of_pairs.pop(ALL_PAIRS, None)
        means = next(iter(of_pairs.values())) if overall is None else overall
        if len(means) < 2:
            continue
        for name in (*SET_VALIDATOR_NAMES, *VALIDATOR_NAMES):
            if means[name].isna().any():
                continue
            chosen = str(means[name].idxmax())
            same = sum(_choice(of_pair, name) == chosen for of_pair in of_pairs.values())
            row = (*set_, name, chosen, f"{same} of {count(len(of_pairs), 'pair')}")
            rows.append((*row, WITHIN if name in WITHIN_ONE_METHOD and kinds[set_] > 1 else ACROSS))
    return pd.DataFrame(rows, columns=COLUMNS)


def agreement_notes(table: pd.DataFrame) -> list[str]:
    """How many validators choose alike, one note a set."""
    notes = []
    for (benchmark, backbone), part in table.groupby(["benchmark", "backbone"], sort=False):
        votes = part.loc[part["counts"] == ACROSS, "would choose"].value_counts()
        if not votes.empty:
            notes.append(
                f"{benchmark}, {backbone}: {votes.iloc[0]} of {count(int(votes.sum()), 'validator')} that can compare "
                f"these would choose {votes.index[0]}."
            )
    return notes


def _choice(means: pd.DataFrame, name: str) -> str | None:
    return None if means[name].isna().any() else str(means[name].idxmax())
