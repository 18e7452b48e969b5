"""From a store to a folder: records.csv, grids, figures, the page. The same store gives the same bytes."""

import io
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from scale_ray.records import Record
from scale_ray.report import effects_text
from scale_ray.report.aggregate import grids
from scale_ray.report.axes import tabulate
from scale_ray.report.completeness import check, holes
from scale_ray.report.drawings import drawings, of_trial
from scale_ray.report.effects import BASELINE, EffectTables, effects_tables
from scale_ray.report.grid import Grid, Stack, stacks
from scale_ray.report.labels import count
from scale_ray.report.load import ReportError, read
from scale_ray.report.page import page
from scale_ray.report.style import save
from scale_ray.report.tables import comma_separated, html, latex, markdown
from scale_ray.store import Store, StudyPlan
from scale_ray.store.files import replacing

MOST_DRAWN = 3  # the paper's backbones; each takes some seconds
FORMS = ("losses_by_backbone", "pairs_by_method")
KINDS: dict[str, Callable[[list[Stack]], str]] = {
    "md": lambda tables: "\n".join(map(markdown, tables)),
    "csv": comma_separated,
    "tex": lambda tables: "\n".join(map(latex, tables)),
    "html": lambda tables: "\n".join(map(html, tables)),
}


class ReportPaths(NamedTuple):
    """What `write_report` wrote, and the grids that it wrote down."""

    page: Path
    records: Path
    holes: Path
    tables: list[Path]  # Markdown, CSV, LaTeX and HTML of each form
    effects: list[Path]  # effects.md and .tex, and each table of effects as CSV
    figures: list[Path]  # PNG, SVG and PDF
    parquet: list[Path]  # cells and curves, where they were asked for
    grids: list[Grid]  # what the tables hold
    claims: pd.DataFrame  # see claims.claims
    missing: int  # planned cells that have no result


@dataclass(frozen=True)
class Asked:
    """What a report should hold beyond the usual, and what it should overlook.

    Args:
        study: only this study's cells.
        allow: kinds of mixes that are accepted, see `completeness.check`.
        rows, columns, facet: axes of one more form, see `axes.tabulate`.
        published: other authors' figures of Office-Home beside the measured ones.
        oracle: best epochs, chosen by target labels, beside the last iterates.
        parquet: cells and curves as Parquet.
        baseline: what the others are compared with, see `comparisons.against_baseline`.
        confusion: trials whose confusion matrices to draw: ids, or their first characters.
        most_drawn: figures of each kind at most, and effects of as many facets; tables are always of all.
    """

    study: str | None = None
    allow: Collection[str] = ()
    rows: str | None = None
    columns: str | None = None
    facet: str | None = None
    published: bool = False
    oracle: bool = False
    parquet: bool = False
    baseline: str = BASELINE
    confusion: Collection[str] = ()
    most_drawn: int = MOST_DRAWN


class _PlanHead(StudyPlan):
    """A plan whose cells are not looked at: to check them again would take as long as to read all records."""

    cells: list[Any]


def write_report(store: str | Path, out: str | Path, asked: Asked | None = None) -> ReportPaths:
    """Write the whole report of a store into the folder `out`, made where it is missing.

    Raises:
        StoreError: no such store, something in it that cannot be read, or `out` cannot be written to.
        ReportError: nothing to report, records that belong in no one table (see `completeness.check`), axes that
            cannot be (see `axes.tabulate`), no such baseline, a trial without confusion matrix, or `out` is a file.
    """
    asked = asked or Asked()
    loaded, curves = read(store, study=asked.study)
    if loaded.empty:
        raise ReportError(f"store {store}: neither a study plan nor a record in it: run a study into it first")
    if (asked.rows is None) != (asked.columns is None) or (asked.facet and asked.rows is None):
        raise ReportError("--rows, --columns, --facet: a table needs both rows and columns: name the two")
    cells, remarks = check(loaded, asked.allow)
    shown_trials = [_record(store, trial) for trial in asked.confusion]
    found = grids(cells, remarks=remarks, published=asked.published, oracle=asked.oracle)
    if asked.rows and asked.columns:
        found += tabulate(cells, asked.rows, asked.columns, asked.facet, remarks=remarks, oracle=asked.oracle)
    effects = effects_tables(cells, asked.baseline, most=asked.most_drawn)
    out = Path(out)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{out}: cannot hold a report ({error.strerror}): choose another folder") from None

    shown = loaded if asked.oracle else loaded.drop(columns="oracle_accuracy")
    records = _write_csv(out / "records.csv", shown.drop(columns="traceback"))
    lacking = holes(cells)
    without = _write_csv(out / "holes.csv", lacking)
    tables = []
    for form in dict.fromkeys([*FORMS, *(grid.form for grid in found)]):
        share = stacks(grid for grid in found if grid.form == form)
        tables += [_write(out / f"{form}.{kind}", write(share)) for kind, write in KINDS.items()]
    of_effects = _write_effects(out, effects)
    parquet = []
    if asked.parquet:
        parquet = [_write_parquet(out / "cells.parquet", shown), _write_parquet(out / "curves.parquet", curves)]

    drawn = drawings(found, cells, curves, effects, asked.most_drawn)
    figures: list[Path] = []
    on_page: dict[str, dict[str, list[tuple[str, bytes]]]] = {}
    for drawing in itertools.chain(drawn, *map(of_trial, shown_trials)):
        paths = save(drawing.figure, out / "figures" / drawing.name)
        figures += paths
        if drawing.heading:
            of_benchmark = on_page.setdefault(drawing.benchmark, {})
            of_benchmark.setdefault(drawing.heading, []).append((drawing.title, paths[1].read_bytes()))
    commands = {plan.name: plan.command for plan in Store(store).plans_as(_PlanHead)}
    text = page(cells, found, on_page, points=curves, effects=effects, commands=commands)
    return ReportPaths(
        page=_write(out / "report.html", text),
        records=records,
        holes=without,
        tables=tables,
        effects=of_effects,
        figures=figures,
        parquet=parquet,
        grids=found,
        claims=effects.claims,
        missing=len(lacking),
    )


def _record(store: str | Path, trial: str) -> Record:
    """The one record whose id begins so."""
    opened = Store(store)
    found = [known for known in opened.record_ids() if known.startswith(trial)]
    if len(found) != 1:
        raise ReportError(f"--confusion {trial}: {count(len(found), 'record')} begin so: write more of the cell's id")
    record = opened.read_record(found[0])
    if record is None or record.result is None or not record.result.confusion:
        raise ReportError(
            f"--confusion {trial}: {opened.record_location(found[0])} has no confusion matrix: it failed, or the "
            "record is an old one; name another"
        )
    return record


def _write_effects(out: Path, effects: EffectTables) -> list[Path]:
    """Effects as text, and each table that has rows as CSV; an earlier report's file of one that has none goes."""
    texts = {"md": effects_text.markdown(effects), "tex": effects_text.latex(effects)}
    paths = [_write(out / f"effects.{kind}", text) for kind, text in texts.items()]
    for name in effects_text.TITLES:
        path, frame = out / f"{name}.csv", getattr(effects, name)
        if frame.empty:
            path.unlink(missing_ok=True)
        else:
            paths.append(_write_csv(path, frame))
    return paths


def _write_csv(path: Path, frame: pd.DataFrame) -> Path:
    return _write(path, frame.to_csv(index=False, lineterminator="\n"))


def _write_parquet(path: Path, frame: pd.DataFrame) -> Path:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return _write(path, buffer.getvalue())


def _write(path: Path, content: str | bytes) -> Path:
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path
