"""What each validator would choose, and how many of them agree: no target label is read for it."""

import pandas as pd

from scale_ray.records import SET_VALIDATOR_NAMES, VALIDATOR_NAMES, WITHIN_ONE_METHOD
from scale_ray.report.read.labels import count
from scale_ray.report.selection.candidates import ALL_PAIRS, SET, Candidates

UNLEARNED = "did not learn the source"
COLUMNS = ["benchmark", "backbone", "validator", "would choose", "the same on", "counts", UNLEARNED]
ACROSS, WITHIN = "yes", "no: ranks settings of one method alone"
OF_SOURCE, TIED = "no: measures the source, not the target", "no: several have its highest score"


def agreement(found: Candidates) -> pd.DataFrame:
    """The one choice of every validator for all pairs of a set, where it has a score of every training.

    | column | unit, meaning |
    |---|---|
    | benchmark, backbone | the set |
    | validator | its name |
    | would choose | the candidate with the highest score, mean over seeds and pairs; all of equal ones |
    | the same on | on how many single pairs its choice is the same |
    | counts | whether it has a vote; those have none that rank settings of one method alone where several are compared,
        that measure the source, or that give several candidates their highest score |
    | did not learn the source | how many trainings of what it would choose did not, as a text; empty where all did |

    A set with one candidate has no row.
    """
    kinds = found.trainings.groupby(SET)["kind"].nunique()
    unlearned = found.trainings.groupby([*SET, "candidate"])["unlearned"].agg(["sum", "size"])
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
            chosen = _highest(means, name)
            if not chosen:
                continue
            same = sum(_highest(of_pair, name) == chosen for of_pair in of_pairs.values())
            of_chosen = unlearned.loc[[(*set_, candidate) for candidate in chosen]].sum()
            rows.append(
                (
                    *set_,
                    name,
                    " or ".join(chosen),
                    f"{same} of {count(len(of_pairs), 'pair')}",
                    _vote(name, chosen, int(kinds[set_])),
                    f"{of_chosen['sum']} of {count(int(of_chosen['size']), 'training')}" if of_chosen["sum"] else "",
                )
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def votes(table: pd.DataFrame) -> dict[str, str]:
    """Validator -> what it would choose, of those that have a vote in the only set of a table of `agreement`."""
    voting = table[table["counts"] == ACROSS]
    return dict(zip(voting["validator"], voting["would choose"], strict=True))


def agreement_notes(table: pd.DataFrame) -> list[str]:
    """How many validators choose alike, one note a set."""
    notes = []
    for (benchmark, backbone), part in table.groupby(["benchmark", "backbone"], sort=False):
        voting = part[part["counts"] == ACROSS]
        votes = voting.groupby("would choose", sort=False).size().sort_values(ascending=False, kind="stable")
        if votes.empty:
            continue
        scope, voters = f"{benchmark}, {backbone}", int(votes.sum())
        if 2 * votes.iloc[0] > voters:
            note = (
                f"{votes.iloc[0]} of {count(voters, 'validator')} that can compare these would choose {votes.index[0]}."
            )
        else:
            told = ", ".join(f"{candidate} ({number})" for candidate, number in votes.items())
            note = f"the {voters} validators that can compare these disagree. They would choose {told}."
        warned = voting[voting[UNLEARNED] != ""].drop_duplicates("would choose")
        warnings = [
            f" Warning: {candidate} did not learn the source in {trainings}."
            for candidate, trainings in zip(warned["would choose"], warned[UNLEARNED], strict=True)
        ]
        notes.append(f"{scope}: {note}{''.join(warnings)}")
    return notes


def _vote(name: str, chosen: list[str], kinds: int) -> str:
    if name == "source_val":
        return OF_SOURCE
    if name in WITHIN_ONE_METHOD and kinds > 1:
        return WITHIN
    return ACROSS if len(chosen) == 1 else TIED


def _highest(means: pd.DataFrame, name: str) -> list[str]:
    """The candidates with the highest score; none where one of them has no score."""
    scores = means[name]
    return [] if scores.isna().any() else [str(candidate) for candidate in means.index[scores == scores.max()]]
