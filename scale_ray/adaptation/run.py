"""`scale-ray adapt`: plan candidates, train them on Ray, choose one without target labels, predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from scale_ray.adaptation.budget import affordable_within, estimate, read_budget
from scale_ray.adaptation.checked import Accuracy, accuracy, read_check, to_label
from scale_ray.adaptation.page import adaptation_page
from scale_ray.adaptation.places import places, to_toml
from scale_ray.adaptation.predicted import Predicted, predicted
from scale_ray.bundle.export import export
from scale_ray.config import Catalogue, ConfigError, Execution, Resources, TrialConfig
from scale_ray.data.cache import cpus
from scale_ray.data.defaults import base_config, usual_settings
from scale_ray.errors import shown
from scale_ray.records import DEFAULT_CHOOSER, Record
from scale_ray.report.read.load import load
from scale_ray.report.selection.candidates import Candidates, candidates
from scale_ray.report.selection.choose import choice, choice_scores
from scale_ray.store import Store
from scale_ray.store.files import replace_file
from scale_ray.study import Study, describe, pairs
from scale_ray.sweep.plan import plan_study
from scale_ray.sweep.run import run_study
from scale_ray.training.candidates import affordable

STUDY = "adapt"
BASELINE = "source_only"
_TO_LABEL = 50


@dataclass(frozen=True)
class Asked:
    """What is adapted, and how.

    Attributes:
        catalogue: the source and the targets.
        base: what all candidates share; its source and target are replaced.
        seeds: of every candidate.
        choose: the validator that chooses.
        budget: seconds that the trainings may take; None is no limit.
        check: labels of some target images, for checking only; None if there are none.
    """

    catalogue: Catalogue
    base: TrialConfig
    seeds: Sequence[int] = (0,)
    choose: str = DEFAULT_CHOOSER
    budget: float | None = None
    check: Path | None = None


@dataclass(frozen=True)
class OnTarget:
    """What was found for one target.

    Attributes:
        target: the domain's name.
        record: of the chosen training.
        predicted: of all candidates.
        scores: columns candidate, the validator's name, `estimated accuracy`; the best first.
        checked: candidate -> its accuracy on the images whose labels were given; empty without.
    """

    target: str
    record: Record
    predicted: Predicted
    scores: pd.DataFrame
    checked: dict[str, Accuracy]


@dataclass(frozen=True)
class Adaptation:
    """The outcome of `adapt`.

    Attributes:
        out: the folder with predictions.csv, model, report.html, check.csv, domains.toml and the store.
        targets: what was found, target by target.
        left_out: candidates that were not trained, and why.
        interrupted: trainings that are still to do; then there are no targets.
    """

    out: Path
    targets: list[OnTarget] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    interrupted: int = 0
    validator: str = DEFAULT_CHOOSER

    @property
    def predictions(self) -> pd.DataFrame:
        """The rows of predictions.csv."""
        return pd.concat([each.predicted.table() for each in self.targets], ignore_index=True)

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>{self.predictions.head(20).to_html(index=False)}"

    def __str__(self) -> str:
        lines = [f"{each.target}: {each.predicted.chosen}" for each in self.targets]
        return "\n".join(
            [*lines, f"predictions: {self.out / 'predictions.csv'}", f"report: {self.out / 'report.html'}"]
        )


def ask(
    source: str,
    targets: Sequence[str],
    *,
    label_map: Mapping[str, str] | None = None,
    backbone: str = "mobilenet_v2",
    weights: str = "imagenet",
    fine_tune: bool = False,
    seeds: Sequence[int] = (0,),
    choose: str = DEFAULT_CHOOSER,
    budget: str | None = None,
    check: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Asked:
    """What to adapt, from what a person says.

    Args:
        source, targets, label_map: see `places`.
        backbone, weights: the encoder that all candidates share.
        fine_tune: train the encoder too.
        seeds, choose, check: see `Asked`.
        budget: a time, as in `30m`.
        changes: further config fields of all candidates, by dotted path.

    Raises:
        ConfigError: images or labels do not exist, or the budget, a field or a value is none.
    """
    if check is not None and not check.exists():
        raise ConfigError(f"--check {shown(check)}: no such file or folder: name labels of target images")
    seconds = None if budget is None else read_budget(budget)
    encoder = {"model.backbone": backbone, "model.weights": weights} | (
        {} if fine_tune else {"model.encoder": "frozen"}
    )
    stand_in = {"data.source": "source", "data.target": "target"}
    return Asked(
        catalogue=places(source, targets, dict(label_map or {})),
        base=base_config("image_folder", encoder | dict(changes or {}) | stand_in),
        seeds=tuple(seeds),
        choose=choose,
        budget=seconds,
        check=check,
    )


def study_of(asked: Asked) -> Study:
    """The study of all candidates that fit the base config; its axis `method` is to be set."""
    domains = dict(asked.catalogue.domains)
    (source,) = (name for name, place in domains.items() if place.labelled)
    targets = [name for name, place in domains.items() if not place.labelled]
    base = asked.base.replace({"data.source": source, "data.target": targets[0]})
    axes: dict[str, list[Any]] = {
        "seed": list(asked.seeds),
        "pair": pairs(*(f"{source}:{target}" for target in targets)),
    }
    return Study(STUDY, base, axes, usual_settings(base))


def within_budget(asked: Asked, study: Study, resources: Resources, console: Console) -> tuple[Study, dict[str, str]]:
    """The study with the candidates that fit, cheapest first, and why the others do not.

    Raises:
        ConfigError: none fits.
    """
    found = affordable(study.base, study.usual)
    names = {_name(change): change for change in found.changes}
    left_out = dict(found.left_out)
    if asked.budget is not None:
        estimates = {}
        for name, change in names.items():
            estimates[name] = estimate(study.base, study.usual, change, asked.catalogue)
            console.print(f"{name}: about {estimates[name].seconds:,.0f} s a training")
        trainings = len(study.axes["seed"]) * len(study.axes["pair"])
        kept, too_long = affordable_within(estimates, asked.budget, trainings, max(1, cpus() // resources.cpus))
        names, left_out = {name: names[name] for name in kept}, left_out | too_long
    for name, reason in left_out.items():
        console.print(f"left out: {name}: {reason}")
    if not names:
        raise ConfigError("no candidate is left: raise --budget, or mend the settings that are named above")
    return study.with_axes({"method": list(names.values())}), left_out


def adapt(
    asked: Asked,
    out: Path,
    execution: Execution,
    resources: Resources,
    console: Console,
    *,
    dry_run: bool = False,
) -> Adaptation:
    """Train the candidates, choose one for each target, and write what users came for into a folder.

    The same call goes on after an interruption; with a larger budget it adds candidates.

    Args:
        asked: what to adapt.
        out: the folder, made where it is missing.
        execution, resources: how to train; predictions are kept.
        console: where progress is printed.
        dry_run: say what would be trained, and leave nothing.

    Raises:
        UserError: nothing has run: the images, the config, the budget or the folder cannot be used.
    """
    store = _open(out, asked.catalogue, leave=not dry_run)
    execution = execution.model_copy(update={"root": asked.catalogue, "keep_predictions": True, "keep_model": True})
    study, left_out = within_budget(asked, study_of(asked), resources, console)
    plan = plan_study(study, store, execution.root, beside=execution.beside)
    done, todo = len(plan.answered), len(plan.todo)
    console.print(f"{len(plan.study.cells)} trainings, {done} done, {todo} to do, {plan.steps_to_do:,} steps")
    if dry_run:
        for cell in plan.todo:
            console.print(f"to train: {describe(cell.config)}")
        return Adaptation(out, [], left_out, 0, asked.choose)
    outcome = run_study(plan, store, execution, resources, console)
    if outcome.interrupted or not outcome.done:
        return Adaptation(out, [], left_out, outcome.interrupted or outcome.failed, asked.choose)
    targets = _on_targets(asked, store)
    found = Adaptation(out, targets, left_out, 0, asked.choose)
    _write(found, asked, outcome.failed)
    return found


def _open(out: Path, catalogue: Catalogue, *, leave: bool) -> Store:
    """The store in the folder, which is made or has been made by an earlier call."""
    ours = out / "domains.toml"
    if out.is_dir() and any(out.iterdir()) and not ours.exists():
        raise ConfigError(f"--out {shown(out)}: a folder with other files: name a new one")
    store = Store(out / "store", create=leave, missing_ok=not leave)
    if not leave:
        return store
    replace_file(ours, to_toml(catalogue).encode())
    return store


def _on_targets(asked: Asked, store: Store) -> list[OnTarget]:
    cells = load(store.location, study=STUDY)
    done = cells[(cells["status"] == "done") & ~cells["superseded"]]
    found = candidates(done, store)
    table, scores = choice(found, asked.choose), choice_scores(found, asked.choose)
    by_id = {record.id: record for record in store.records(done["cell"])}
    return [
        _on_target(asked, store, target, found, table, scores, by_id)
        for target, place in asked.catalogue.domains
        if not place.labelled
    ]


def _on_target(
    asked: Asked,
    store: Store,
    target: str,
    found: Candidates,
    table: pd.DataFrame,
    scores: pd.DataFrame,
    by_id: Mapping[str, Record],
) -> OnTarget:
    rows = found.trainings
    rows = rows[[by_id[cell].config.data.target == target for cell in rows["cell"]]]
    pair = rows["pair"].iloc[0]
    chosen = str(table.loc[table["pair"] == pair, "choice"].iloc[0])
    # Of several seeds the one with the highest score predicts.
    best = rows.sort_values(asked.choose, ascending=False, kind="stable").drop_duplicates("candidate")
    records = {str(row.candidate): by_id[str(row.cell)] for row in best.itertuples()}
    baseline = next((name for name, each in records.items() if each.config.method == BASELINE), None)
    of_target = predicted(store, records, chosen, baseline, asked.catalogue)
    checked: dict[str, Accuracy] = {}
    if asked.check is not None:
        labels = read_check(asked.check, of_target.names, of_target.where, of_target.classes)
        place = {name: index for index, name in enumerate(of_target.names)}
        checked = {
            candidate: accuracy([of_target.of_class(candidate)[place[name]] for name in labels], list(labels.values()))
            for candidate in of_target.labels
        }
    return OnTarget(target, records[chosen], of_target, scores[scores["pair"] == pair], checked)


def _write(found: Adaptation, asked: Asked, failed: int) -> None:
    out = found.out
    replace_file(out / "predictions.csv", found.predictions.to_csv(index=False).encode())
    drafts = [to_label(each.predicted.names, each.predicted.where, _TO_LABEL) for each in found.targets]
    if not (out / "check.csv").exists():  # it may have been filled in
        replace_file(out / "check.csv", pd.concat(drafts, ignore_index=True).to_csv(index=False).encode())
    for each in found.targets:
        export(f"{out / 'store'}/{each.record.id}", _model_folder(found, each))
    page = adaptation_page(found.targets, asked.choose, found.left_out, failed, asked.catalogue, out)
    replace_file(out / "report.html", page.encode())


def _model_folder(found: Adaptation, on_target: OnTarget) -> Path:
    """`model`, or with several targets `model/TARGET`."""
    return found.out / "model" / (on_target.target if len(found.targets) > 1 else "")


def _name(change: Mapping[str, Any]) -> str:
    config = TrialConfig().replace(dict(change))
    return config.approach if config.method == "scale" else config.variant
