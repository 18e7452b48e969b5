"""Sends what a store holds to a tracker: the records of a study, and its report."""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from scale_ray.cell import Cell
from scale_ray.records import Record
from scale_ray.store import Store
from scale_ray.track.content import Outcome, Run, outcome_of, run_of
from scale_ray.track.names import Names
from scale_ray.track.tracker import REPORT, Tracker

# Stands for the study of cells that none planned, as those of `scale-ray train`. No study can have this name.
UNPLANNED = "no study"

_SHOWN = (".png", ".md", ".csv", ".html", ".json")  # of a report's files; pictures are there in further formats


@dataclass(frozen=True)
class Sent:
    """How many records of a study went to a tracker, and how many it had already."""

    sent: int
    there: int


def study_cells(store: Store, study: str | None = None) -> Iterator[tuple[str, list[Cell]]]:
    """Each study of a store with its cells; last, as `UNPLANNED`, the records that no study planned.

    Args:
        study: only this one.
    """
    planned = set[str]()
    for plan in store.plans():
        planned.update(cell.id for cell in plan.cells)
        if study in (None, plan.name):
            yield plan.name, plan.cells
    if study in (None, UNPLANNED):
        others = [trial for trial in store.record_ids() if trial not in planned]
        if others:
            yield UNPLANNED, list(map(_cell, store.records(others)))


def send_records(
    tracker: Tracker,
    study: str,
    cells: Iterable[str],
    names: Names,
    store: Store,
    *,
    unchanged: Collection[str] = (),
    moved: Callable[[str], None] = lambda cell: None,
) -> Sent:
    """Send the records of a study's cells that a tracker does not show yet, or shows otherwise.

    Args:
        cells: ids of cells; those without a record are left out.
        unchanged: cells whose records are not read again where the tracker shows any.
        moved: called with a cell's id when the tracker shows its record.

    Raises:
        StoreError: a record cannot be read.
        Exception: whatever the tracker's package raises. What was sent before that stays.
    """
    marks, present = tracker.marks(study), set(store.record_ids())
    wanted = [cell for cell in cells if cell in present]
    to_read = [cell for cell in wanted if not (cell in marks and cell in unchanged)]
    sent = 0
    for record in store.records(to_read):
        run, outcome = told(record, study, names, store)
        if marks.get(record.id) != outcome.mark:
            tracker.end(run, outcome)
            sent += 1
        moved(record.id)
    return Sent(sent=sent, there=len(wanted) - sent)


def told(record: Record, study: str, names: Names, store: Store | None) -> tuple[Run, Outcome]:
    """What a tracker is told of a record, with the model that the store has."""
    run = run_of(_cell(record), study, names)
    has_model = store is not None and store.has_beside(record.id, ["model"])
    model = partial(store.read_model, record.id) if store is not None and has_model else None
    return run, outcome_of(record, run, model)


def send_report(tracker: Tracker, study: str, files: dict[str, bytes]) -> bool:
    """Send a report, unless the tracker shows the same one; returns whether it was sent."""
    digest = sha256()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + content)
    mark = digest.hexdigest()[:16]
    if tracker.marks(study).get(REPORT) == mark:
        return False
    tracker.show_report(study, files, mark)
    return True


def report_files(store: Store, study: str, folder: Path | None = None, cells: Collection[str] = ()) -> dict[str, bytes]:
    """The files of a study's report: name -> content; empty where there is none.

    Args:
        folder: where the report is; by default `report` in the folder of the store.
        cells: ids of those that have a record. A report that lacks one of them is another study's, or is too old.

    Of a search, what it has found is among them.
    """
    if folder is None and store.folder is not None:
        folder = store.folder / "report"
    files = {}
    if folder is not None and (folder / "report.html").is_file() and _shows(folder, cells):
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in _SHOWN and path.is_file()
        }
    search = f"tuning/{study}"
    found = [f"{search}/{name}" for name in store.files.names(search) if name.endswith(_SHOWN)]
    return files | {name.removeprefix("tuning/"): content for name, content in store.files.read_many(found)}


def _shows(folder: Path, cells: Collection[str]) -> bool:
    """Whether the records of a report, if it lists any, have all of these cells."""
    table = folder / "records.csv"
    if not table.is_file():
        return True
    with table.open(newline="", encoding="utf-8") as file:
        return {row["cell"] for row in csv.DictReader(file)}.issuperset(cells)


def _cell(record: Record) -> Cell:
    return Cell(id=record.id, config=record.config, inputs=record.inputs)
