"""Drives a stage that trains under Ray Train: a Ray Tune actor on a worker node, which starts the stage's workers.

This module and what it imports need no torch: a driver, and the controller that Ray Train starts beside it, only wait,
and every running stage has one of each.
https://docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html
"""

import os
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.train.v2._internal.exceptions import RayTrainError
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback

from scale_ray.config import Execution
from scale_ray.errors import UserError
from scale_ray.records import Ran
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.sweep.cluster import Footprint
from scale_ray.sweep.handover import handed_over
from scale_ray.sweep.leftovers import TRAIN_RUNS
from scale_ray.sweep.train_groups import Trainer
from scale_ray.training.failures import leaving_failures

# How often Ray Train replaces a lost worker, each time from the last checkpoint; then the study tries the stage again.
_MAX_FAILURES = 3

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
    stop_flag: str | None


def drive_stage(
    assignment: dict[str, Any],
    *,
    handover: str,
    execution: Execution,
    store: str,
    entries: bytes,
    stop_flag: str | None,
    needs: Footprint,
    groups: ActorHandle,
) -> None:
    """Train the stage that was assigned on workers of Ray Train; runs in a Tune actor that holds no CPU or GPU.

    Args:
        assignment, handover, execution, store, entries, stop_flag: as in `trainable.train_stage`.
        needs: the resources of the workers.
        groups: the study's `group_cleaner.GroupCleaner`.

    Raises:
        Exception: whatever ended the training; the records already name it.
    """
    stage = handed_over(handover, assignment["stage"])
    opened, ran = Store(store), needs.ran
    # The state of the training is a checkpoint of the store. What Ray Train noted of an earlier run is of no use, and a
    # kill may have left half of it.
    run = f"{TRAIN_RUNS}/{stage.key}"
    opened.files.delete_folder(run)
    # A process or node that Ray lost is no failure of the training: the driver of the study tries it again.
    with leaving_failures(stage, execution, opened, ran, lambda error: not isinstance(error, _LOST)):
        _fit(Task(stage, execution, store, ran, entries, stop_flag), needs, opened, groups)
    if not _is_left(stage, execution, opened):
        raise StageFailed(f"{stage.title()}: failed, its records name the reason")
    opened.files.delete_folder(run)


def _fit(task: Task, needs: Footprint, store: Store, groups: ActorHandle) -> None:
    # Ray Train passes these on to its controller and workers. Its default is 2 s between two checks for dead workers.
    # The workers ask for notices themselves; Ray Train would start one more process for that.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    # Where several Rays run on one machine, each must find its own.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    path, filesystem = store.arrow_storage(TRAIN_RUNS)
    trainer = Trainer(
        _work,
        groups=groups,
        train_loop_config={"task": task},
        backend_config=WorkersConfig(),
        scaling_config=ScalingConfig(
            num_workers=needs.workers,
            use_gpu="GPU" in needs.bundle,
            resources_per_worker=dict(needs.bundle),
        ),
        run_config=RunConfig(
            name=task.stage.key,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            callbacks=[TuneReportCallback()],
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        raise cause(error) from error


def cause(error: WorkerGroupError) -> Exception:
    """Which of the workers' failures ended a training.

    Workers that wait for one that is lost, or that has failed, end with an error of the process group. So a loss comes
    first, which the study tries again; then what the user can mend; then any other.
    """
    failures = list(error.worker_failures.values())
    for kind in (*_LOST, UserError, Exception):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    return error


def _work(config: dict[str, Any]) -> None:
    from scale_ray.sweep.train_worker import work  # imports torch, on the worker alone

    work(config["task"])


class _Workers(Backend):
    """Tells the workers where the first of them listens; they form their process group themselves."""

    share_cuda_visible_devices = True  # nccl reaches the other GPUs of a node

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        address, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(_set_master, address, port)


@dataclass
class WorkersConfig(BackendConfig):
    """Like Ray Train's TorchConfig, without torch in the controller."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Workers


def _set_master(address: str, port: int) -> None:
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)


def _is_left(stage: Stage, execution: Execution, store: Store) -> bool:
    """Whether the stage has left its records, or its state where other stages go on from it."""
    if not stage.ends:
        return store.has_stage(stage.key)
    return all(store.answers(cell.id, beside=execution.beside) for cell in stage.ends)
