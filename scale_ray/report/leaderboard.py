"""A leaderboard of several studies in one store: methods by sets, what a step costs, and how the validators do.

A set is one study. The same store gives the same bytes.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from scale_ray.report.figures.board import board_plot
from scale_ray.report.figures.style import render
from scale_ray.report.page.provenance import provenance
from scale_ray.report.read.completeness import check, holes
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import count
from scale_ray.report.read.load import load
from scale_ray.report.selection.candidates import candidates
from scale_ray.report.selection.regret import REGRET_NOTES, choices, least_worst, regrets
from scale_ray.report.selection.text import as_text
from scale_ray.report.tables.board import board, costs
from scale_ray.report.tables.grid import Grid, Stack
from scale_ray.report.tables.markdown import escape, markdown, table_lines
from scale_ray.store import Store
from scale_ray.store.files import replace_file

_COST_NOTES = [
    "Cost of a step relative to source_only of the same set: seconds of a trial, evaluation included, by its steps.",
    "A method that takes no step has its seconds a trial.",
]
_FACTS = ("code", "devices", "first start", "last start", "wall time, all records", "python", "torch", "ray", "timm")


class Leaderboard(NamedTuple):
    """The tables of a leaderboard; in each, `benchmark` or `set` is a study's name."""

    grid: Grid
    costs: pd.DataFrame
    regrets: pd.DataFrame
    choices: pd.DataFrame
    validator: str | None  # the one with the smallest worst regret
    notes: list[str]  # on the regrets and choices
    facts: dict[str, str]  # how the records were made


def leaderboard(location: str | Path, studies: Sequence[str], allow: Collection[str] = ()) -> Leaderboard:
    """The leaderboard of those studies that a store has, in this order.

    Args:
        location: of the store.
        studies: names. Every study has one benchmark and one pre-training, so that its trainings can be compared.
        allow: kinds of mixed records to accept, see `completeness.check`.

    Raises:
        StoreError: the store does not exist, or something in it cannot be read.
        ReportError: none of the studies has a finished cell, two of them share a cell, or the records do not belong in
            one table.
    """
    store = Store(location)
    cells = load(location)
    cells["set"] = [_set_of(names, studies) for names in cells["study"].fillna("")]
    cells, remarks = check(cells[cells["set"] != ""], allow)
    done = cells[~cells["superseded"] & (cells["status"] == "done")]
    sets = [name for name in studies if name in set(done["set"])]
    if not sets:
        raise ReportError(f"store {location}: no finished cell of {', '.join(studies)}: run them into it first")
    missing = cells["set"][cells["cell"].isin(holes(cells)["cell"])].value_counts()
    remarks = remarks + [
        f"Not finished: {missing[name]:,} of {count(int((cells['set'] == name).sum()), 'cell')} of {name}."
        for name in studies
        if name in missing
    ]
    found = candidates(done.assign(benchmark=done["set"]), store)
    table = regrets(found)
    facts = provenance(done)
    return Leaderboard(
        grid=board(cells[cells["set"].isin(sets)], sets, remarks),
        costs=costs(done),
        regrets=table,
        choices=choices(found),
        validator=least_worst(table),
        notes=[*REGRET_NOTES, *found.notes],
        facts={name: facts[name] for name in _FACTS if name in facts},
    )


def _set_of(names: str, studies: Sequence[str]) -> str:
    """The one of these studies that planned a cell; empty if none did."""
    found = [name for name in names.split(", ") if name in studies]
    if len(found) > 1:
        raise ReportError(f"studies {' and '.join(found)} have a cell in common: run them into stores of their own")
    return "".join(found)


def write_leaderboard(found: Leaderboard, results: Path, figure: Path) -> list[Path]:
    """Write `leaderboard.md` and `.json` into the folder `results`, and the figure as PNG. Folders are made.

    Raises:
        ReportError: a folder cannot be made.
    """
    contents = {
        results / "leaderboard.md": _markdown(found).encode(),
        results / "leaderboard.json": (json.dumps(_plain(found), indent=1) + "\n").encode(),
        figure: render(board_plot(found.grid), "png"),
    }
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReportError(f"{path.parent}: cannot be a folder ({error.strerror}): choose another one") from None
        replace_file(path, content)
    return list(contents)


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
            *_bullets(["One choice for all pairs of a set: the highest score, mean over seeds and pairs."]),
        ],
        "How the records were made": _bullets([f"{name}: {value}" for name, value in found.facts.items()]),
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


def _plain(found: Leaderboard) -> dict[str, Any]:
    """The leaderboard as JSON can hold it."""
    beside = found.grid.beside[0]
    accuracies = [
        {
            "method": row,
            "set": column,
            **{name: getattr(entry, name) for name in ("mean", "std", "low", "high", "n", "unlearned")},
        }
        for row in found.grid.rows
        for column in found.grid.columns
        if (entry := found.grid.entries[row, column]).mean is not None
    ]
    return {
        "accuracies": accuracies,
        "below": [
            {"method": row} | {name: beside.figures[row, name][0] for name in beside.columns}
            for row in found.grid.rows
            if (row, beside.columns[0]) in beside.figures
        ],
        "costs": _records(found.costs),
        "regrets": _records(found.regrets),
        "choices": _records(found.choices),
        "validator": found.validator,
        "notes": [*found.grid.notes, *_COST_NOTES, *found.notes],
        "facts": found.facts,
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts; a missing number is None."""
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]
