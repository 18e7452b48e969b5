"""The functions of the front door: what `from scale_ray import …` gives beside the classes of a study."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scale_ray.budget import read_budget
from scale_ray.config import Catalogue, Execution, Resources, Root, TrialConfig
from scale_ray.records import Record
from scale_ray.store import Store
from scale_ray.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from scale_ray.adaptation.outcome import Adaptation
    from scale_ray.bundle.model import Model
    from scale_ray.report.results import Results
    from scale_ray.sweep.plan import Plan
    from scale_ray.sweep.run import Outcome


def plan(
    study: Study,
    store: str | Path,
    root: str | Root | None = None,
    *,
    limit: int | None = None,
    sharing: bool = True,
    keep_model: bool | None = None,
    keep_predictions: bool = False,
) -> "Plan":
    """What `run` would do: the cells, those that the store answers already, and the stages to train.

    Args:
        study: the cells that are wanted.
        store: folder or URL (s3://…, gs://…); where it is missing, nothing is done yet.
        root: folder of an image benchmark: root/domain/class/image; or a catalogue, or the file of one or of a list.
        limit: run only the first `limit` cells.
        sharing: train once what cells have in common.
        keep_model: with True, a cell whose model is not stored is not done.
        keep_predictions: a cell whose predictions are not stored is not done.

    Raises:
        UserError: a cell names something that does not exist, or its data cannot be read.
    """
    from scale_ray.sweep.plan import plan_study

    return plan_study(
        study,
        Store(store, missing_ok=True),
        _images(root),
        limit=limit,
        beside=Execution(keep_model=keep_model, keep_predictions=keep_predictions).beside,
        share=sharing,
    )


def run(
    study: Study,
    store: str | Path,
    root: str | Root | None = None,
    *,
    limit: int | None = None,
    sharing: bool = True,
    execution: Execution | None = None,
    resources: Resources | None = None,
    track: Sequence[str] = (),
    budget: str | None = None,
) -> "Results":
    """Train every cell of a study that the store does not answer yet; the same call again goes on.

    A study with `until` then gets more seeds where they decide something.

    Args:
        study, root, limit, sharing: as in `plan`.
        store: folder or URL (s3://…, gs://…); made where it is missing.
        execution: device, checkpoints, models; its `root` is used where `root` is None.
        resources: what each trial asks Ray for, and where Ray is.
        track: trackers that show the trainings live, as `--track` names them: `["mlflow=http://127.0.0.1:5000"]`.
        budget: what this call may take: `40m`, `20gpu-hours` or `30usd`; every training's state is saved at its end.

    Returns:
        What the study has in its store then, as `results` does. Failed cells have a record with the reason; after
        Ctrl-C, where a notebook's kernel is interrupted, or at the end of the budget, cells are still to do.

    Raises:
        UserError: nothing has run: the study, its data, the resources, a tracker or the budget cannot be used.
    """
    from scale_ray.cli.console import console
    from scale_ray.sweep.meter import Meter
    from scale_ray.sweep.plan import plan_study
    from scale_ray.track import check_targets, open_trackers
    from scale_ray.tracked import run_tracked

    meter = None if budget is None else Meter(read_budget(budget))
    execution = execution or Execution()
    if root is not None:
        execution = execution.model_copy(update={"root": _images(root)})
    targets = check_targets(track)
    opened = Store(store, create=True)
    resources = resources or Resources(workers=study.base.parallel.workers)

    def planned(each: Study) -> "Plan":
        return plan_study(
            each,
            opened,
            _images(execution.root),
            limit=limit,
            beside=execution.beside,
            share=sharing,
            seeds_first=meter is not None,
        )

    def train(wanted: "Plan") -> "Outcome":
        trackers = open_trackers(targets)
        return run_tracked(wanted, opened, execution, resources, console, trackers, meter=meter)

    if study.until is None:
        train(planned(study))
    else:
        from scale_ray.until import Rounds, run_rounds

        run_rounds(Rounds(study), opened, planned, train, lambda rounds: rounds.tell(console))
    return results(store, study.name)


def results(store: str | Path, study: str | None = None, *, allow: Collection[str] = ()) -> "Results":
    """What a store holds of a study: records, tables, the answer and the report. Needs neither torch nor ray.

    A notebook shows the object as the answer in sentences, with the tables below.

    Args:
        store: folder or URL.
        study: only the cells that this study planned.
        allow: mixed records that tables may count: recipe, duplicates, code, data.

    Raises:
        StoreError: no such store, or a file in it that cannot be read.
        ReportError: no such study.
    """
    from scale_ray.report import Results

    return Results(store, study, allow)


def adapt(
    source: str | Path,
    target: str | Path | Sequence[str | Path],
    out: str | Path = "result",
    *,
    check: str | Path | None = None,
    budget: str | None = None,
    execution: Execution | None = None,
    resources: Resources | None = None,
    track: Sequence[str] = (),
    **more: Any,
) -> "Adaptation":
    """Predict images without labels from images with labels: what `scale-ray adapt` does.

    Args:
        source: with labels: a folder of class folders, a list file, or `hf:NAME`.
        target: without labels: a folder of images at any depth, a list file, or `hf:NAME`; or several.
        out: folder of predictions, report and store; the same call goes on in it.
        check: labels of some target images, which measure the result and reach no training; None: those that are
            filled in in the folder's check.csv, if any.
        budget: what the trainings may take, as in `30m`.
        execution, resources: device, and what each trial asks Ray for.
        track: as in `run`.
        more: backbone, weights, fine_tune, seeds, choose, label_map, changes: see `adaptation.asked.ask`.

    Returns:
        The outcome; its `predictions` are a table.

    Raises:
        UserError: nothing has run: the images, the config, the budget or the folder cannot be used.
    """
    from scale_ray.adaptation.asked import ask
    from scale_ray.adaptation.run import adapt as run_adaptation
    from scale_ray.cli.console import console

    targets = [str(each) for each in ([target] if isinstance(target, str | Path) else target)]
    asked = ask(str(source), targets, check=None if check is None else Path(check), budget=budget, **more)
    workers = asked.base.parallel.workers
    resources = resources or Resources(workers=workers)
    return run_adaptation(asked, Path(out), execution or Execution(), resources, console, track=track)


def train(
    config: TrialConfig,
    root: str | Root | None = None,
    store: str | Path | None = None,
    *,
    execution: Execution | None = None,
    track: Sequence[str] = (),
) -> Record:
    """Train one trial in this process, without Ray. Its record is the one that a study would leave.

    Args:
        config: what is trained.
        root: folder of an image benchmark: root/domain/class/image; or a catalogue, or the file of one or of a list.
        store: keeps the record and checkpoints; None keeps nothing.
        execution: device, threads, checkpoints, models; its `root` is used where `root` is None.
        track: as in `run`.

    Raises:
        UserError: the config names something that does not exist, or its data or a tracker cannot be used.
    """
    from scale_ray.cli.console import console
    from scale_ray.track import TrackedTrial, open_trackers
    from scale_ray.training.loop import Progress
    from scale_ray.training.trial import run_trial

    execution = execution or Execution()
    if root is not None:
        execution = execution.model_copy(update={"root": _images(root)})
    trackers = open_trackers(track)
    opened = Store(store, create=True) if store is not None else None
    with TrackedTrial(trackers, opened, console.print) as told:
        progress = Progress(on_point=lambda point: told.point(point.on(*point.accuracies.target)))
        record = run_trial(config, execution, opened, progress, told.begun)
        told.done(record)
    return record


def load(store: str | Path, study: str | None = None) -> "pd.DataFrame":
    """All cells of a store as a table, one row each; docs/report.md lists the columns. Needs neither torch nor ray.

    Args:
        store: folder or URL.
        study: only the cells that this study planned.

    Raises:
        StoreError: no such store, or a file in it that cannot be read.
    """
    from scale_ray.report import load as load_store

    return load_store(store, study=study)


def load_model(model: str | Path, *, weights: str | Path | None = None, device: str = "auto") -> "Model":
    """A trained model that predicts images: `load_model("runs/phone/0a1b2c3d").predict("phone/")`.

    Args:
        model: the folder of a bundle; STORE/ID, the first digits of the id do; STORE/records/ID.json; or a store with
            one record.
        weights: the weights file of a frozen encoder, where it is not where the record says.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.

    Raises:
        UserError: there is no such model, it is not stored, or it cannot be built here.
    """
    from scale_ray.bundle.find import find_model
    from scale_ray.bundle.model import Model

    return Model(find_model(model, weights).bundle, device)


def _images(root: str | Root | None) -> Root | None:
    from scale_ray.data.roots import read_root

    return root if root is None or isinstance(root, Catalogue) else read_root(os.path.expanduser(root), ())


def main(study: Study, **defaults: Any) -> None:
    """Give an experiment's file the command line of `scale-ray ablate`, starting from its study.

    `python experiment.py --dry-run` shows the plan; `--seeds`, `--pairs`, `--axis PATH=V,V`, `--set PATH=V` and others
    change the study; `--store`, `--limit`, `--local` and others say where and how it runs.

    Args:
        study: what runs without options.
        defaults: other defaults of options: `main(study, store="runs/mine", checkpoint_every=100)`.

    Raises:
        TypeError: a default for an option that does not exist.
    """
    from scale_ray.cli import study_main

    study_main(study, defaults)


def tune(study: Study, **defaults: Any) -> None:
    """Give an experiment's file the command line of `scale-ray tune`, starting from a study's base and domain pairs.

    Args:
        study: its base config and its axis `pair` are used.
        defaults: other defaults of options: `tune(study, space=["losses.threshold=float:0.5:0.95:0.05"])`.

    Raises:
        TypeError: a default for an option that does not exist.
    """
    from scale_ray.cli import search_main

    search_main(study, defaults)
