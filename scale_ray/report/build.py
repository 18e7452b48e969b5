"""From a store to a folder: records.csv, grids, figures, the page. The same store gives the same bytes."""

import hashlib
import io
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from scale_ray.files import replacing
from scale_ray.report.aggregate import facets, grids
from scale_ray.report.axes import tabulate
from scale_ray.report.completeness import check, holes
from scale_ray.report.figures import accuracy_curves, heat_map, render
from scale_ray.report.grid import Grid
from scale_ray.report.labels import join, natural
from scale_ray.report.load import ReportError, read
from scale_ray.report.page import page
from scale_ray.report.tables import comma_separated, html, latex, markdown
from scale_ray.store import Store

FORMS = ("losses_by_backbone", "pairs_by_method")
KINDS: dict[str, Callable[[list[Grid]], str]] = {
    "md": lambda grids: "\n".join(map(markdown, grids)),
    "csv": comma_separated,
    "tex": lambda grids: "\n".join(map(latex, grids)),
    "html": lambda grids: "\n".join(map(html, grids)),
}


class ReportPaths(NamedTuple):
    """What `write_report` wrote, and the grids that it wrote down."""

    page: Path
    records: Path
    holes: Path
    tables: list[Path]  # Markdown, CSV, LaTeX and HTML of each form
    figures: list[Path]  # PNG and SVG
    parquet: list[Path]  # cells and curves, where they were asked for
    grids: list[Grid]  # what the tables hold
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
    """

    study: str | None = None
    allow: Collection[str] = ()
    rows: str | None = None
    columns: str | None = None
    facet: str | None = None
    published: bool = False
    oracle: bool = False
    parquet: bool = False


def write_report(store: str | Path, out: str | Path, asked: Asked | None = None) -> ReportPaths:
    """Write the whole report of a store into the folder `out`, made where it is missing.

    Raises:
        StoreError: no such store, something in it that cannot be read, or `out` cannot be written to.
        ReportError: nothing to report, records that belong in no one table (see `completeness.check`), axes that
            cannot be (see `axes.tabulate`), or `out` is a file.
    """
    asked = asked or Asked()
    loaded, curves = read(store, study=asked.study)
    if loaded.empty:
        raise ReportError(f"store {store}: neither a study plan nor a record in it: run a study into it first")
    if (asked.rows is None) != (asked.columns is None) or (asked.facet and asked.rows is None):
        raise ReportError("--rows, --columns, --facet: a table needs both rows and columns: name the two")
    cells, remarks = check(loaded, asked.allow)
    found = grids(cells, remarks=remarks, published=asked.published, oracle=asked.oracle)
    usual = len(found)
    if asked.rows and asked.columns:
        found += tabulate(cells, asked.rows, asked.columns, asked.facet, remarks=remarks, oracle=asked.oracle)
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
        share = [grid for grid in found if grid.form == form]
        tables += [_write(out / f"{form}.{kind}", write(share)) for kind, write in KINDS.items()]
    parquet = []
    if asked.parquet:
        parquet = [_write_parquet(out / "cells.parquet", shown), _write_parquet(out / "curves.parquet", curves)]

    figures = []
    for grid in found:
        if grid.metric == "target_accuracy":
            name = _file_name(grid.form, grid.benchmark, grid.facet)
            figures += _write_figure(out / "figures" / name, heat_map(grid))
    on_page: dict[str, list[tuple[str, bytes]]] = {}
    for benchmark, facet, figure in _curve_figures(cells, curves):
        paths = _write_figure(out / "figures" / _file_name("curves", benchmark, facet), figure)
        figures += paths
        on_page.setdefault(benchmark, []).append((join(benchmark, facet), paths[1].read_bytes()))
    commands = {plan.name: plan.command for plan in Store(store).plans()}
    text = page(cells, found[:usual], on_page, points=curves, commands=commands)
    written = _write(out / "report.html", text)
    return ReportPaths(written, records, without, tables, figures, parquet, found, len(lacking))


def _curve_figures(cells: pd.DataFrame, curves: pd.DataFrame) -> list[tuple[str, str, Figure]]:
    drawn = []
    for benchmark, facet, _, part in facets(cells):
        backbones = sorted(part["backbone"].unique(), key=natural)
        for backbone in backbones:
            label = join(facet, f"model.backbone={backbone}" if len(backbones) > 1 else "")
            drawn.append((benchmark, label, accuracy_curves(part, curves, backbone, join(benchmark, label))))
    return drawn


def _file_name(form: str, benchmark: str, facet: str) -> str:
    """Readable, safe on every file system, and not too long for one where many fields make a facet."""
    name = re.sub(r"[^A-Za-z0-9.=]+", "-", join(benchmark, facet)).strip("-")
    if len(name) > 100:
        name = f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{form}-{name}"


def _write_figure(stem: Path, figure: Figure) -> list[Path]:
    return [_write(stem.with_name(f"{stem.name}.{kind}"), render(figure, kind)) for kind in ("png", "svg")]


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
