"""What a report says first, in plain sentences: which is best, by how much, how sure, what is missing, what to do."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from scale_ray.records import DEFAULT_CHOOSER, ORACLE
from scale_ray.report.effects.columns import p_value
from scale_ray.report.effects.contrasts import by_key
from scale_ray.report.effects.measured import tidy
from scale_ray.report.effects.resampling import FEWEST_UNITS, intervals
from scale_ray.report.effects.tables import Effects
from scale_ray.report.page.trials import causes
from scale_ray.report.read.labels import count, join, natural
from scale_ray.report.selection.agreement import agreement_notes
from scale_ray.report.selection.candidates import ALL_PAIRS
from scale_ray.report.selection.text import CELLS, ORACLE_COLUMN, Chosen
from scale_ray.report.tables.facets import facets

MOST_SCOPES = 3  # groups of settings that the answer speaks of; the tables have all
_PAIRS_FOR_A_TEST = 6  # 2 / 2 ** 6 is the first p below 0.05
_RANKED = 0.75  # share of the cells of the fullest one that another must have to be compared with it
_MOST_SEEDS = 20  # nobody trains more to tell two combinations apart

_HOLES = ("failed", "missing", "stale")

NO_ACCURACY = "There is no accuracy, because the target has no labels. Validators, which read none, are shown instead."


@dataclass(frozen=True)
class Step:
    """What to do next, and the command that does it, where there is one."""

    text: str
    command: str | None = None


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
    effects: Effects | None = None,
    *,
    choice: Mapping[str, Chosen] | None = None,
    agreed: pd.DataFrame | None = None,
    commands: Mapping[str, str | None] | None = None,
    location: str = "STORE",
) -> Answer:
    """Answer what a reader came for.

    Args:
        cells: as `completeness.check` returns them.
        effects: of the same cells; their differences from the baseline.
        choice: `choice`, where a validator was asked to choose.
        agreed: what each validator would choose, see `selection.agreement`.
        commands: study -> the command that ran it.
        location: of the store, for commands.
    """
    choice, commands = choice or {}, commands or {}
    counted = cells[~cells["superseded"]]
    sentences = list(_chosen(choice, counted))
    scopes = list(_scopes(counted))
    for scope, benchmark, facet, backbone, part in scopes[:MOST_SCOPES]:
        sentences.append(_of_scope(scope, part, _differences(effects, benchmark, facet, backbone)))
    if len(scopes) > MOST_SCOPES:
        sentences.append(f"{count(len(scopes) - MOST_SCOPES, 'more group')} of settings: see the tables.")
    done = counted[counted["status"] == "done"]
    if len(done) and done["target_accuracy"].isna().all():
        sentences.append(NO_ACCURACY)
    if agreed is not None:
        sentences += [f"Without target labels: {note}" for note in agreement_notes(agreed)[:MOST_SCOPES]]
    steps = [*_to_run(counted, commands), *_to_be_surer(scopes, effects, commands)]
    if "choice" not in choice and agreed is not None and len(agreed):
        steps.append(Step("Choose without target labels:", f"scale-ray report {location} --choose {DEFAULT_CHOOSER}"))
    if (counted["status"] == "failed").any():
        steps.append(
            Step(
                "A failed cell is tried again by the study's command. To forget failures for good:",
                f"scale-ray forget {location} --failed",
            )
        )
    return Answer(sentences, _missing(counted), steps)


def studies_of(cells: pd.DataFrame) -> list[str]:
    """Names of the studies that planned these cells."""
    return sorted({name for names in cells["study"].dropna() for name in names.split(", ")})


Scope = tuple[str, str, str, str, pd.DataFrame]  # as text, benchmark, facet, backbone, accuracies by key and label


def _scopes(counted: pd.DataFrame) -> Iterator[Scope]:
    """What can be compared: the accuracies (pair, seed) x label of every benchmark, facet and backbone."""
    for benchmark, facet, _, part in facets(counted):
        tidied = tidy(part)
        for backbone in sorted(tidied["backbone"].unique(), key=natural):
            table = by_key(tidied[tidied["backbone"] == backbone])
            yield join(benchmark, facet, str(backbone)), benchmark, facet, str(backbone), table


def _differences(effects: Effects | None, benchmark: str, facet: str, backbone: str) -> pd.DataFrame:
    """The differences from the baseline in one scope, by label; empty without a baseline."""
    frame = pd.DataFrame() if effects is None else effects.frames["differences"]
    if frame.empty:
        return frame
    wanted = frame[["benchmark", "facet", "backbone"]].eq([benchmark, facet, backbone]).all(axis=1)
    return frame[wanted].set_index("label")


def _of_scope(scope: str, table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Which label is best, by how much over the baseline and over the second, and how sure that is."""
    if len(table.columns) < 2:
        mean = _means(table).iloc[0]
        return f"{scope}: {table.columns[0]} alone is done: {mean:.1f} %, {_extent(table)}. Nothing to compare it with."
    counts = table.notna().sum()
    ranked_labels = list(counts.index[counts >= _RANKED * counts.max()])
    whole = table[ranked_labels].dropna()
    if whole.empty or len(ranked_labels) < 2:
        return f"{scope}: too few cells are done to compare what was tried: see what is missing."
    ranked = _means(whole).sort_values(ascending=False, kind="stable")
    best, second = str(ranked.index[0]), str(ranked.index[1])
    baseline = str(differences["baseline"].iloc[0]) if len(differences) else ""
    # The keys of the row of Differences, so that text and table have the same numbers.
    shared = table[[best, baseline]].dropna() if best in differences.index else whole
    sentences = [
        f"{scope}: {best} is best by target labels, {_means(shared)[best]:.1f} % on average over {_extent(shared)}"
    ]
    if best in differences.index:
        row = pd.Series(differences.loc[best])
        sentences[0] += f", {row['estimate']:.1f} points above the baseline {baseline}."
        sentences += [_these_pairs(row), _other_pairs(row)]
    elif best == baseline:
        sentences[0] += ". It is the baseline: nothing that was tried is above it on average."
    else:
        sentences[0] += ". No baseline is done to compare it with."
    if second != baseline:
        sentences.append(_to_second(whole, best, second))
    if left := len(counts) - len(ranked_labels):
        sentences.append(f"{left} of {len(counts)} are not ranked, because too many of their cells are missing.")
    return " ".join(sentences)


