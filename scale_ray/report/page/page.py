"""The page of a report: everything that is on it, and its images, style and script."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

from scale_ray.report.effects.tables import TABLES, Effects
from scale_ray.report.effects.text import by_scope, readable
from scale_ray.report.page.answer import Answer, answer, studies_of
from scale_ray.report.page.gallery import Gallery
from scale_ray.report.page.provenance import provenance
from scale_ray.report.page.trials import causes, listed, payload
from scale_ray.report.read.labels import count
from scale_ray.report.read.load import varying_fields
from scale_ray.report.selection.text import Chosen, as_text
from scale_ray.report.tables.grid import METRICS, Entry, Grid, Stack, stacks
from scale_ray.report.tables.text import beside_text, entry_text

STATUSES = ("done", "failed", "missing", "stale")



class Picture(NamedTuple):
    """A figure as SVG, and the same for a phone's screen, where there is one."""

    title: str
    wide: bytes
    narrow: bytes | None = None


Figures = Mapping[str, Mapping[str, list[Picture]]]

# Columns that name a row of effects.
_NAMES = ("backbone", "effect", "term", "label", "claim")

# Text of a verdict -> its CSS class.
_VERDICTS = {
    "holds": "holds",
    "does not hold": "fails",
    "too few cells": "soft",
    "differs": "holds",
    "higher": "holds",
    "lower": "fails",
    "n too small": "soft",
}

_LONG = 24  # characters

# The most that all images of a page take together. The page names images beyond it; their files are in `figures`.
_IMAGE_BYTES = 3_000_000

# Columns of the page's record table -> format of a value.
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
    curves: pd.DataFrame | None = None,
    effects: Effects | None = None,
    commands: Mapping[str, str | None] | None = None,
    choice: Mapping[str, Chosen] | None = None,
    agreed: Chosen | None = None,
    galleries: list[Gallery] | None = None,
    first: Answer | None = None,
) -> str:
    """The report as HTML. It lists up to 2,000 trials, those that failed or are missing first.

    Args:
        cells: as `load` returns them.
        grids: as `grids(cells)` and `tabulate` return them.
        figures: benchmark -> heading -> pictures.
        curves: the trials' curves (`Contents.curves`), drawn when a trial is opened.
        effects: of the same cells.
        commands: study -> the command that ran it (`StudyPlan.command`).
        choice: `choice` and `scores`, where a validator was asked to choose; see `selection.choose`.
        agreed: what each validator would choose, see `selection.agreement`.
        galleries: images of the most certain errors.
        first: what the page opens with; by default made from the above.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = listed(cells)
    numbers = {trial: number for number, trial in enumerate(shown["cell"])}
    environment.filters |= {
        "entry_text": entry_text,
        "beside_text": beside_text,
        "interval": _interval,
        "question": _question,
        "compares": _compares,
        "tooltip": _tooltip,
        "trial_attributes": lambda trials: _trial_attributes(trials, numbers),
    }
    formats = _RECORD_COLUMNS | dict.fromkeys(varying_fields(cells), "{}")
    counts = Counter(cells["status"])
    counts["planned"] = int((~cells["superseded"]).sum())
    script = part("page.js")
    images = _Images()
    first = first or answer(cells, effects, choice=choice, commands=commands)
    return environment.from_string(part("page.html")).render(
        title=", ".join(studies_of(cells)) or "records of no study",
        answer=first,
        no_accuracy=bool(cells["target_accuracy"].isna().all()),
        counts=counts,
        superseded=int(cells["superseded"].sum()),
        statuses=STATUSES,
        metrics=METRICS,
        none_planned=Entry(),
        benchmarks=[
            {
                "name": benchmark,
                "forms": _by_form([grid for grid in grids if grid.benchmark == benchmark]),
                "figures": [
                    (heading, [(each.title, images.embed(each.wide), images.embed(each.narrow)) for each in share])
                    for heading, share in figures.get(benchmark, {}).items()
                ],
            }
            for benchmark in sorted(set(cells["benchmark"]))
        ],
        chosen=_chosen(choice or {}),
        agreed=_agreed(agreed),
        galleries=galleries or [],
        effects=_effects(effects),
        causes=causes(cells),
        provenance=provenance(cells),
        columns=list(formats),
        total=len(cells),
        records=[
            {name: "" if pd.isna(row[name]) else text.format(row[name]) for name, text in formats.items()}
            | {"cell": row["cell"]}
            for row in shown.to_dict("records")
        ],
        payload=payload(shown, curves),
        style=part("page.css"),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


class _Images:
    """Embeds images as data URIs until _IMAGE_BYTES are used."""

    def __init__(self) -> None:
        self.left = _IMAGE_BYTES

    def embed(self, svg: bytes | None) -> str | None:
        """The image's URI, or None if there is no image or no room for it."""
        if svg is None:
            return None
        uri = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
        if len(uri) > self.left:
            return None
        self.left -= len(uri)
        return uri


