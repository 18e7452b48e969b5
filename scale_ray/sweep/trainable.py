"""Trains one stage inside a Ray Tune actor, which holds the trial's CPUs and GPUs."""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from ray import tune

from scale_ray.config import Execution
from scale_ray.records import Ran
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.sweep.handover import handed_over
from scale_ray.sweep.notice import Notice, NoticedCheckpoints
from scale_ray.sweep.pickling import unpickle_entries
from scale_ray.training.checkpoint import StoreCheckpoints
from scale_ray.training.failures import leaving_failures
from scale_ray.training.loop import Point, Progress
from scale_ray.training.pace import Pace
from scale_ray.training.trial import run_stage
from scale_ray.training.validators import VALIDATORS
from scale_ray.training.watchdog import Watchdog, watching

# The metric of a checkpoint.
SAVED = "saved_step"

# Seconds between two reports of a training's pace; each lets the training wait for the driver for a moment.
PACE_SECONDS = 30.0


def train_stage(
    assignment: dict[str, Any],
    *,
    handover: str,
    execution: Execution,
    store: str,
    entries: bytes,
    stop_flag: str | None,
) -> None:
    """Train the stage that was assigned; its records go to the store, its curve to Tune.

    Args:
        assignment: see `engine.WorkSource.assignment`.
        handover: name of the `Handover` that has the stage.
        execution: how to train.
        store: location of the store.
        entries: from `pickle_entries`.
        stop_flag: see `Notice`.

    Raises:
        Exception: whatever ended the training; the records already name it.
    """
    unpickle_entries(entries)
    stage = handed_over(handover, assignment["stage"])
    opened = Store(store)
    kept = StoreCheckpoints(opened, stage.key, execution.checkpoint_every)
    ran = Ran("ray tune")
    with (
        leaving_failures(stage, execution, opened, ran),
        watching(stage, execution, opened, ran) as watchdog,
        Notice(stop_flag) as notice,
    ):
        tune.report({"step": stage.first})
        report = watchdog.waiting(tune.report)
        progress = reporting(report, stage, watchdog, every=PACE_SECONDS)
        # A stage that lost its process has made progress if it had come to a later checkpoint.
        checkpoints = NoticedCheckpoints(kept, lambda: notice.given, on_saved=lambda step: report(saved(step)))
        run_stage(stage, execution, opened, progress, checkpoints, runner="ray tune")


def saved(step: int) -> dict[str, Any]:
    """The metrics that say that the state of this step was saved."""
    return {"step": step, SAVED: step}


def reporting(
    report: Callable[[dict[str, Any]], None], stage: Stage, watchdog: Watchdog, *, every: float | None
) -> Progress:
    """Callbacks that report every point of a stage's curve, and its pace: how far it is (`at`), and how fast.

    Where one cell alone waits for the stage, its whole `point` is told too, as a `CurvePoint`.

    Args:
        report: sends metrics to the study's driver.
        stage: what trains.
        watchdog: gets the signs of life.
        every: see `Pace`.
    """
    pace = Pace(lambda step, seconds: report({"at": step, "seconds_a_step": seconds}), stage.last, every)
    targets = [cell.config.data.target for cell in stage.waiting]

    def on_point(point: Point) -> None:
        whole = {"point": point.on(targets[0]).model_dump()} if len(targets) == 1 else {}
        report(metrics(point, pace.seconds_a_step) | whole)

    return Progress(
        on_point=on_point,
        on_step=pace.on_step,
        on_life=watchdog.beat,
        on_rest=watchdog.rest,
    )


def metrics(point: Point, seconds_a_step: float | None = None) -> dict[str, Any]:
    """A point of the curve as Tune's metrics, means over several targets; scores are named `validator_<name>`.

    Without target labels there is no target accuracy.
    """
    measured = point.accuracies
    of_targets = list(measured.validators.values())
    known = [accuracy for accuracy in measured.target.values() if accuracy is not None]
    scored = [name for name in VALIDATORS if all(name in scores for scores in of_targets)]
    return {
        "step": point.step,
        **({"target_accuracy": fmean(known)} if known else {}),
        "source_val_accuracy": measured.source_val,
        **({} if seconds_a_step is None else {"seconds_a_step": seconds_a_step}),
        **{f"validator_{name}": fmean(scores[name] for scores in of_targets) for name in scored},
    }
