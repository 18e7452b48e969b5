"""The stages of a search: cells that its settings ask for one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from scale_ray.stage import Stage
from scale_ray.sweep.cluster import Slots
from scale_ray.sweep.queue import StageQueue
from scale_ray.training.stages import alone, branch
from scale_ray.tuning.search import Search
from scale_ray.tuning.settings import SettingQueue
from scale_ray.tuning.space import warm_ups_meet


class SearchStages:
    """A `WorkSource` that hands out the stages of the cells that a search wants next.

    It connects the settings, which know cells, with the queue, which knows stages.

    Args:
        search: what is searched.
        settings: say which cell is next.
        queue: says which of its stages may run.
    """

    def __init__(self, search: Search, settings: SettingQueue, queue: StageQueue):
        self.queue, self._settings, self._parallel = queue, settings, search.parallel
        self._share = warm_ups_meet(search.space, search.base)
        self.reads: Sequence[Stage] = [alone(search.cell({}, repeat)) for repeat in search.repeats]

    @property
    def over(self) -> bool:
        return self._settings.over and self.queue.over

    def next(self) -> Stage | None:
        while True:
            stage = self.queue.next()
            self._pass_on()
            if stage is not None or self.queue.ready:  # a ready stage that was not handed out is another driver's
                return stage
            cell = self._settings.next()
            if cell is None:
                return None
            stages = branch(cell) if self._share else [alone(cell)]
            self.queue.add(stages, keep=[each.key for each in stages[:-1]])

    def assignment(self, stage: Stage) -> dict[str, Any]:
        """Early stopping reads the last step, and of first repeats, whose curves decide, the number of the setting."""
        setting, repeat = self._settings.position(stage.waiting[0].id)
        assignment = {"stage": stage.key, "last": stage.last}
        return assignment | {"setting": setting} if stage.ends and repeat == 0 else assignment

    def ended(self, stage: Stage, result: Mapping[str, Any] | None) -> None:
        self._pass_on()

    def room(self, slots: Slots) -> int:
        """One stage more than fit, so that an actor that has ended a stage finds the next one waiting.

        Not more, because every result may change what comes next. A cluster that grows on demand is asked for as many
        as `parallel` says. At least one, because Tune releases the resources of a stopped trial only when it starts
        another.
        """
        fitting = max(1, self.queue.started + slots.free() + 1)
        if self._parallel is None:
            return fitting
        return self._parallel if slots.can_grow else min(fitting, self._parallel)

    # What early stopping reports. The key of a cell's last stage is the cell's id.

    def add_point(self, stage: str, step: int, value: float) -> None:
        """A first repeat has reported a score."""
        self._settings.add_point(stage, step, value)

    def stop(self, stage: str, step: int) -> None:
        """A first repeat is ended early."""
        self._settings.stop(stage, step)
        self.queue.stop(stage)

    def _pass_on(self) -> None:
        """Tell the settings which cells have ended, here or with another driver."""
        for cell in self._settings.out:
            if cell in self.queue.done or cell in self.queue.failed_cells:
                self._settings.ended(cell)
