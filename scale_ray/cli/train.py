"""scale-ray train: one trial, in this process."""

import logging
from collections.abc import Callable
from threading import Event
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scale_ray.cli import complete
from scale_ray.cli.configs import config_from
from scale_ray.cli.console import console
from scale_ray.cli.groups import command
from scale_ray.cli.interrupt import on_ctrl_c
from scale_ray.cli.options import EXECUTION, TRAINED, Backbone, ExecutionOptions, Losses, Track, TrialOptions
from scale_ray.config import ConfigError
from scale_ray.costs import duration
from scale_ray.records import CurvePoint, Record
from scale_ray.store import Store
from scale_ray.study import describe

_LINE_SECONDS = 60.0  # between two lines that say the time left, without a terminal


@command
def train(
    trial: TrialOptions,
    execution: ExecutionOptions,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="DOMAIN", help="Labelled. Default: of the benchmark's first pair.", rich_help_panel=TRAINED
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="DOMAIN", help="Unlabelled. Default: of the benchmark's first pair.", rich_help_panel=TRAINED
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.method,
            help="scale, source_only, prototypes, mcc, cdan, shot and others (docs/comparison.md has all). Default: "
            "source_only for ce, else scale.",
            rich_help_panel=TRAINED,
        ),
    ] = None,
    losses: Losses = None,
    backbone: Backbone = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Default: 0.", rich_help_panel=TRAINED)] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URL",
            help="Keeps record, checkpoints and, with a frozen encoder or --keep-model, the model; without it, "
            "nothing is kept.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="CPU threads. Another number may change the last bits of a result.",
            rich_help_panel=EXECUTION,
        ),
    ] = 1,
    track: Track = None,
) -> None:
    """Train one trial in this process, without Ray. Its record is the one that a study would leave.

    With --store, the same command goes on from the last checkpoint after an interruption.
    """
    options = {
        "data.source": source,
        "data.target": target,
        "model.backbone": backbone,
        "seed": seed,
        **_method_and_terms(method, losses),
    }
    config = config_from(trial, {path: value for path, value in options.items() if value is not None})
    for option, wanted in (("--keep-model", execution.keep_model), ("--keep-predictions", execution.keep_predictions)):
        if wanted and store is None:
            raise ConfigError(f"{option} needs a store to write into: add --store FOLDER")

    from scale_ray.track import TrackedTrial, open_trackers
    from scale_ray.training import loop
    from scale_ray.training.pace import Pace
    from scale_ray.training.trial import run_trial

    trackers = open_trackers(track or ())
    opened = Store(store, create=True) if store else None
    if opened is None:
        console.print("nothing of this training is kept: add --store FOLDER for its record and checkpoints")

    on_ctrl_c("the same command goes on from the last checkpoint" if opened else "nothing of this training is kept")

    logging.basicConfig(level=logging.INFO, format="%(message)s")  # which weights were loaded, on stderr
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        TrackedTrial(trackers, opened, console.print) as told,
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar,
    ):
        task = bar.add_task("training", total=config.optim.steps, visible=False)
        pace = Pace(_say_pace(config.optim.steps), config.optim.steps, _LINE_SECONDS)
        begun = Event()

        def on_step(step: int) -> None:
            bar.update(task, completed=step, visible=True)
            pace.on_step(step)

        def on_point(point: loop.Point) -> None:
            of_target = point.on(*point.accuracies.target)
            console.print(_point_line(of_target))
            told.point(of_target)

        progress = loop.Progress(on_step=on_step, on_point=on_point, on_life=begun.set)
        execute = execution.execution(trial.images, threads)
        record = run_trial(config, execute, opened, progress, told.begun)
        told.done(record)
    seconds = (
        f" in {record.provenance.wall_seconds:.1f} s" if begun.is_set() else ": done before, nothing is trained again"
    )
    console.print(_outcome_line(record) + seconds)
    if opened:
        console.print(f"record: {opened.record_location(record.id)}")


def _say_pace(steps: int) -> Callable[[int, float], None]:
    """Prints how far a training of so many steps is, where no bar shows it."""

    def say(step: int, seconds: float) -> None:
        if not console.is_terminal:
            left = duration(seconds * (steps - step))
            console.print(f"step {step:,} of {steps:,}: {seconds:.2g} s a step, about {left} left")

    return say


def _method_and_terms(method: str | None, losses: str | None) -> dict[str, Any]:
    """The method and the loss combination where one of them is given: methods other than scale train with ce."""
    if method not in (None, "scale") and losses is None:
        losses = "ce"
    if losses is not None and method is None:
        method = "source_only" if losses == "ce" else "scale"
    return {"method": method, "losses.terms": losses}


def _point_line(point: CurvePoint) -> str:
    losses = " ".join(f"{name} {value:.3f}" for name, value in point.losses.items())
    kept = "" if point.kept_fraction is None else f", kept {100 * point.kept_fraction:.0f} %"
    agreement = "" if point.agreement is None else f", teacher agrees on {point.agreement:.0f} %"
    accuracies = _accuracies(point.target_accuracy, point.teacher_accuracy, point.source_val_accuracy)
    return f"step {point.step:,}: {accuracies}{kept}{agreement}, losses {losses}"


def _outcome_line(record: Record) -> str:
    result = record.result
    assert result is not None
    accuracies = _accuracies(result.target_accuracy, result.teacher_accuracy, result.source_val_accuracy)
    return f"{describe(record.config)}: {accuracies}, {result.steps:,} steps"


def _accuracies(target: float | None, teacher: float | None, source_val: float) -> str:
    of_target = "target without labels" if target is None else f"target {target:.2f} %"
    of_teacher = "" if teacher is None else f", teacher {teacher:.2f} %"
    return f"{of_target}{of_teacher}, source_val {source_val:.2f} %"
