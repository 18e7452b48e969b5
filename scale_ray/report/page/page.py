"""The page of a report: everything that is on it, and its images, style and script."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from scale_ray.report.effects.tables import TABLES, Effects
from scale_ray.report.effects.text import by_scope, readable
from scale_ray.report.page.answer import Answer, answer
from scale_ray.report.page.gallery import Gallery
from scale_ray.report.page.provenance import provenance
from scale_ray.report.page.steps import studies_of
from scale_ray.report.page.template import Images, Picture, render_page, table_of
from scale_ray.report.page.trials import causes, listed, payload
from scale_ray.report.read.labels import count
from scale_ray.report.read.load import varying_fields
from scale_ray.report.selection.agreement import UNLEARNED
from scale_ray.report.selection.text import Chosen, as_text
from scale_ray.report.tables.grid import METRIC_NAMES, Entry, Grid, Stack, stacks
from scale_ray.report.tables.text import beside_text, entry_text, interval_text, question

STATUSES = ("done", "failed", "missing", "stale")

Figures = Mapping[str, Mapping[str, list[Picture]]]


class Live(NamedTuple):
    """A study that a service runs."""

    name: str
    owner: str


# Columns that name a row of effects.
_NAMES = ("backbone", "effect", "term", "label", "claim")

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
    searches: Mapping[str, str] | None = None,
    live: Live | None = None,
) -> str:
    """The report as HTML. It lists up to 2,000 trials, those that failed or are missing first.

    Args:
        cells: as `load` returns them.
        grids: as `grids(cells)` and `tabulate` return them.
        figures: benchmark -> heading -> pictures.
        curves: the trials' curves (`Curves.of`), drawn when a trial is opened.
        effects: of the same cells.
        commands: study -> the command that ran it (`StudyPlan.command`).
        choice: `choice` and `scores`, where a validator was asked to choose; see `selection.choose`.
        agreed: what each validator would choose, see `selection.agreement`.
        galleries: images of the most certain errors.
        first: what the page opens with; by default made from the above.
        searches: name -> file of its page.
        live: of a study that runs, whose page a server shows and keeps up to date; None for a page that is one file.
    """
    shown = listed(cells)
    numbers = {trial: number for number, trial in enumerate(shown["cell"])}
    filters: dict[str, Callable[..., Any]] = {
        "entry_text": entry_text,
        "beside_text": beside_text,
        "interval": interval_text,
        "question": question,
        "compares": _compares,
        "tooltip": _tooltip,
        "trial_attributes": lambda trials: _trial_attributes(trials, numbers),
    }
    formats = _RECORD_COLUMNS | dict.fromkeys(varying_fields(cells), "{}")
    counts = Counter(cells["status"])
    counts["planned"] = int((~cells["superseded"]).sum())
    starts = dict(zip(STATUSES, accumulate((counts[status] for status in STATUSES), initial=0), strict=False))
    images = Images()
    first = first or answer(cells, choice=choice, commands=commands)
    return render_page(
        "page.html",
        filters,
        title=live.name if live else ", ".join(studies_of(cells)) or "records of no study",
        answer=first,
        searches=searches or {},
        counts=counts,
        superseded=int(cells["superseded"].sum()),
        statuses=STATUSES,
        starts=starts,
        live=live,
        metrics=METRIC_NAMES,
        none_planned=Entry(),
        benchmarks=[
            {
                "name": benchmark,
                "forms": _by_form([grid for grid in grids if grid.benchmark == benchmark]),
                "figures": [
                    (heading, [images.of(picture) for picture in share])
                    for heading, share in figures.get(benchmark, {}).items()
                ],
            }
            for benchmark in sorted(set(cells["benchmark"]))
        ],
        chosen=_chosen(choice or {}),
        decided=_decided(choice or {}),
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
    )


def _tooltip(entry: Entry) -> str:
    seeds = f"mean over {count(entry.n, 'seed')}; " if entry.mean is not None else ""
    return f"{seeds}{entry.done} of {entry.planned} records done"


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
        parts.setdefault(table.name, []).append((scope, table_of(shown), table_of(more)))
    sections = [
        {"name": table.name, "title": table.title, "explanation": table.explanation, "parts": parts[table.name]}
        for table in TABLES
        if table.name in parts
    ]
    return {"sections": sections, "notes": effects.notes}


def _agreed(agreed: Chosen | None) -> dict[str, Any] | None:
    if agreed is None or agreed.frame.empty:
        return None
    frame = agreed.frame
    if not frame[UNLEARNED].any():
        frame = frame.drop(columns=UNLEARNED)
    return {"tables": _by_set(frame), "notes": agreed.notes}


def _chosen(choice: Mapping[str, Chosen]) -> dict[str, Any] | None:
    """The tables of choice and the scores that decided, by benchmark and backbone, and the notes."""
    if "choice" not in choice:
        return None
    return {name: _by_set(choice[name].frame) for name in ("choice", "scores")} | {"notes": choice["choice"].notes}


def _decided(choice: Mapping[str, Chosen]) -> dict[str, Any] | None:
    """What seeds have decided, by benchmark and backbone, and the notes."""
    if "decisions" not in choice:
        return None
    return {"tables": _by_set(choice["decisions"].frame), "notes": choice["decisions"].notes}


def _by_set(frame: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """(benchmark and backbone, the table of its rows)."""
    of_set = ["benchmark", "backbone"]
    return [
        (" · ".join(map(str, key)), table_of(as_text(part.drop(columns=of_set))))
        for key, part in frame.groupby(of_set, sort=False)
    ]


def _by_form(grids: list[Grid]) -> list[tuple[str, str, list[Stack]]]:
    """(form, facet, its tables by metric), in the order given."""
    found: dict[tuple[str, str], list[Stack]] = {}
    for stack in stacks(grids):
        found.setdefault((stack.form, stack.grids[0].facet), []).append(stack)
    return [(form, facet, share) for (form, facet), share in found.items()]
