"""What a report says first, in plain sentences: which is best, by how much, how sure, what is missing, what to do."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from scale_ray.records import DEFAULT_CHOOSER, ORACLE
from scale_ray.report.effects.contrasts import by_key
from scale_ray.report.effects.measured import tidy
from scale_ray.report.effects.tables import BASELINE
from scale_ray.report.page.ranking import named, of_scope
from scale_ray.report.page.steps import HOLES, Step, to_be_surer, to_run
from scale_ray.report.page.trials import causes
from scale_ray.report.read.labels import count, join, natural
from scale_ray.report.selection.agreement import agreement_notes
from scale_ray.report.selection.candidates import ALL_PAIRS
from scale_ray.report.selection.text import CELLS, ORACLE_COLUMN, Chosen
from scale_ray.report.tables.facets import facets

MOST_SCOPES = 3  # groups of settings that the answer speaks of; the tables have all

NO_ACCURACY = "There is no accuracy, because the target has no labels. Validators, which read none, are shown instead."


@dataclass(frozen=True)
class Answer:
    """The opening of a report.

    Attributes:
        sentences: one paragraph for each benchmark, facet and backbone, the chosen first.
        missing: what has failed or is missing, in one paragraph.
        steps: what to do next.
    """

    sentences: list[str] = field(default_factory=list)
    missing: str = ""
    steps: list[Step] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Plain text, for a terminal."""
        lines = [*self.sentences, self.missing]
        return "\n".join(line for line in lines if line)


def answer(
    cells: pd.DataFrame,
    *,
    baseline: str = BASELINE,
    choice: Mapping[str, Chosen] | None = None,
    agreed: pd.DataFrame | None = None,
    commands: Mapping[str, str | None] | None = None,
    location: str = "STORE",
    options: Sequence[str] = (),
) -> Answer:
    """Answer what a reader came for.

    Args:
        cells: as `completeness.check` returns them.
        baseline: the label that others are compared with.
        choice: `choice`, where a validator was asked to choose.
        agreed: what each validator would choose, see `selection.agreement`.
        commands: study -> the command that ran it.
        location: of the store, for commands.
        options: of `scale-ray report`, with which this one was made; commands that are proposed have them too.
    """
    choice, commands = choice or {}, commands or {}
    counted = cells[~cells["superseded"]]
    sentences = list(_chosen(choice, counted))
    scopes = list(_scopes(counted))
    sentences += [of_scope(scope.name, scope.table, baseline) for scope in scopes[:MOST_SCOPES]]
    if len(scopes) > MOST_SCOPES:
        sentences.append(f"{count(len(scopes) - MOST_SCOPES, 'more group')} of settings: see the tables.")
    sentences += _without_labels(counted)
    if agreed is not None:
        sentences += [f"Without target labels: {note}" for note in agreement_notes(agreed)[:MOST_SCOPES]]
    steps = list(to_run(counted, commands))
    if scopes:
        steps += to_be_surer(scopes[0].planned, scopes[0].table, baseline, commands)
    if "choice" not in choice and agreed is not None and len(agreed):
        words = ["scale-ray", "report", location, *options, "--choose", DEFAULT_CHOOSER]
        steps.append(Step("Choose without target labels:", shlex.join(words)))
    if (counted["status"] == "failed").any():
        steps.append(
            Step(
                "The study's command tries failed cells again. To forget failures for good:",
                shlex.join(["scale-ray", "forget", location, "--failed"]),
            )
        )
    return Answer(sentences, _missing(counted), steps)


class _Scope(NamedTuple):
    """What can be compared: one benchmark, facet and backbone."""

    name: str
    planned: pd.DataFrame  # its cells, done or not
    table: pd.DataFrame  # accuracies, (pair, seed) x label


def _scopes(counted: pd.DataFrame) -> Iterator[_Scope]:
    for benchmark, facet, _, part in facets(counted):
        tidied = tidy(part)
        for backbone in sorted(tidied["backbone"].unique(), key=natural):
            table = by_key(tidied[tidied["backbone"] == backbone])
            yield _Scope(join(benchmark, facet, str(backbone)), part[part["backbone"] == backbone], table)


def _without_labels(counted: pd.DataFrame) -> Iterator[str]:
    """Which finished pairs have no accuracy."""
    done = counted[counted["status"] == "done"]
    lacking = done["target_accuracy"].isna()
    if lacking.all():
        yield from [NO_ACCURACY] * bool(len(done))
    elif lacking.any():
        pairs = sorted(done.loc[lacking, "pair"].unique(), key=natural)
        yield (
            f"There is no accuracy of {named(pairs)}, because the target has no labels. The tables of validators, "
            "which read none, have every pair."
        )


def _chosen(choice: Mapping[str, Chosen], counted: pd.DataFrame) -> Iterator[str]:
    """What the validator chose for all pairs of a set; for the only pair where there is one."""
    if "choice" not in choice:
        return
    frame, _, warnings = choice["choice"]
    validator = frame.columns[4]
    reads = "which reads target labels" if validator in (ORACLE, ORACLE_COLUMN) else "which reads no target label"
    for (benchmark, backbone), part in frame.groupby(["benchmark", "backbone"], sort=False):
        everywhere = part[part["pair"] == ALL_PAIRS]
        for row in (part if everywhere.empty else everywhere).to_dict("records"):
            second = f", before {row['second']}" if row["second"] else ""
            left_out = row["left out"]
            without = f" ({left_out} more left out, as they lack pairs or seeds)" if left_out else ""
            yield " ".join(
                [
                    f"{benchmark}, {backbone}: the validator {validator}, {reads}, chose {row['choice']} for "
                    f"{row['pair']}{second}, of {count(row['candidates'], 'candidate')} over "
                    f"{count(row['seeds'], 'seed')}{without}.",
                    *warnings,
                    *_of_chosen(counted[counted["cell"].isin(row[CELLS].split())]),
                ]
            )


def _of_chosen(cells: pd.DataFrame) -> Iterator[str]:
    """What is known of the trainings of the choice."""
    if unlearned := int(cells["unlearned"].sum()):
        yield f"Warning: {unlearned} of its {count(len(cells), 'training')} did not learn the source (‡)."
    of_pairs = cells.groupby("pair")["target_accuracy"].mean()
    if known := int(of_pairs.notna().sum()):
        where = f" on the {known} of {count(len(of_pairs), 'pair')} with labels" if known < len(of_pairs) else ""
        yield f"By target labels its accuracy is {of_pairs.mean():.1f} %{where}."


def _missing(counted: pd.DataFrame) -> str:
    counts, planned = Counter(counted["status"]), len(counted)
    unlearned = int(counted["unlearned"].sum())
    parts = []
    if counts["failed"]:
        found = causes(counted)
        more = f" and {count(len(found) - 1, 'other cause')}" if len(found) > 1 else ""
        parts.append(f"{counts['failed']} failed ({found[0].error}{more})")
    parts += [f"{counts[status]} {status}" for status in HOLES[1:] if counts[status]]
    if not parts:
        holes = "The only cell is done." if planned == 1 else f"All {planned:,} cells are done."
    else:
        verb = "is" if planned == 1 else "are"
        holes = f"{counts['done']:,} of {count(planned, 'cell')} {verb} done. Not done: {', '.join(parts)}."
        holes += " Averages are over finished cells alone." if counts["done"] else ""
    return holes + (f" {count(unlearned, 'training')} did not learn the source (‡)." if unlearned else "")
