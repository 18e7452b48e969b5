"""From a store to a folder: records.csv, grids, figures, the page. The same store gives the same bytes."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from scale_ray.files import replacing
from scale_ray.report.aggregate import Grid, facets, grids, join, natural
from scale_ray.report.figures import accuracy_curves, heat_map, render
from scale_ray.report.load import ReportError, read
from scale_ray.report.page import page
from scale_ray.report.tables import comma_separated, latex, markdown

FORMS = ("losses_by_backbone", "pairs_by_method")


class ReportPaths(NamedTuple):
    """What `write_report` wrote, and the grids that it wrote down."""

    page: Path
    records: Path
    tables: list[Path]  # Markdown, CSV and LaTeX of each form
    figures: list[Path]  # PNG and SVG
    grids: list[Grid]  # what the tables hold


def write_report(store: str | Path, out: str | Path) -> ReportPaths:
    """Write the whole report of a store into the folder `out`, made where it is missing.

    Raises:
        StoreError: no such store, something in it that cannot be read, or `out` cannot be written to.
        ReportError: nothing to report, `out` is a file, or two cells stand for the same place (see `grids`).
    """
    cells, curves = read(store)
    if cells.empty:
        raise ReportError(f"store {store}: neither a study plan nor a record in it: run a study into it first")
    found = grids(cells)
    out = Path(out)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{out}: cannot hold a report ({error.strerror}): choose another folder") from None

    records = _write(out / "records.csv", cells.drop(columns=["traceback"]).to_csv(index=False, lineterminator="\n"))
    tables = []
    for form in FORMS:
        share = [grid for grid in found if grid.form == form]
        tables += [
            _write(out / f"{form}.md", "\n".join(map(markdown, share))),
            _write(out / f"{form}.csv", comma_separated(share)),
            _write(out / f"{form}.tex", "\n".join(map(latex, share))),
        ]

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
    return ReportPaths(_write(out / "report.html", page(cells, found, on_page)), records, tables, figures, found)


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


def _write(path: Path, content: str | bytes) -> Path:
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path
