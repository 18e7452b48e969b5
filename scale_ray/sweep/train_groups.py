"""Ray Train's trainer with fewer processes a trial: no manager of datasets, which trials do not use, and one cleaner
of placement groups for the whole study."""

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, RayTrainCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup

_LEFT_OUT = (DatasetsCallback, PlacementGroupCleanerCallback)


class Trainer(DataParallelTrainer):
    """Ray Train's trainer of any framework.

    Args:
        groups: a `group_cleaner.GroupCleaner`.
        options: of DataParallelTrainer.
    """

    def __init__(self, *arguments: Any, groups: ActorHandle, **options: Any):
        super().__init__(*arguments, **options)
        self._groups = groups

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        usual = super()._create_default_callbacks()
        return [*(each for each in usual if not isinstance(each, _LEFT_OUT)), _GroupWatched(self._groups)]


class _GroupWatched(ControllerCallback, WorkerGroupCallback):
    """Tells the study's cleaner which placement group a controller has."""

    def __init__(self, groups: ActorHandle):
        self._groups = groups

    def after_controller_start(self, _: TrainRunContext) -> None:
        # Ray Train has no callback between the making of a group and the end of its wait for resources.
        TrainController.worker_group_cls = _WorkerGroup

    def watch(self, group: PlacementGroup) -> None:
        ray.get(self._groups.watch.remote(_own_id(), group))

    async def before_controller_shutdown(self) -> None:
        self._groups.forget.remote(_own_id())

    def before_controller_abort(self) -> None:
        self._groups.forget.remote(_own_id())


class _WorkerGroup(WorkerGroup):
    """Ray Train's workers; their placement group is watched from the start, while it waits for resources too."""

    def _create_placement_group(self, *arguments: Any) -> PlacementGroupHandle:
        handle = super()._create_placement_group(*arguments)
        for callback in self._callbacks:
            if isinstance(callback, _GroupWatched):
                callback.watch(handle.placement_group)
        return handle


def _own_id() -> str:
    actor: str = ray.get_runtime_context().get_actor_id()
    return actor
