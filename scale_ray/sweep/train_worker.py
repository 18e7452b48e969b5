"""One worker of a stage under Ray Train: trains as a Tune trial does, on its rows of every batch."""

import logging
import tempfile
from pathlib import Path

import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from scale_ray.errors import UserError
from scale_ray.store import Store
from scale_ray.sweep.notice import Notice, NoticedCheckpoints
from scale_ray.sweep.pickling import unpickle_entries
from scale_ray.sweep.train_driver import STATE, Task
from scale_ray.sweep.trainable import metrics
from scale_ray.training.checkpoint import CheckpointError, State, from_bytes, to_bytes
from scale_ray.training.failures import TrainingDiverged, leaving_failures
from scale_ray.training.loop import Progress
from scale_ray.training.trial import run_stage
from scale_ray.training.watchdog import watching
from scale_ray.workers import Workers

logger = logging.getLogger(__name__)

# Steps between two questions whether one of the workers has a notice. Every worker must ask at the same steps.
_STEPS_BETWEEN_QUESTIONS = 10


def work(task: Task) -> None:
    """Train the stage of a task with the other workers of this group.

    Raises:
        Exception: what Ray Train shall try again, from the last checkpoint.
    """
    unpickle_entries(task.entries)
    if task.ran.backend is not None:
        context = ray.train.get_context()
        dist.init_process_group(task.ran.backend, rank=context.get_world_rank(), world_size=context.get_world_size())
    try:
        _train(task)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _train(task: Task) -> None:
    execution, device = task.execution, get_device()
    if device.type == "cuda":
        execution = execution.model_copy(update={"device": str(device)})
    store, workers = Store(task.store), Workers.current()
    ray.train.report({"step": task.stage.first})
    kept = TrainCheckpoints(task.stage.key, execution.checkpoint_every, workers)
    with Notice() as notice, watching(task.stage, execution, store, task.ran) as watchdog:
        report = watchdog.waiting(ray.train.report)
        progress = Progress(on_point=lambda point: report(metrics(point)), on_life=watchdog.beat)
        checkpoints = NoticedCheckpoints(
            kept, lambda: _any_has(notice, workers, device), every=_STEPS_BETWEEN_QUESTIONS
        )
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


def _any_has(notice: Notice, workers: Workers, device: torch.device) -> bool:
    return bool(workers.total(torch.tensor(int(notice.given), device=device)))


def _is_final(error: Exception) -> bool:
    return isinstance(error, UserError)


class TrainCheckpoints:
    """Keeps the latest state of a training in Ray Train's checkpoints.

    A damaged state is passed over, and the training starts anew.

    Args:
        key: of the training.
        every: steps between checkpoints.
        workers: of the training; the first writes, and all must call `load` and `save`.
    """

    def __init__(self, key: str, every: int, workers: Workers):
        self._key, self._every, self._workers = key, every, workers

    def load(self, device: torch.device) -> State | None:
        state = self._load(device)
        # Also where only one worker cannot read it: all must begin at the same step.
        lacking = self._workers.total(torch.tensor(int(state is None), device=device))
        return None if lacking else state

    def _load(self, device: torch.device) -> State | None:
        kept = ray.train.get_checkpoint()
        if kept is None:
            return None
        try:
            with kept.as_directory() as folder:
                content = (Path(folder) / STATE).read_bytes()
            return from_bytes(content, self._key, f"{kept.path}/{STATE}", device)
        except (CheckpointError, FileNotFoundError) as error:
            logger.warning("%s: the training starts anew", error)
            return None

    def due(self, step: int) -> bool:
        return step % self._every == 0

    def save(self, state: State) -> None:
        with tempfile.TemporaryDirectory() as folder:
            kept = None
            if self._workers.is_first:
                try:
                    (Path(folder) / STATE).write_bytes(to_bytes(state, self._key))
                    kept = ray.train.Checkpoint.from_directory(folder)
                except OSError as error:
                    logger.warning("no checkpoint after step %s, the training goes on: %s", state["step"], error)
            ray.train.report({"step": state["step"]}, checkpoint=kept)
