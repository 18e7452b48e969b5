"""What to do next: runs that are missing, more seeds or pairs where the answer needs them, and their commands."""

import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from scale_ray.report.effects.comparisons import HALF_WIDTH
from scale_ray.report.effects.resampling import FEWEST_UNITS
from scale_ray.report.page.ranking import differences, without_holes
from scale_ray.report.tables.uncertainty import FEWEST_KEYS

HOLES = ("failed", "missing", "stale")
_MOST_SEEDS = 20  # nobody trains more to tell two combinations apart


class Step(NamedTuple):
    """What to do next, and the command that does it, where there is one."""

    text: str
    command: str | None = None


def to_run(counted: pd.DataFrame, commands: Mapping[str, str | None]) -> Iterator[Step]:
    """The commands of the studies that have holes."""
    holes = counted[counted["status"] != "done"]
    for study in studies_of(holes):
        statuses = Counter(holes["status"][[study in str(names).split(", ") for names in holes["study"]]])
        open_ = ", ".join(f"{statuses[status]} {status}" for status in HOLES if statuses[status])
        if commands.get(study):
            yield Step(f"Run the rest of {study} ({open_}); finished cells are not run again:", commands[study])
        else:
            yield Step(
                f"Run the rest of {study} ({open_}). The store does not hold the command that planned it: give that "
                f"command again, with the same store and --name {study}."
            )


def studies_of(cells: pd.DataFrame) -> list[str]:
    """Names of the studies that planned these cells."""
    return sorted({name for names in cells["study"].dropna() for name in names.split(", ")})


def to_be_surer(
    planned: pd.DataFrame, table: pd.DataFrame, baseline: str, commands: Mapping[str, str | None]
) -> Iterator[Step]:
    """More seeds, and more pairs, where the answer on a group of settings needs them.

    Args:
        planned: all cells of the group, done or not: what is planned and open is another step.
        table: its accuracies, (pair, seed) x label.
        baseline: the label that others are compared with.
        commands: study -> the command that ran it.
    """
    pairs, seeds = planned["pair"].nunique(), {int(seed) for seed in planned["seed"].unique()}
    known = [command for command in commands.values() if command and command.startswith("scale-ray ")]
    command = known[0] if len(known) == 1 else None
    end = ":" if command else "."
    whole = without_holes(table)
    if len(seeds) < FEWEST_UNITS:
        yield Step(
            f"Train {FEWEST_UNITS} seeds: fewer give no interval{end}", _with_seeds(command, seeds, FEWEST_UNITS)
        )
    elif baseline in whole and len(whole.columns) > 1:
        needed = differences(whole, baseline)["seeds_needed"].max()
        if len(seeds) < needed <= _MOST_SEEDS:
            yield Step(
                f"Train {needed:.0f} seeds for intervals of about ±{HALF_WIDTH:g} point on these pairs{end}",
                _with_seeds(command, seeds, int(needed)),
            )
    if pairs < FEWEST_KEYS and len(table.columns) > 1:
        yield Step(
            f"To learn about other domains, add pairs (--pairs): with fewer than {FEWEST_KEYS} no test can show that a "
            "difference holds on others."
        )


def _with_seeds(command: str | None, seeds: Collection[int], wanted: int) -> str | None:
    """The command with so many seeds: those that are planned, and then the next numbers."""
    if command is None:
        return None
    added = range(max(seeds) + 1, max(seeds) + 1 + wanted - len(seeds))
    counts_from_0 = set(seeds) == set(range(len(seeds)))
    value = str(wanted) if counts_from_0 else ",".join(map(str, [*sorted(seeds), *added]))
    return shlex.join([*_without(shlex.split(command), "--seeds"), "--seeds", value])


def _without(words: Sequence[str], option: str) -> Iterator[str]:
    """The words without an option and its value."""
    rest = iter(words)
    for word in rest:
        if word == option:
            next(rest, None)
        elif not word.startswith(f"{option}="):
            yield word
