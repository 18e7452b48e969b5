"""The table of choice: the candidate that a validator chooses on each domain pair and over all pairs."""

from collections.abc import Iterator

import pandas as pd

from scale_ray.config import check_name
from scale_ray.records import DEFAULT_CHOOSER, ORACLE, SET_VALIDATOR_NAMES, WITHIN_ONE_METHOD
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import count
from scale_ray.report.selection.candidates import ESTIMATE, SCORES, SET, Candidates
from scale_ray.report.selection.text import CELLS, ORACLE_COLUMN

_FEWEST = 3  # candidates of an ensemble


def choice(found: Candidates, validator: str) -> pd.DataFrame:
    """The candidate with the highest mean score over seeds, on each pair and over all pairs; the first of equal ones.

    | column | unit, meaning |
    |---|---|
    | benchmark, backbone, pair | what was chosen for; `all pairs`: one candidate for all of them |
    | choice | method, loss combination and settings |
    | the validator's name | its mean score; for `oracle (target labels)`, percent |
    | second, margin | the candidate with the next score, and how much lower that is |
    | candidates, left out | how many were compared, and how many were not, because they lack seeds or pairs |
    | seeds | over how many each was compared |
    | estimated accuracy | percent of target images on which the choice agrees with the ensemble of all candidates |
    | estimated regret | points by which that is below the best candidate's, on each pair; mean over pairs |
    | cells | ids of the choice's cells, with blanks between |

    The two estimates are empty where predictions are not stored.

    Raises:
        ConfigError: there is no such validator.
        ReportError: a training has no score by it.
    """
    check_name("validator", validator, SCORES)
    _refuse_unscored(found, validator)
    rows = []
    for (benchmark, backbone), pair, means in found.compared():
        ranked = means[validator].sort_values(ascending=False, kind="stable")
        chosen, several = ranked.index[0], len(ranked) > 1
        rows.append(
            {
                "benchmark": benchmark,
                "backbone": backbone,
                "pair": pair,
                "choice": chosen,
                ORACLE_COLUMN if validator == ORACLE else validator: ranked.iloc[0],
                "second": ranked.index[1] if several else None,
                "margin": ranked.iloc[0] - ranked.iloc[1] if several else None,
                "candidates": len(ranked),
                "left out": found.tried_on(benchmark, backbone, pair) - len(ranked),
                "seeds": int(means["seeds"].min()),
                "estimated accuracy": means.loc[chosen, ESTIMATE],
                "estimated regret": means.loc[chosen, "estimated regret"],
                CELLS: " ".join(found.cells_of(benchmark, backbone, pair, chosen)),
            }
        )
    return pd.DataFrame(rows)


def choice_scores(found: Candidates, validator: str) -> pd.DataFrame:
    """Why: every candidate's mean score on each pair and over all pairs, the highest first.

    Columns: benchmark, backbone, pair, candidate, the validator's name, estimated accuracy.
    """
    name = ORACLE_COLUMN if validator == ORACLE else validator
    rows = [
        {
            "benchmark": benchmark,
            "backbone": backbone,
            "pair": pair,
            "candidate": candidate,
            name: score,
            "estimated accuracy": estimate,
        }
        for (benchmark, backbone), pair, means in found.compared()
        for candidate, score, estimate in _ranked(means, validator)
    ]
    return pd.DataFrame(rows)


def _ranked(means: pd.DataFrame, validator: str) -> Iterator[tuple[str, float, float]]:
    """Candidate, its score and its estimated accuracy, the highest score first."""
    order = means.sort_values(validator, ascending=False, kind="stable")
    yield from zip(map(str, order.index), order[validator], order[ESTIMATE], strict=True)


def choice_warnings(found: Candidates, validator: str) -> list[str]:
    """Why not to rely on the validator here."""
    kinds = found.trainings.groupby(SET)["kind"].nunique().max()
    warnings = []
    if validator in WITHIN_ONE_METHOD and kinds > 1:
        warnings.append(
            f"Warning: {validator} ranks trainings of one method and loss combination only, and {kinds} are compared "
            f"here: it prefers those that train for certainty. Choose by {DEFAULT_CHOOSER}."
        )
    if validator == ESTIMATE and found.trainings.groupby([*SET, "pair"])["candidate"].nunique().min() < _FEWEST:
        warnings.append(
            f"Warning: with fewer than {_FEWEST} candidates the ensemble follows the most certain one: compare more."
        )
    return warnings


def choice_notes(found: Candidates, validator: str) -> list[str]:
    """What the table of `choice` means, what it lacks, and warnings."""
    notes = choice_warnings(found, validator)
    if validator == ORACLE:
        notes.append(f"{ORACLE_COLUMN} chose: an upper bound, no way to choose.")
    collapsed = found.trainings[found.trainings["unlearned"]]
    if not collapsed.empty:
        names = sorted({f"{row.candidate} on {row.pair}" for row in collapsed.itertuples()})
        notes.append(f"Warning: did not learn their source (‡ in the tables): {', '.join(names)}.")
    notes.append("Score: mean over seeds, last iterate, higher is better; over all pairs, the mean of the pairs.")
    if found.lacking:
        notes.append(
            f"No estimate where predictions are not stored: {len(found.lacking):,} of "
            f"{count(len(found.trainings), 'done cell')} (--keep-predictions)."
        )
    if len(found.lacking) < len(found.trainings):
        by_definition = "; 0 on each pair by definition, as ensv chose" if validator == ESTIMATE else ""
        notes.append(
            "Estimated accuracy: agreement with the labels of the candidates' ensemble, percent. Estimated regret: "
            f"points of it below the best candidate on each pair, mean over pairs{by_definition}."
        )
    return [*notes, *found.notes]


def _refuse_unscored(found: Candidates, validator: str) -> None:
    unscored = found.trainings[found.trainings[validator].isna()]
    if unscored.empty:
        return
    of = f"of {count(len(found.trainings), 'done cell')}"
    if validator in SET_VALIDATOR_NAMES:
        unscored = found.trainings[found.trainings["cell"].isin(found.lacking)]
        problem = f"{len(unscored):,} {of} without stored predictions"
        remedy = "run the study again with --keep-predictions, which trains those cells again"
    elif validator == ORACLE:
        problem, remedy = f"{len(unscored):,} {of} have a target without labels", "choose by another validator"
    else:
        problem = f"{len(unscored):,} {of} are older than this validator"
        remedy = "move their records away and run the study again"
    first = unscored.iloc[0]
    example = f"the first is {first['pair']} {first['candidate']} seed {first['seed']}"
    raise ReportError(f"--choose {validator}: {problem} ({example}): {remedy}")
