"""One HTML page that opens from disk: nothing in it is fetched from anywhere."""

import base64
import json
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from typing import Any

import jinja2
import pandas as pd

from scale_ray.config import RECIPE_VERSION
from scale_ray.report.aggregate import METRICS, Grid
from scale_ray.report.load import varying_fields
from scale_ray.report.tables import cell_text

STATUSES = ("done", "failed", "missing", "stale")

# Columns of the page's record table and how a value is written there.
_RECORD_COLUMNS = {
    "benchmark": "{}",
    "pair": "{}",
    "method": "{}",
    "losses": "{}",
    "backbone": "{}",
    "seed": "{}",
    "status": "{}",
    "target_accuracy": "{:.2f}",
    "teacher_accuracy": "{:.2f}",
    "source_val_accuracy": "{:.2f}",
    "steps": "{}",
    "wall_seconds": "{:.1f}",
    "skipped_images": "{}",
}


def page(cells: pd.DataFrame, grids: list[Grid], curves: dict[str, list[tuple[str, bytes]]]) -> str:
    """The report as HTML.

    Args:
        cells: as `load` returns them.
        grids: what `grids(cells)` returned.
        curves: benchmark -> (title, SVG) of its accuracy curves.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell_text"] = cell_text
    template = environment.from_string(resources.files("scale_ray.report").joinpath("page.html").read_text("utf-8"))
    formats = _RECORD_COLUMNS | dict.fromkeys(varying_fields(cells), "{}")
    studies = sorted({name for names in cells["study"].dropna() for name in names.split(", ")})
    counts = Counter(cells["status"])
    counts["planned"] = int((~cells["superseded"]).sum())
    return template.render(
        title=", ".join(studies) or "records of no study",
        counts=counts,
        superseded=int(cells["superseded"].sum()),
        statuses=STATUSES,
        metrics=METRICS,
        benchmarks=[
            {
                "name": benchmark,
                "forms": _by_form([grid for grid in grids if grid.benchmark == benchmark]),
                "curves": [(title, _data_uri(svg)) for title, svg in curves.get(benchmark, [])],
            }
            for benchmark in sorted(set(cells["benchmark"]))
        ],
        failures=cells[cells["status"] == "failed"].to_dict("records"),
        provenance=provenance(cells),
        columns=list(formats),
        records=[
            {name: "" if pd.isna(row[name]) else text.format(row[name]) for name, text in formats.items()}
            | {"cell": row["cell"]}
            for row in cells.to_dict("records")
        ],
    )


def provenance(cells: pd.DataFrame) -> dict[str, str]:
    """What the records say about their making, one line a fact; several values are all shown, with their counts."""
    made = cells[cells["started"].notna()]
    facts = {
        "recipe version": f"{RECIPE_VERSION} (records: {_values(made['recipe_version'])})",
        "code": _values(_commits(made)),
        "devices": _values(made["device"]),
        "hosts": _values(made["host"]),
        "seeds": ", ".join(map(str, sorted(cells["seed"].unique()))),
        "first start": made["started"].min() if len(made) else "—",
        "last start": made["started"].max() if len(made) else "—",
        "wall time, all records": f"{made['wall_seconds'].sum() / 3600:.2f} h",
    }
    versions = [json.loads(text) for text in made["versions"]]
    for package in sorted({name for found in versions for name in found}):
        facts[package] = _values(found.get(package, "absent") for found in versions)
    digests: dict[str, list[str]] = {}
    for role in ("source", "target"):
        for benchmark, domain, digest in made[["benchmark", role, f"{role}_digest"]].dropna().itertuples(index=False):
            digests.setdefault(f"data {benchmark}/{domain}", []).append(digest)
    facts |= {name: _values(found) for name, found in sorted(digests.items())}
    if made["weights_digest"].notna().any():
        facts["weights"] = _values(made["weights_digest"].dropna())
    return facts


def _commits(made: pd.DataFrame) -> Iterable[str]:
    for commit, dirty in zip(made["git_commit"], made["git_dirty"].fillna(False), strict=True):
        yield "not a checkout" if pd.isna(commit) else f"{commit}{', with uncommitted changes' * bool(dirty)}"


def _values(values: Iterable[Any]) -> str:
    counts = Counter(map(str, values))
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count})" for value, count in sorted(counts.items())) or "—"


def _by_form(grids: list[Grid]) -> list[tuple[str, str, list[Grid]]]:
    """(form, facet, its grids by metric), in the order given."""
    found: dict[tuple[str, str], list[Grid]] = {}
    for grid in grids:
        found.setdefault((grid.form, grid.facet), []).append(grid)
    return [(form, facet, share) for (form, facet), share in found.items()]


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
