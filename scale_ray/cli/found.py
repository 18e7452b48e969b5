"""What `scale-ray tune` prints before a search, and prints and writes after it."""

from typing import TYPE_CHECKING

from scale_ray.cli.console import console, print_frame
from scale_ray.config import TuningBudget
from scale_ray.data.defaults import base_config
from scale_ray.records import ORACLE
from scale_ray.store import Store

if TYPE_CHECKING:
    from scale_ray.config import TrialConfig
    from scale_ray.tuning.run import Found
    from scale_ray.tuning.search import Search

_SHOWN = 10  # settings printed at the end; all are in settings.csv


def print_search(search: "Search") -> None:
    from scale_ray.tuning.space import describe_space, warm_ups_meet

    repeats = len(search.repeats)
    most = search.settings * repeats
    by = "the oracle, which reads target labels" if search.validator == ORACLE else search.validator
    shared = ", warm-ups shared where they are the same" if warm_ups_meet(search.space, search.base) else ""
    console.print(
        f"{search.name}: {search.settings} settings x {repeats} repeats ({', '.join(map(str, search.repeats))}), "
        f"at most {most} trainings of {search.base.optim.steps:,} steps{shared}"
    )
    console.print(
        f"  {describe_space(search.space)}; chosen by {by}; sampler {search.sampler}, early stop {search.early_stop}"
    )


def write_results(search: "Search", found: "Found", store: Store) -> bool:
    """Write and print the results; return whether a setting is chosen."""
    from scale_ray.report.figures.style import KINDS, render
    from scale_ray.report.selection.text import as_text
    from scale_ray.tuning.choice import (
        chosen_config,
        decision_notes,
        search_files,
        search_notes,
        settings_frame,
        validators_frame,
        write_config,
    )
    from scale_ray.tuning.contour import contour
    from scale_ray.tuning.decision import decide
    from scale_ray.tuning.edges import edges
    from scale_ray.tuning.optuna_study import folder
    from scale_ray.tuning.page import search_page
    from scale_ray.tuning.space import logarithmic, numeric

    ended = [setting for setting in found.view.settings if setting.state != "open"]
    usual_steps = search.base.optim.steps
    steps_in_full = len(search.repeats) * sum(setting.values.get("optim.steps", usual_steps) for setting in ended)
    decision = decide(found.view.settings, search.validator)
    notes = search_notes(found.view.settings, search.validator, steps_in_full)
    if decision is not None:
        at_edges = edges(search.space, decision.highest.values, search.base)
        notes = [*decision_notes(found.view.settings, search.validator, decision, at_edges), *notes]
    importance = found.view.importance
    files: dict[str, str | bytes] = dict(search_files(found.view.settings, search.validator, importance, notes))
    if decision is not None:
        budget = TuningBudget(
            study=search.name,
            validator=search.validator,
            sampler=search.sampler,
            fields=tuple(search.space),
            settings=len(found.view.settings),
            steps=sum(setting.steps for setting in found.view.settings),
            losses=search.base.combination,
            pairs=tuple(dict.fromkeys(f"{repeat.source}>{repeat.target}" for repeat in search.repeats)),
            seeds=tuple(dict.fromkeys(repeat.seed for repeat in search.repeats)),
        )
        usual = base_config(search.base.data.benchmark)
        config = chosen_config(decision.chosen, _first_repeat(search), usual, budget, search.root)
        files["chosen.json"] = write_config(config)
    numbers = numeric(search.space)
    if decision is not None and len(numbers) >= 2:
        fields = (numbers[0], numbers[1])
        figure = contour(
            found.view.settings,
            fields,
            logarithmic(search.space),
            search.validator,
            decision,
            f"{search.name}, chosen by {search.validator}",
        )
        files |= {f"contour.{kind}": render(figure, kind) for kind in KINDS}
    results = folder(search.name)
    for file, content in files.items():
        store.files.write(f"{results}/{file}", content.encode() if isinstance(content, str) else content)
    store.files.write(f"{results}/report.html", search_page(found.view, store).encode())

    print_frame(as_text(settings_frame(found.view.settings, search.validator).head(_SHOWN)))
    if decision is not None:
        print_frame(as_text(validators_frame(found.view.settings, search.validator)))
    for note in notes:
        console.print(note)
    if importance:
        shares = ", ".join(f"{path} {share:.0%}" for path, share in importance.items())
        console.print(f"importance (fANOVA, settings that are done): {shares}")
    if decision is not None:
        console.print(f"config for ablate and train: {store.files.locate(f'{results}/chosen.json')}")
    console.print(f"results: {store.files.locate(results)}, its page: {store.files.locate(f'{results}/report.html')}")
    return decision is not None


def _first_repeat(search: "Search") -> "TrialConfig":
    """The base config on the first pair and seed, which one training takes."""
    return search.base.replace(search.repeats[0].changes)
