"""One HTML page that opens from disk: nothing in it is fetched from anywhere."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from scale_ray.config import RECIPE_VERSION
from scale_ray.report.aggregate import METRICS, Cell, Grid
from scale_ray.report.effects import EffectTables
from scale_ray.report.effects_text import EXPLAINED, TITLES, by_place, readable
from scale_ray.report.grid import Stack, stacks
from scale_ray.report.labels import count
from scale_ray.report.load import varying_fields
from scale_ray.report.tables import beside_text, cell_text
from scale_ray.report.trials import causes, listed, payload

STATUSES = ("done", "failed", "missing", "stale")

Figures = Mapping[str, Mapping[str, list[tuple[str, bytes]]]]

_VERDICTS = {
    "holds": "holds",
    "does not hold": "fails",
    "too few cells": "soft",
    "differs": "holds",
    "n too small": "soft",
}

# All images of a page together, as they stand in it; what comes after is named and lies in the folder beside it.
_IMAGE_BYTES = 3_000_000

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


def page(
    cells: pd.DataFrame,
    grids: list[Grid],
    figures: Figures,
    *,
    points: pd.DataFrame | None = None,
    effects: EffectTables | None = None,
    commands: Mapping[str, str | None] | None = None,
) -> str:
    """The report as HTML; up to 2,000 trials are listed in it, what failed or is missing first.

    Args:
        cells: as `load` returns them.
        grids: what `grids(cells)` and `tabulate` returned.
        figures: benchmark -> heading -> (title, SVG).
        points: points of the trials' own curves (`Contents.curves`), drawn when a trial is opened.
        effects: of the same cells.
        commands: study -> what was typed to run it (`StudyPlan.command`).
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = listed(cells)
    numbers = {trial: number for number, trial in enumerate(shown["cell"])}
    environment.filters |= {
        "cell_text": cell_text,
        "beside_text": beside_text,
        "interval": _interval,
        "tooltip": _tooltip,
        "places": lambda trials: _places(trials, numbers),
    }
    formats = _RECORD_COLUMNS | dict.fromkeys(varying_fields(cells), "{}")
    counts = Counter(cells["status"])
    counts["planned"] = int((~cells["superseded"]).sum())
    script = _part("page.js")
    images = _Images()
    return environment.from_string(_part("page.html")).render(
        title=", ".join(_studies(cells)) or "records of no study",
        counts=counts,
        superseded=int(cells["superseded"].sum()),
        statuses=STATUSES,
        metrics=METRICS,
        none_planned=Cell(),
        benchmarks=[
            {
                "name": benchmark,
                "forms": _by_form([grid for grid in grids if grid.benchmark == benchmark]),
                "figures": [
                    (heading, [(title, images.embed(svg)) for title, svg in share])
                    for heading, share in figures.get(benchmark, {}).items()
                ],
            }
            for benchmark in sorted(set(cells["benchmark"]))
        ],
        effects=_effects(effects),
        to_do=_to_do(cells, commands or {}),
        causes=causes(cells),
        provenance=provenance(cells),
        columns=list(formats),
        total=len(cells),
        records=[
            {name: "" if pd.isna(row[name]) else text.format(row[name]) for name, text in formats.items()}
            | {"cell": row["cell"]}
            for row in shown.to_dict("records")
        ],
        payload=payload(shown, points),
        style=_part("page.css"),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def provenance(cells: pd.DataFrame) -> dict[str, str]:
    """What the records say about their making, one line a fact; several values are all shown, with their counts."""
    made = cells[cells["started"].notna()]
    facts = {
        "recipe version": f"{RECIPE_VERSION} (records: {_values(made['recipe_version'])})",
        "code": _values(_commits(made)),
        "devices": _values(made["device"]),
        "hosts": _values(made["host"]),
        **{name: _values(made[name].dropna()) for name in ("runner", "workers") if name in made},
        "seeds": ", ".join(map(str, sorted(cells["seed"].unique()))),
        "first start": made["started"].min() if len(made) else "—",
        "last start": made["started"].max() if len(made) else "—",
        "wall time, all records": f"{made['wall_seconds'].sum() / 3600:.2f} h",
    }
    if "worker_hours" in made:  # a shared stage's time divided by its cells
        facts["worker hours charged"] = f"{made['worker_hours'].sum():.2f} h"
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


class _Images:
    """Data URIs, while there is room."""

    def __init__(self) -> None:
        self.left = _IMAGE_BYTES

    def embed(self, svg: bytes) -> str | None:
        uri = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
        if len(uri) > self.left:
            return None
        self.left -= len(uri)
        return uri


def _part(name: str) -> str:
    return resources.files("scale_ray.report").joinpath(name).read_text("utf-8")


def _studies(cells: pd.DataFrame) -> list[str]:
    return sorted({name for names in cells["study"].dropna() for name in names.split(", ")})


def _to_do(cells: pd.DataFrame, commands: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Every study that wants records which are not there."""
    open_cells = cells[cells["status"] != "done"]
    found = []
    for study in _studies(open_cells):
        of_study = open_cells[[study in str(names).split(", ") for names in open_cells["study"]]]
        counts = Counter(of_study["status"])
        holes = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        found.append({"name": study, "holes": holes, "command": commands.get(study)})
    return found


def _tooltip(cell: Cell) -> str:
    seeds = f"mean over {count(cell.n, 'seed')}; " if cell.mean is not None else ""
    return f"{seeds}{cell.done} of {cell.planned} records done"


def _interval(cell: Cell) -> str:
    return "" if cell.low is None or cell.high is None else f"[{cell.low:.1f}, {cell.high:.1f}]"


def _places(trials: Iterable[str], numbers: Mapping[str, int]) -> Markup:
    """The attributes by which the page's script finds a place's trials."""
    found = [numbers.get(trial) for trial in trials]
    on_page = " ".join(str(number) for number in found if number is not None)
    return Markup(f'data-trials="{on_page}" data-more="{found.count(None)}"')


def _effects(effects: EffectTables | None) -> dict[str, Any]:
    """Claims first: they are what most readers came for. Sections of (place, table), and notes."""
    if effects is None:
        return {"sections": [], "notes": []}
    found = []
    for name in ("claims", "shapley", "effects", "differences"):
        tables = [(place, _table(readable(part))) for place, part in by_place(getattr(effects, name))]
        if tables:
            found.append({"name": name, "title": TITLES[name], "explained": EXPLAINED[name], "tables": tables})
    return {"sections": found, "notes": effects.notes}


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Columns, and rows of (text, class)."""
    rows = [[(text, _VERDICTS.get(text, "")) for text in values] for values in frame.to_numpy(dtype=str)]
    return {"columns": [str(name) for name in frame.columns], "rows": rows}


def _commits(made: pd.DataFrame) -> Iterable[str]:
    for commit, dirty in zip(made["git_commit"], made["git_dirty"].fillna(False), strict=True):
        yield "not a checkout" if pd.isna(commit) else f"{commit}{', with uncommitted changes' * bool(dirty)}"


def _values(values: Iterable[Any]) -> str:
    counts = Counter(map(str, values))
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count})" for value, count in sorted(counts.items())) or "—"


def _by_form(grids: list[Grid]) -> list[tuple[str, str, list[Stack]]]:
    """(form, facet, its tables by metric), in the order given."""
    found: dict[tuple[str, str], list[Stack]] = {}
    for stack in stacks(grids):
        found.setdefault((stack.form, stack.grids[0].facet), []).append(stack)
    return [(form, facet, share) for (form, facet), share in found.items()]
