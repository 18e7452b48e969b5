"""The page of a search: what was chosen and why, what other validators say, every setting, the figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scale_ray.records import ORACLE
from scale_ray.report.figures.style import render
from scale_ray.report.page.steps import Step
from scale_ray.report.page.template import Images, Picture, render_page, table_of
from scale_ray.report.read.labels import count
from scale_ray.report.selection.text import ORACLE_COLUMN, as_text
from scale_ray.store import Store
from scale_ray.store.files import replace_file
from scale_ray.tuning.choice import decision_notes, settings_frame, state_counts, validators_frame
from scale_ray.tuning.decision import FEWEST, Decision, decide, units_of
from scale_ray.tuning.drawings import search_figures
from scale_ray.tuning.edges import edges
from scale_ray.tuning.optuna_study import folder
from scale_ray.tuning.space import describe_space
from scale_ray.tuning.view import SearchView


def search_page(view: SearchView, store: Store, others: Sequence[tuple[str, str]] = ()) -> str:
    """The page as HTML.

    Args:
        view: the search.
        store: where it is.
        others: (name, address) of other pages, to link to.
    """
    decision = decide(view.settings, view.validator)
    validators = validators_frame(view.settings, view.validator)
    images = Images()
    drawn: list[tuple[str, list[Any]]] = []
    if decision is not None:
        for heading, figure, small in search_figures(view, decision):
            picture = Picture(view.name, render(figure, "svg"), render(small, "svg"))
            drawn.append((heading, [images.of(picture)]))
    return render_page(
        "search.html",
        title=view.name,
        sentences=answer_of_search(view, decision),
        steps=_steps(view, store, decision),
        chooser=ORACLE_COLUMN if view.validator == ORACLE else view.validator,
        oracle=ORACLE_COLUMN in validators,
        validators=table_of(as_text(validators)),
        settings=table_of(as_text(settings_frame(view.settings, view.validator))),
        space=describe_space(view.space),
        repeats=", ".join(view.repeats),
        drawn=drawn,
        others=list(others),
    )


def answer_of_search(view: SearchView, decision: Decision | None) -> list[str]:
    """What a search has found, in sentences."""
    tried = "1 setting was" if len(view.settings) == 1 else f"{len(view.settings)} settings were"
    counts = f"{tried} tried on {count(len(view.repeats), 'repeat')}: {state_counts(view.settings)}."
    if decision is None:
        return ["No setting is done, so none is chosen.", counts]
    at_edges = edges(view.space, decision.highest.values, view.base)
    return [*decision_notes(view.settings, view.validator, decision, at_edges), counts]


def _steps(view: SearchView, store: Store, decision: Decision | None) -> list[Step]:
    steps = []
    file = f"{folder(view.name)}/chosen.json"
    if store.files.exists(file):
        steps.append(Step("Train with the chosen setting:", f"scale-ray train --config {store.files.locate(file)}"))
    if any(setting.state == "open" for setting in view.settings):
        steps.append(Step("Some settings have not ended: run the command of the search again to go on."))
    if decision is not None and units_of(view.repeats) is None:
        steps.append(Step(f"Search with {FEWEST} repeats at least (--seeds, --pairs): fewer cannot show a difference."))
    return steps


def write_search_page(view: SearchView, store: Store, path: Path, others: Sequence[tuple[str, str]] = ()) -> Path:
    """Write the page of a search into a folder that exists."""
    replace_file(path, search_page(view, store, others).encode())
    return path