def part(name: str) -> str:
    """The text of a file of this package."""
    return resources.files("scale_ray.report.page").joinpath(name).read_text("utf-8")


def _tooltip(entry: Entry) -> str:
    seeds = f"mean over {count(entry.n, 'seed')}; " if entry.mean is not None else ""
    return f"{seeds}{entry.done} of {entry.planned} records done"


def _interval(entry: Entry) -> str:
    """The interval, or two seeds as they are; one seed is the mean itself."""
    if entry.low is not None and entry.high is not None:
        return f"[{entry.low:.1f}, {entry.high:.1f}]"
    return "seeds " + ", ".join(f"{value:.1f}" for value in entry.by_seed) if entry.n > 1 else ""


def _question(stack: Stack) -> str:
    """What the small print of a table's entries answers."""
    entries = [entry for grid in stack.grids for entry in grid.entries.values() if entry.mean is not None]
    if any(entry.low is not None for entry in entries):
        return "Below each mean: the 95 % interval on these very pairs, if other seeds were trained."
    if any(entry.n > 1 for entry in entries):
        return "Below each mean: the seeds themselves. Fewer than three seeds of a pair give no interval."
    return "One seed says nothing about others, so no entry has an interval."


def _compares(stack: Stack) -> bool:
    """Whether a reader may compare intervals of a table's rows."""
    return any(entry.low is not None for grid in stack.grids for entry in grid.entries.values())


def _trial_attributes(trials: Iterable[str], numbers: Mapping[str, int]) -> Markup:
    """The attributes by which the page's script finds an entry's trials: their numbers, and how many are not listed."""
    found = [numbers.get(trial) for trial in trials]
    on_page = " ".join(str(number) for number in found if number is not None)
    return Markup(f'data-trials="{on_page}" data-more="{found.count(None)}"')


def _effects(effects: Effects | None) -> dict[str, Any]:
    """One section per table with its parts by scope, and the notes. The paper's claims come last."""
    if effects is None:
        return {"sections": [], "notes": []}
    parts: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {}
    for table, scope, part in by_scope(effects):
        named = [column for column in table.in_paper if column.names[0] in _NAMES]
        shown, more = readable(part, table.in_paper), readable(part, [*named, *table.further])
        parts.setdefault(table.name, []).append((scope, _table(shown), _table(more)))
    sections = [
        {"name": table.name, "title": table.title, "explanation": table.explanation, "parts": parts[table.name]}
        for table in TABLES
        if table.name in parts
    ]
    return {"sections": sections, "notes": effects.notes}


def _agreed(agreed: Chosen | None) -> dict[str, Any] | None:
    if agreed is None or agreed.frame.empty:
        return None
    return {"table": _table(as_text(agreed.frame)), "notes": agreed.notes}


def _chosen(choice: Mapping[str, Chosen]) -> dict[str, Any] | None:
    """The table of choice by benchmark and backbone with its notes, and the scores that decided."""
    if "choice" not in choice:
        return None
    compared = ["benchmark", "backbone"]
    tables = {
        name: [
            (" · ".join(map(str, key)), _table(as_text(part.drop(columns=compared))))
            for key, part in choice[name].frame.groupby(compared, sort=False)
        ]
        for name in ("choice", "scores")
    }
    return {**tables, "notes": choice["choice"].notes}


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Columns, and rows of (text, CSS class). Long texts may be broken."""
    rows = [
        [(text, _VERDICTS.get(text, "words" if len(text) > _LONG else "")) for text in values]
        for values in frame.to_numpy(dtype=str)
    ]
    return {"columns": [str(name) for name in frame.columns], "rows": rows}


def _by_form(grids: list[Grid]) -> list[tuple[str, str, list[Stack]]]:
    """(form, facet, its tables by metric), in the order given."""
    found: dict[tuple[str, str], list[Stack]] = {}
    for stack in stacks(grids):
        found.setdefault((stack.form, stack.grids[0].facet), []).append(stack)
    return [(form, facet, share) for (form, facet), share in found.items()]
