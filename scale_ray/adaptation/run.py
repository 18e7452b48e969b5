"""`scale-ray adapt`: plan candidates, train them on Ray, choose one without target labels, predict."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from scale_ray.adaptation.asked import Asked, study_of
from scale_ray.adaptation.budget import within_budget
from scale_ray.adaptation.checked import read_checks, to_label
from scale_ray.adaptation.chosen import on_targets
from scale_ray.adaptation.outcome import Adaptation, OnTarget
from scale_ray.adaptation.page import adaptation_page
from scale_ray.adaptation.places import to_toml
from scale_ray.bundle.export import export
from scale_ray.config import Catalogue, ConfigError, Execution, Resources
from scale_ray.data.lists import read_list
from scale_ray.data.names import is_text
from scale_ray.errors import shown
from scale_ray.store import Store
from scale_ray.store.files import replace_file
from scale_ray.study import describe
from scale_ray.sweep.plan import plan_study
from scale_ray.track import open_trackers
from scale_ray.tracked import run_tracked

_TO_LABEL = 50


def adapt(
    asked: Asked,
    out: Path,
    execution: Execution,
    resources: Resources,
    console: Console,
    *,
    dry_run: bool = False,
    track: Sequence[str] = (),
) -> Adaptation:
    """Train the candidates, choose one for each target, and write what users came for into a folder.

    The same call goes on after an interruption; with a larger budget it adds candidates.

    Args:
        asked: what to adapt.
        out: the folder, made where it is missing.
        execution, resources: how to train; models and predictions are kept.
        console: where progress is printed.
        dry_run: say what would be trained, and leave nothing.
        track: trackers that show the trainings live.

    Raises:
        UserError: nothing has run: the images, the labels, the config, the budget, the folder or a tracker cannot be
            used.
    """
    trackers = open_trackers(() if dry_run else track)
    known = {} if asked.check is None else read_checks(asked.check, asked.catalogue)
    store = _open(out, asked.catalogue, leave=not dry_run)
    known = known or _filled_in(out / "check.csv", asked.catalogue)
    execution = execution.model_copy(update={"root": asked.catalogue, "keep_predictions": True, "keep_model": True})
    notes = out / "budget.json"
    study, left_out = within_budget(
        study_of(asked), asked.budget, notes, store, execution, resources, console, leave=not dry_run
    )
    plan = plan_study(study, store, execution.root, beside=execution.beside)
    plan = replace(plan, leaving=frozenset())  # a folder has one plan, and it is this one
    done, todo = len(plan.answered), len(plan.todo)
    console.print(f"{len(plan.study.cells)} trainings, {done} done, {todo} to do, {plan.steps_to_do:,} steps")
    if dry_run:
        for cell in plan.todo:
            console.print(f"to train: {describe(cell.config)}")
        return Adaptation(out, [], left_out, 0, asked.choose)
    outcome = run_tracked(plan, store, execution, resources, console, trackers)
    targets = on_targets(asked, store, known) if outcome.done and not outcome.interrupted else []
    found_on = {each.target for each in targets}
    lacking = [] if outcome.interrupted else [name for name in asked.targets if name not in found_on]
    found = Adaptation(out, targets, left_out, outcome.interrupted, asked.choose, outcome.failed, lacking)
    if targets:
        _write(found, asked.catalogue)
    return found


def _filled_in(drawn: Path, catalogue: Catalogue) -> dict[str, dict[str, str]]:
    """As `read_checks`, of the list that an earlier call has left; empty where nobody has labelled anything."""
    labelled = drawn.is_file() and (read_list(str(drawn))["label"] != "").any()
    return read_checks(drawn, catalogue) if labelled else {}


def _open(out: Path, catalogue: Catalogue, *, leave: bool) -> Store:
    """The store in the folder, which is made or has been made by an earlier call for the same images."""
    if re.match(r"[a-z][\w+.-]+:/", str(out)):
        raise ConfigError(f"--out {out}: predictions and report go to a folder of this machine: name one")
    if not is_text(out):
        raise ConfigError(f"--out {shown(out)}: its name is not UTF-8: name another folder")
    ours, domains = out / "domains.toml", to_toml(catalogue).encode()
    if out.is_dir() and any(out.iterdir()) and not ours.exists():
        raise ConfigError(f"--out {shown(out)}: a folder with other files: name a new one")
    store = Store(out / "store", create=leave, missing_ok=not leave)
    if ours.exists() and ours.read_bytes() != domains and store.record_ids():
        raise ConfigError(f"--out {shown(out)}: holds the result for other images ({shown(ours)}): name a new folder")
    if leave:
        replace_file(ours, domains)
    return store


def _write(found: Adaptation, catalogue: Catalogue) -> None:
    out = found.out
    replace_file(out / "predictions.csv", found.predictions.to_csv(index=False).encode())
    drafts = [to_label(each.predicted.names, each.predicted.where, _TO_LABEL) for each in found.targets]
    if not (out / "check.csv").exists():  # it may have been filled in
        replace_file(out / "check.csv", pd.concat(drafts, ignore_index=True).to_csv(index=False).encode())
    for each in found.targets:
        export(f"{out / 'store'}/{each.record.id}", _model_folder(found, each, several=len(catalogue.domains) > 2))
    replace_file(out / "report.html", adaptation_page(found, catalogue).encode())


def _model_folder(found: Adaptation, on_target: OnTarget, *, several: bool) -> Path:
    """`model`, or with several targets `model/TARGET`."""
    return found.out / "model" / (on_target.target if several else "")
