"""Trains one stage inside a Ray Tune actor: how studies run on this machine's own Ray."""

from statistics import fmean
from typing import Any

from ray import tune

from scale_ray.config import Execution
from scale_ray.store import Store
from scale_ray.sweep.pickling import unpickle_entries
from scale_ray.training.loop import Point, Progress
from scale_ray.training.stages import Stage
from scale_ray.training.trial import Ran, leaving_failures, run_stage
from scale_ray.training.validators import VALIDATORS


def train_stage(
    assignment: dict[str, Any], *, known: dict[str, Stage], execution: Execution, store: str, entries: bytes
) -> None:
    """Train the stage that was assigned; its records go to the store, its curve to Tune.

    Args:
        assignment: see `engine.WorkSource.assignment`.
        known: stages by key, for assignments that bring only a key.
        execution: how to train.
        store: location of the store.
        entries: from `pickle_entries`.

    Raises:
        Exception: whatever ended the training; the records already name it.
    """
    unpickle_entries(entries)
    stage, opened = stage_of(assignment, known), Store(store)
    with leaving_failures(stage, execution, opened, Ran("ray tune")):
        tune.report({"step": stage.first})
        progress = Progress(on_point=lambda point: tune.report(metrics(point)))
        run_stage(stage, execution, opened, progress, runner="ray tune")


def stage_of(assignment: dict[str, Any], known: dict[str, Stage]) -> Stage:
    """The stage of an assignment: brought along, or known by its key."""
    stage: Stage = assignment.get("work") or known[assignment["stage"]]
    return stage


def metrics(point: Point) -> dict[str, Any]:
    """A point of the curve as Tune's metrics, means over several targets; scores are named `validator_<name>`."""
    measured = point.accuracies
    of_targets = measured.validators.values()
    return {
        "step": point.step,
        "target_accuracy": fmean(measured.target.values()),
        "source_val_accuracy": measured.source_val,
        **{f"validator_{name}": fmean(scores[name] for scores in of_targets) for name in VALIDATORS},
    }
