"""The results of one set of a leaderboard, as a file that needs neither its store nor its images.

A set is one study. A leaderboard is of all sets whose files lie in one folder, wherever each was trained.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from scale_ray.report.page.provenance import provenance
from scale_ray.report.read.completeness import check, holes
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import by_method, count, method_labels
from scale_ray.report.read.load import load
from scale_ray.report.selection.candidates import candidates
from scale_ray.report.selection.regret import REGRET_NOTES, choices, regrets
from scale_ray.report.tables.board import FORM, board, costs
from scale_ray.report.tables.grid import Entry, Grid
from scale_ray.store import Store
from scale_ray.store.files import replace_file

_FACTS = ("code", "devices", "seeds", "first start", "last start", "wall time, all records", "python", "torch", "ray")

Rows = list[dict[str, Any]]


class SetResult(BaseModel):
    """One set: accuracies, what a step costs, and how the validators do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    metric: str  # of the accuracies, a key of METRIC_NAMES
    accuracies: dict[str, Entry]  # by method, without the ids of cells
    best: list[str]  # methods that are significantly the highest: one or none
    by_pair: dict[str, dict[str, float]]  # method -> domain pair -> percent, mean over the seeds that are done
    notes: list[str]
    costs: Rows  # as tables.board.costs
    regrets: Rows  # as selection.regret.regrets
    choices: Rows  # as selection.regret.choices
    validator_notes: list[str]
    facts: dict[str, str]  # how the records were made

    @property
    def grid(self) -> Grid:
        """The accuracies as a grid of one column."""
        entries = {(method, self.name): entry for method, entry in self.accuracies.items()}
        best = frozenset((method, self.name) for method in self.best)
        return Grid(FORM, self.name, "", self.metric, list(self.accuracies), [self.name], entries, self.notes, best)


def set_results(location: str | Path, names: Sequence[str], allow: Collection[str] = ()) -> list[SetResult]:
    """The results of those sets that have a finished cell in a store, in this order.

    Args:
        location: of the store.
        names: of studies. Each has one benchmark and one pre-training, so that its trainings can be compared.
        allow: kinds of mixed records to accept, see `completeness.check`.

    Raises:
        StoreError: the store does not exist, or something in it cannot be read.
        ReportError: none of the studies has a finished cell, two of them share a cell, or the records of one do not
            belong in one table.
    """
    store = Store(location)
    cells = load(location)
    cells["set"] = [_set_of(studies, names) for studies in cells["study"].fillna("")]
    finished = set(cells.loc[~cells["superseded"] & (cells["status"] == "done"), "set"])
    if not finished.intersection(names):
        raise ReportError(f"store {location}: no finished cell of {', '.join(names)}: run them into it first")
    return [_measured(name, cells[cells["set"] == name], store, allow) for name in names if name in finished]


def _set_of(studies: str, names: Sequence[str]) -> str:
    """The one of these sets that planned a cell; empty if none did."""
    found = [name for name in studies.split(", ") if name in names]
    if len(found) > 1:
        raise ReportError(f"studies {' and '.join(found)} have a cell in common: run them into stores of their own")
    return "".join(found)


def _measured(name: str, cells: pd.DataFrame, store: Store, allow: Collection[str]) -> SetResult:
    cells, remarks = check(cells, allow)
    done = cells[~cells["superseded"] & (cells["status"] == "done")]
    missing = len(holes(cells))
    if missing:
        planned = count(int((~cells["superseded"]).sum()), "cell")
        remarks = [*remarks, f"Not finished: {missing:,} of {planned}."]
    grid = board(cells, name, remarks)
    found = candidates(done.assign(benchmark=name), store)
    facts = provenance(done)
    means = done.assign(method=method_labels(done)).groupby(["method", "pair"])["target_accuracy"].mean()
    return SetResult(
        name=name,
        metric=grid.metric,
        accuracies={method: replace(grid.entries[method, name], trials=()) for method in grid.rows},
        best=sorted(method for method, _ in grid.best),
        by_pair={method: means[method].to_dict() for method in sorted(means.index.unique("method"), key=by_method)},
        notes=grid.notes,
        costs=_plain(costs(done)),
        regrets=_plain(regrets(found)),
        choices=_plain(choices(found)),
        validator_notes=[*REGRET_NOTES, *found.notes],
        facts={fact: facts[fact] for fact in _FACTS if fact in facts},
    )


def _plain(frame: pd.DataFrame) -> Rows:
    """Rows as dicts; a missing number is None."""
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def write_set(found: SetResult, folder: Path) -> Path:
    """Write a set's file, NAME.json, into a folder that exists, in place of an earlier one."""
    path = folder / f"{found.name}.json"
    replace_file(path, (found.model_dump_json(indent=1) + "\n").encode())
    return path


def read_sets(folder: Path, names: Sequence[str]) -> list[SetResult]:
    """Those of these sets that have a file in a folder, in this order.

    Raises:
        ReportError: a file is not one that `write_set` wrote.
    """
    return [_read(path) for path in (folder / f"{name}.json" for name in names) if path.is_file()]


def _read(path: Path) -> SetResult:
    try:
        return SetResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ReportError(
            f"{path}: no results of a set ({where}: {problem['msg']}): delete it, and run its set again"
        ) from None