def _means(table: pd.DataFrame) -> pd.Series:
    """Mean over pairs of the mean over a pair's seeds, by label."""
    return table.groupby(level="pair").mean().mean()


def _extent(table: pd.DataFrame) -> str:
    pairs, seeds = (table.index.get_level_values(level).nunique() for level in ("pair", "seed"))
    holed = f" ({len(table)} of {pairs * seeds} cells)" if len(table) < pairs * seeds else ""
    return f"{count(pairs, 'pair')} and {count(seeds, 'seed')}{holed}"


def _these_pairs(row: pd.Series) -> str:
    if not pd.isna(row["these_low"]):
        low, high = row["these_low"], row["these_high"]
        return f"On these pairs, other seeds would give {low:.1f} to {high:.1f} points (95 %)."
    if "," in row["by_seed"]:
        return f"On these pairs, the seeds gave {row['by_seed']} points, too few for an interval."
    return "One seed says nothing about others."


def _other_pairs(row: pd.Series) -> str:
    pairs = count(int(row["pairs"]), "pair")
    if pd.isna(row["low"]):
        return f"Whether it holds on other pairs, {pairs} cannot say."
    interval = f"{row['low']:.1f} to {row['high']:.1f} points (95 %)"
    if row["verdict"] == "differs":
        return f"On other pairs like these: {interval}, p {p_value(row['p_pairs_holm'])}."
    if row["verdict"] == "n too small":
        return (
            f"On other pairs like these: {interval} if the gains of pairs are normally distributed; without that "
            f"assumption {pairs} are too few to show anything."
        )
    return f"On other pairs no difference is shown: {interval}, p {p_value(row['p_pairs_holm'])}."


def _to_second(whole: pd.DataFrame, best: str, second: str) -> str:
    """Whether the second is told apart from the best by other seeds on these pairs."""
    found = intervals((whole[best] - whole[second]).to_frame("gap")).loc["gap"]
    gap = f"The second, {second}, is {found['estimate']:.1f} points below"
    if pd.isna(found["these_low"]):
        return f"{gap}."
    if found["these_low"] > 0:
        return f"{gap} ({found['these_low']:.1f} to {found['these_high']:.1f} with other seeds)."
    return f"{gap}, and other seeds may turn the two round."


