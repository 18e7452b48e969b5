"""What a person sees while a search runs."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from scale_ray.records import ORACLE
from scale_ray.stage import Stage
from scale_ray.sweep.progress import StudyProgress
from scale_ray.tuning.search import Search
from scale_ray.tuning.settings import SettingQueue


def metric_of(validator: str) -> str:
    """The name under which Ray Tune sees a validator's score."""
    return "target_accuracy" if validator == ORACLE else f"validator_{validator}"


class SearchProgress(StudyProgress):
    """Counts settings and shows the validator's score, but no target accuracy, because nobody should choose by it."""

    def __init__(self, settings: SettingQueue, search: Search, console: Console):
        self._settings, self._metric = settings, metric_of(search.validator)
        self._validator = "oracle (target labels)" if search.validator == ORACLE else search.validator
        self._wanted, self._left_at_first = search.settings, settings.left
        self._steps = search.base.optim.steps * len(search.repeats)  # of a setting
        self._began = self._ended_at = time.monotonic()
        self._ended = 0  # settings, when they were last counted
        self._titles: dict[str, str] = {}
        super().__init__([], 0, console)

    def begun(self, stage: Stage) -> None:
        title = self._settings.title(stage.waiting[0].id)
        self._titles[stage.key] = title if stage.ends else f"{title}, warm-up"
        super().begun(stage)

    def _title(self, stage: Stage) -> str:
        return self._titles[stage.key]

    def _figures(self, result: Mapping[str, Any]) -> str:
        return f"{self._validator} {result[self._metric]:.4g}" if self._metric in result else "no score yet"

    def _share(self) -> tuple[int, int]:
        return self._wanted - self._settings.left, self._wanted

    def _counts(self) -> str:
        ended, wanted = self._share()
        best = self._settings.best()
        counts = f"{ended} of {wanted} settings ended, {self._settings.open} open"
        if best is not None:
            counts += f", best {self._validator} {best[1]:.4g} of setting {best[0]}"
        return counts + self._left()

    def _seconds_left(self) -> float | None:
        """By the pace of this session's settings; before one has ended, by that of the running trainings' steps."""
        left, now = self._settings.left, time.monotonic()
        if ended := self._left_at_first - left:
            if ended != self._ended:
                self._ended, self._ended_at = ended, now
            return max(0.0, (self._ended_at - self._began) / ended * left - (now - self._ended_at))
        running = [each for each in list(self._running.values()) if each.left is not None]
        lanes = self._lanes()
        if not lanes:
            return None
        # No stage was known at first, so what has ended is below zero.
        waiting = left * self._steps + sum(self._steps_to_do.values()) - sum(each.stage.steps for each in running)
        return (max(0, waiting) * max(self._costs.values()) + sum(each.left or 0.0 for each in running)) / lanes
