"""Trains one stage under Ray Train: a driver in a Ray Tune actor, and its workers on the cluster.

https://docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.train.v2._internal.exceptions import RayTrainError
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback

from scale_ray.config import Execution
from scale_ray.errors import UserError
from scale_ray.store import Store
from scale_ray.sweep.cluster import Footprint
from scale_ray.sweep.leftovers import TRAIN_RUNS
from scale_ray.sweep.pickling import unpickle_entries
from scale_ray.sweep.trainable import metrics, stage_of
from scale_ray.training.checkpoint import State, from_bytes, to_bytes
from scale_ray.training.evaluation import TrainingDiverged
from scale_ray.training.loop import Progress
from scale_ray.training.stages import Stage
from scale_ray.training.trial import Ran, leaving_failures, run_stage

_STATE = "state.pt"

# How often a lost worker is replaced, each time from the last checkpoint. Preempted nodes do not count.
_MAX_FAILURES = 3

# Steps between two checks for a preemption notice. Every worker must check at the same steps.
_STEPS_BETWEEN_NOTICES = 10


# Errors by which Ray reports a lost process or node. Errors of the training itself come unchanged.
_LOST = (RayError, RayTrainError)


class StageFailed(RuntimeError):
    """The training failed; the records of its cells name the reason."""


@dataclass(frozen=True)
class Task:
    """What each worker of a stage gets."""

    stage: Stage
    execution: Execution
    store: str
    ran: Ran
    entries: bytes


def drive_stage(
    assignment: dict[str, Any],
    *,
    known: dict[str, Stage],
    execution: Execution,
    store: str,
    entries: bytes,
    needs: Footprint,
) -> None:
    """Train the stage that was assigned on workers of Ray Train; runs in a Tune actor that holds no CPU or GPU.

    Args:
        assignment, known, execution, store, entries: as in `trainable.train_stage`.
        needs: the resources of the workers.

    Raises:
        Exception: whatever ended the training; the records already name it.
    """
    unpickle_entries(entries)
    stage, opened = stage_of(assignment, known), Store(store)
    ran = needs.ran
    # A process or node that Ray lost is no failure of the training: the driver of the study tries it again.
    with leaving_failures(stage, execution, opened, ran, lambda error: not isinstance(error, _LOST)):
        _fit(Task(stage, execution, store, ran, entries), needs, opened)
    if not _is_left(stage, execution, opened):
        raise StageFailed(f"{stage.title()}: failed, its records name the reason")
    opened.files.delete_folder(f"{TRAIN_RUNS}/{stage.key}")


def _fit(task: Task, needs: Footprint, store: Store) -> None:
    # Ray Train passes these on to its controller and workers. Its defaults are 2 s between two checks for dead workers
    # and 5 s between two checks for preempted nodes.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")
    # Where several Rays run on one machine, the cleaner of placement groups must find its own.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    path, filesystem = store.arrow_storage(TRAIN_RUNS)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend=needs.ran.backend or "gloo"),
        scaling_config=ScalingConfig(
            num_workers=needs.workers,
            use_gpu="GPU" in needs.bundle,
            resources_per_worker=dict(needs.bundle),
        ),
        run_config=RunConfig(
            name=task.stage.key,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            callbacks=[TuneReportCallback()],
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        raise next(iter(error.worker_failures.values()), error) from error


def _work(config: dict[str, Any]) -> None:
    """One worker: trains as a Tune trial does, on its rows of every batch."""
    task: Task = config["task"]
    unpickle_entries(task.entries)
    first = ray.train.get_context().get_world_rank() == 0
    execution = task.execution
    if get_device().type == "cuda":
        execution = execution.model_copy(update={"device": str(get_device())})
    store = Store(task.store)
    ray.train.report({"step": task.stage.first})
    checkpoints = TrainCheckpoints(task.stage.key, execution.checkpoint_every, writes=first)
    progress = Progress(on_point=lambda point: ray.train.report(metrics(point)))
    try:
        # On every worker, because only one of them may have the reason: an image missing on its node, for example.
        with leaving_failures(task.stage, execution, store, task.ran, _is_final):
            run_stage(task.stage, execution, store, progress, checkpoints, runner="ray train")
    except TrainingDiverged:  # all workers have seen the same losses
        return  # Ray Train would try again what raises here, and it would diverge again
    except UserError:
        if task.ran.workers > 1:
            raise  # the other workers wait for this one and end only with it
        return


def _is_final(error: Exception) -> bool:
    return isinstance(error, UserError)


class TrainCheckpoints:
    """Keeps the latest state of a training in Ray Train's checkpoints.

    It is also saved when a node gets a preemption notice (spot instances), however recent the last checkpoint is.

    Args:
        key: of the stage, for messages.
        every: steps between checkpoints.
        writes: whether this worker writes; all workers must call `save`.
    """

    def __init__(self, key: str, every: int, *, writes: bool):
        self._key, self._every, self._writes = key, every, writes
        self._last_notice: list[str] = []  # nodes of the last notice that led to a checkpoint

    def load(self, device: torch.device) -> State | None:
        kept = ray.train.get_checkpoint()
        if kept is None:
            return None
        with kept.as_directory() as folder:
            return from_bytes((Path(folder) / _STATE).read_bytes(), self._key, f"{kept.path}/{_STATE}", device)

    def due(self, step: int) -> bool:
        return step % self._every == 0 or (step % _STEPS_BETWEEN_NOTICES == 0 and self._noticed())

    def save(self, state: State) -> None:
        with tempfile.TemporaryDirectory() as folder:
            if self._writes:
                (Path(folder) / _STATE).write_bytes(to_bytes(state, self._key))
            kept = ray.train.Checkpoint.from_directory(folder) if self._writes else None
            ray.train.report({"step": state["step"]}, checkpoint=kept)

    def _noticed(self) -> bool:
        notice = ray.train.get_preemption_info()
        if notice is None or notice.preempted_node_ids == self._last_notice:
            return False
        self._last_notice = notice.preempted_node_ids
        return True


def _is_left(stage: Stage, execution: Execution, store: Store) -> bool:
    """Whether the stage has left its records, or its state where other stages go on from it."""
    if not stage.ends:
        return store.has_stage(stage.key)
    return all(store.answers(cell.id, with_model=execution.keep_model) for cell in stage.ends)