def _chosen(choice: Mapping[str, Chosen], counted: pd.DataFrame) -> Iterator[str]:
    """What the validator chose for all pairs of a set; for the only pair where there is one."""
    if "choice" not in choice:
        return
    frame = choice["choice"].frame
    validator = next(name for name in frame.columns[4:5])
    reads = "which reads target labels" if validator in (ORACLE, ORACLE_COLUMN) else "which reads no target label"
    for (benchmark, backbone), part in frame.groupby(["benchmark", "backbone"], sort=False):
        everywhere = part[part["pair"] == ALL_PAIRS]
        for row in (part if everywhere.empty else everywhere).to_dict("records"):
            second = f", before {row['second']}" if row["second"] else ""
            accuracy = counted.loc[counted["cell"].isin(row[CELLS].split()), "target_accuracy"].mean()
            measured = "" if pd.isna(accuracy) else f" By target labels it has {accuracy:.1f} %."
            yield (
                f"{benchmark}, {backbone}: the validator {validator}, {reads}, chose {row['choice']} for {row['pair']}"
                f"{second}, of {count(row['candidates'], 'candidate')} over {count(row['seeds'], 'seed')}.{measured}"
            )


def _missing(counted: pd.DataFrame) -> str:
    counts, planned = Counter(counted["status"]), len(counted)
    unlearned = int(counted["unlearned"].sum())
    parts = []
    if counts["failed"]:
        found = causes(counted)
        more = f" and {len(found) - 1} other causes" if len(found) > 1 else ""
        parts.append(f"{counts['failed']} failed ({found[0].error}{more})")
    parts += [f"{counts[status]} {status}" for status in _HOLES[1:] if counts[status]]
    holes = (
        f"{counts['done']} of {count(planned, 'cell')} are done; {', '.join(parts)}. Averages leave out what lacks."
        if parts
        else f"All {count(planned, 'cell')} are done: nothing failed or is missing."
    )
    return holes + (f" {count(unlearned, 'training')} did not learn the source (‡)." if unlearned else "")


def _to_run(counted: pd.DataFrame, commands: Mapping[str, str | None]) -> Iterator[Step]:
    """The commands of the studies that have holes."""
    holes = counted[counted["status"] != "done"]
    for study in studies_of(holes):
        statuses = Counter(holes["status"][[study in str(names).split(", ") for names in holes["study"]]])
        lacks = ", ".join(f"{statuses[status]} {status}" for status in _HOLES if statuses[status])
        if commands.get(study):
            yield Step(f"Run what {study} lacks ({lacks}); finished cells are not run again:", commands[study])
        else:
            yield Step(
                f"Run what {study} lacks ({lacks}): the store does not hold the command that planned it. Give that "
                f"command again, with the same store and --name {study}."
            )


def _to_be_surer(scopes: list[Scope], effects: Effects | None, commands: Mapping[str, str | None]) -> Iterator[Step]:
    """More seeds, and more pairs, where an answer above needs them."""
    if not scopes:
        return
    _, benchmark, facet, backbone, table = scopes[0]
    pairs, seeds = (table.index.get_level_values(level).nunique() for level in ("pair", "seed"))
    known = [command for command in commands.values() if command and command.startswith("scale-ray ")]
    command = known[0] if len(known) == 1 else None
    if seeds < FEWEST_UNITS:
        yield Step(
            f"Train {FEWEST_UNITS} seeds: fewer give no interval{':' if command else '.'}",
            _with_seeds(command, FEWEST_UNITS),
        )
    elif len(differences := _differences(effects, benchmark, facet, backbone)):
        needed = differences["seeds_needed"].max()
        if seeds < needed <= _MOST_SEEDS:
            yield Step(
                f"Train {needed:.0f} seeds: then every difference has an interval of ±1 point on these pairs"
                f"{':' if command else '.'}",
                _with_seeds(command, int(needed)),
            )
    if pairs < _PAIRS_FOR_A_TEST and len(table.columns) > 1:
        yield Step(
            f"To learn about other domains, add pairs (--pairs): with fewer than {_PAIRS_FOR_A_TEST} no difference can "
            "be shown to hold on others."
        )


def _with_seeds(command: str | None, seeds: int) -> str | None:
    if command is None:
        return None
    return f"{re.sub(r' --seeds[ =][^ ]+', '', command)} --seeds {seeds}"
