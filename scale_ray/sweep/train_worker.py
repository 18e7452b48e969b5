"""One worker of a stage under Ray Train: trains as a Tune trial does, on its rows of every batch."""

import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

from scale_ray.errors import UserError
from scale_ray.store import Store
from scale_ray.sweep.notice import Notice, NoticedCheckpoints
from scale_ray.sweep.pickling import unpickle_entries
from scale_ray.sweep.train_driver import Task
from scale_ray.sweep.trainable import reporting, saved
from scale_ray.training.checkpoint import Checkpoints, State, StoreCheckpoints
from scale_ray.training.failures import TrainingDiverged, leaving_failures
from scale_ray.training.trial import run_stage
from scale_ray.training.watchdog import watching
from scale_ray.workers import Workers

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
    of_first = StoreCheckpoints(store, task.stage.key, execution.checkpoint_every, by_clock=workers.size == 1)
    kept = SharedCheckpoints(of_first, workers)
    with Notice(task.stop_flag) as notice, watching(task.stage, execution, store, task.ran) as watchdog:
        report = watchdog.waiting(ray.train.report)
        progress = reporting(report, task.stage, watchdog, every=None)  # workers report together
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


class SharedCheckpoints:
    """The store's checkpoints of a training by several workers, all of which must call `load` and `save`.

    Ray Train has checkpoints of its own, but a full disk would end a training that saves one, and a trial without Ray
    Train could not go on from it.

    Args:
        checkpoints: in the store; the first worker writes.
        workers: of the training.
    """

    def __init__(self, checkpoints: Checkpoints, workers: Workers):
        self._checkpoints, self._workers = checkpoints, workers

    def load(self, device: torch.device) -> State | None:
        while True:
            state = self._checkpoints.load(device)
            step = torch.tensor([-1 if state is None else state["step"]], device=device)
            # A worker of an earlier group that Ray has lost may still have written between two reads.
            if len(self._workers.gather(step).unique()) == 1:
                return state

    def due(self, step: int) -> bool:
        return self._checkpoints.due(step)

    def save(self, state: State) -> None:
        if self._workers.is_first:
            self._checkpoints.save(state)
        ray.train.report(saved(state["step"]))
