"""A leaderboard of several sets: methods by sets, what a step costs, and how the validators do."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from scale_ray.report.figures.board import board_plot
from scale_ray.report.figures.style import render
from scale_ray.report.leaderboard.sets import SetResult, read_sets, write_set
from scale_ray.report.read.errors import ReportError
from scale_ray.report.selection.regret import CHOICE_COLUMNS, least_worst, over_all
from scale_ray.report.selection.text import as_text
from scale_ray.report.tables.board import side_by_side
from scale_ray.report.tables.grid import Grid, Stack, common_notes
from scale_ray.report.tables.markdown import escape, markdown, table_lines
from scale_ray.store.files import replace_file

_COST_NOTES = [
    "Cost of a step relative to source_only of the same set: median seconds of a training, less evaluation, by steps.",
    "A method that takes no step has the seconds of its training.",
]
_CHOICE_NOTES = ["One choice for all pairs of a set: the highest score, mean over seeds and pairs."]


class Leaderboard(NamedTuple):
    """The tables of a leaderboard; in each, `benchmark` or `set` is the name of a set."""

    grid: Grid
    costs: pd.DataFrame
    regrets: pd.DataFrame
    choices: pd.DataFrame
    validator: str | None  # the one with the smallest worst regret
    notes: list[str]  # on the regrets and choices
    facts: pd.DataFrame  # how the records were made


def leaderboard(sets: Sequence[SetResult]) -> Leaderboard:
    """One leaderboard of at least one set; its columns are in their order."""
    table = over_all([row for each in sets for row in each.regrets])
    return Leaderboard(
        grid=side_by_side([each.grid for each in sets]),
        costs=_costs(sets),
        regrets=table,
        choices=pd.DataFrame([row for each in sets for row in each.choices], columns=CHOICE_COLUMNS),
        validator=least_worst(table),
        notes=common_notes((each.name, each.validator_notes) for each in sets),
        facts=pd.DataFrame([{"set": each.name} | each.facts for each in sets]),
    )


def _costs(sets: Sequence[SetResult]) -> pd.DataFrame:
    """As `tables.board.costs`, with a column `set`."""
    table = pd.DataFrame([{"set": each.name} | row for each in sets for row in each.costs])
    return table.astype(dict.fromkeys(table.columns.drop(["set", "method"]), "float64"))  # None is NaN


def write_leaderboard(measured: Sequence[SetResult], names: Sequence[str], results: Path, figure: Path) -> list[Path]:
    """Write each set's results, then the leaderboard of all that the folder has.

    Args:
        measured: go into `results`/leaderboard, as NAME.json.
        names: of the sets that the leaderboard may have, in order.
        results: the leaderboard goes there, as `leaderboard.md`. Folders are made.
        figure: a PNG file.

    Raises:
        ReportError: a folder cannot be made, or a set's file is damaged.
    """
    folder = results / "leaderboard"
    _make(folder)
    _make(figure.parent)
    paths = [write_set(each, folder) for each in measured]
    found = leaderboard(read_sets(folder, names))
    contents = {
        results / "leaderboard.md": _markdown(found).encode(),
        figure: render(board_plot(found.grid), "png"),
    }
    for path, content in contents.items():
        replace_file(path, content)
    return [*paths, *contents]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: cannot be a folder ({error.strerror}): choose another one") from None


def _markdown(found: Leaderboard) -> str:
    default = f"Smallest worst regret{' over all sets' * (len(found.grid.columns) > 1)}: {found.validator}."
    parts = {
        "": [markdown(Stack([found.grid])).rstrip()],
        "Cost of a step": [*table_lines(_costs_by_set(found)), "", *_bullets(_COST_NOTES)],
        "Regret of the validators": [
            *table_lines(as_text(found.regrets.drop(columns="backbone"))),
            "",
            *_bullets([*([default] if found.validator else []), *found.notes]),
        ],
        "The choice of each validator": [
            *table_lines(as_text(found.choices.drop(columns="backbone"))),
            "",
            *_bullets(_CHOICE_NOTES),
        ],
        "How the records were made": table_lines(as_text(found.facts.set_index("set").T.reset_index(names="fact"))),
    }
    lines = ["# Leaderboard"]
    for heading, part in parts.items():
        lines += ["", *([f"### {heading}", ""] if heading else []), *part]
    return "\n".join(lines) + "\n"


def _bullets(texts: Sequence[str]) -> list[str]:
    return [f"- {escape(text)}" for text in texts]


def _costs_by_set(found: Leaderboard) -> pd.DataFrame:
    """Methods by sets as text: the relative cost, or the seconds of a method that takes no step."""
    known = {(row["method"], row["set"]): row for row in found.costs.to_dict("records")}

    def text(method: str, set_: str) -> str:
        row = known.get((method, set_))
        if row is None:
            return "—"
        relative, a_step = row["relative"], row["milliseconds a step"]
        return f"{row['seconds']:.1f} s" if a_step != a_step else "—" if relative != relative else f"{relative:.2f}"

    rows = [
        {"method": method, **{set_: text(method, set_) for set_ in found.grid.columns}} for method in found.grid.rows
    ]
    plain = {set_: known["source_only", set_] for set_ in found.grid.columns if ("source_only", set_) in known}
    rows.append(
        {"method": "source_only, ms a step"}
        | {set_: f"{plain[set_]['milliseconds a step']:.1f}" if set_ in plain else "—" for set_ in found.grid.columns}
    )
    return pd.DataFrame(rows)
