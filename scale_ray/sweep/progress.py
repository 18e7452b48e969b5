"""What a person sees while a study runs: a live table on a terminal and in a notebook, plain lines elsewhere."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from scale_ray.costs import CostKey, cost_key, cost_of, duration
from scale_ray.stage import Stage
from scale_ray.store.doing import Doing, Training
from scale_ray.sweep.notebook import NotebookLive

_MESSAGES = 5  # below the bar of a notebook

# Without a terminal: seconds until the first line that says how far everything is, and between two such lines.
_FIRST_LINE, _LINE_SECONDS = 10.0, 60.0

# Points of curves that are printed one by one; then only when such a line is due.
_POINTS = 20

# Running stages that such a line names.
_NAMED = 3


@dataclass
class _Running:
    """A stage that was given to Ray, as it last reported."""

    stage: Stage
    step: int
    metrics: dict[str, Any]
    at: float = 0.0  # when it reported
    seconds_a_step: float | None = None

    @property
    def left(self) -> float | None:
        """Seconds to its end; None before its pace is measured."""
        if self.seconds_a_step is None:
            return None
        return max(0.0, self.seconds_a_step * (self.stage.last - self.step) - (time.monotonic() - self.at))


class StudyProgress:
    """Counts cells as their stages begin and end, and shows it.

    Args:
        stages: what is to run.
        done_before: how many cells of the study the store answered before.
        console: where to show it.
        fields: fields to name in the titles of stages, because the cells differ in them.
        costs: seconds of a step that were measured earlier.

    Attributes:
        elsewhere: returns the number of stages that other drivers work on.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        done_before: int,
        console: Console,
        fields: Sequence[str] = (),
        costs: Mapping[CostKey, float] | None = None,
    ):
        stages = list(stages)
        self._console, self._fields = console, fields
        self._done, self._failed = done_before, 0
        self._total = done_before + sum(len(stage.ends) for stage in stages)
        self._costs = dict(costs or {})
        self._steps_to_do: Counter[CostKey] = Counter()  # of the stages that have not ended
        for stage in stages:
            self._steps_to_do[cost_key(stage.config)] += stage.steps
        self._running: dict[str, _Running] = {}
        self.elsewhere: Callable[[], int] = lambda: 0
        self._most = 0  # trainings at a time whose pace was known
        self._points, self._next_line = 0, time.monotonic() + _FIRST_LINE
        self._messages: deque[str] = deque(maxlen=_MESSAGES)  # in a notebook, where lines would pile up
        self._live: Live | NotebookLive = (
            NotebookLive(self._picture)
            if console.is_jupyter
            else Live(console=console, get_renderable=self._picture, refresh_per_second=2, transient=True)
        )
        self._shows = console.is_terminal or console.is_jupyter

    def __enter__(self) -> "StudyProgress":
        if self._shows:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shows:
            self._live.stop()

    # Events

    def begun(self, stage: Stage) -> None:
        """The stage has been given to Ray."""
        self._running.setdefault(stage.key, _Running(stage, stage.first, {"step": stage.first}))

    def reported(self, stage: Stage, result: Mapping[str, Any]) -> None:
        """The stage has reported metrics: a point of its curve, a checkpoint (`step`), or its pace (`at`)."""
        step = max(result.get("step", stage.first), result.get("at", stage.first))
        is_point = "source_val_accuracy" in result
        if step <= stage.first and not is_point:
            return  # it has just begun, or Tune closes it
        running = self._running.setdefault(stage.key, _Running(stage, stage.first, {"step": stage.first}))
        running.step, running.at, running.metrics = step, time.monotonic(), running.metrics | dict(result)
        if (seconds := result.get("seconds_a_step")) is not None:
            if not self._most:
                self._next_line = 0  # the first measurement: say the time left
            running.seconds_a_step = self._costs[cost_key(stage.config)] = seconds
            measured = sum(each.seconds_a_step is not None for each in self._running.values())
            self._most = max(self._most, measured)
        if not self._shows and is_point and step < stage.last:
            self._points += 1
            if self._points <= _POINTS:
                self.say(f"{self._line(running)} [{self._counts()}]")

    def tick(self) -> None:
        """Called again and again while Ray works: without a terminal, say now and then how far everything is."""
        if self._shows or time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + _LINE_SECONDS
        running = list(self._running.values())
        lines = [self._line(each) for each in running[:_NAMED]]
        if len(running) > _NAMED:
            lines.append(f"and {len(running) - _NAMED} more")
        if not any(each.at for each in running):  # each imports torch
            lines = ["Ray starts the processes of the trials"]
        self.say("; ".join([self._counts(), *lines]))

    def ended(self, stage: Stage) -> None:
        """The stage has left its records or its state."""
        result = self._end(stage)
        self._done += len(stage.ends)
        outcome = f"done, {self._figures(result)}" if stage.ends else "done"
        self._say_in_passing(f"{self._title(stage)}: {outcome} [{self._counts()}]")

    def failed(self, stage: Stage, *, again: bool, reason: str = "") -> None:
        """The stage has failed, and every cell that waits for it with it, unless it is tried again."""
        if again:
            self._running.pop(stage.key, None)
            self.say(f"{self._title(stage)}: {reason or 'its process was lost'}, it will go on from its checkpoint")
            return
        self._end(stage)
        self._failed += len(stage.waiting)
        self.say(f"{self._title(stage)}: failed{f', {reason}' if reason else ''} [{self._counts()}]")

    def stopped(self, stage: Stage) -> None:
        """The stage was ended early, at a point of its curve."""
        result = self._end(stage)
        self._say_in_passing(
            f"{self._title(stage)}: stopped at step {result['step']:,}, {self._figures(result)} [{self._counts()}]"
        )

    def answered(self, cells: int) -> None:
        """Another driver has finished so many of the cells that were to do."""
        self._done += cells

    def say(self, text: str) -> None:
        if self._console.is_jupyter:
            self._messages.append(text)
        else:
            self._console.print(text, highlight=False, soft_wrap=True)

    def _say_in_passing(self, text: str) -> None:
        """Say what a notebook's bar counts without words."""
        if not self._console.is_jupyter:
            self.say(text)

    def doing(self, study: str) -> Doing:
        """What the study of that name trains now."""
        trainings = [self._training(each) for each in self._running.values()]
        return Doing(study=study, seconds_left=self._seconds_left(), trainings=tuple(trainings))

    def _training(self, running: _Running) -> Training:
        stage, metrics = running.stage, running.metrics
        return Training(
            title=self._title(stage),
            cells=tuple(cell.id for cell in stage.ends),
            first=stage.first,
            step=running.step,
            last=stage.last,
            started=running.at > 0,
            seconds_left=running.left,
            target_accuracy=metrics.get("target_accuracy"),
            source_val_accuracy=metrics.get("source_val_accuracy"),
        )

    # Display

    def _title(self, stage: Stage) -> str:
        return stage.title(self._fields)

    def _figures(self, result: Mapping[str, Any]) -> str:
        if "source_val_accuracy" not in result:
            return "no accuracy yet"
        known = f"target {result['target_accuracy']:.1f} %, " if "target_accuracy" in result else ""
        return f"{known}source_val {result['source_val_accuracy']:.1f} %"

    def _share(self) -> tuple[int, int]:
        """(ended, total) for the progress bar."""
        return self._done + self._failed, self._total

    def _end(self, stage: Stage) -> dict[str, Any]:
        self._steps_to_do[cost_key(stage.config)] -= stage.steps
        running = self._running.pop(stage.key, None)
        return {"step": stage.first} if running is None else running.metrics

    def _line(self, running: "_Running") -> str:
        left = "" if running.left is None else f", about {duration(running.left)} left"
        stage = running.stage
        return f"{self._title(stage)}: step {running.step:,} of {stage.last:,}, {self._figures(running.metrics)}{left}"

    def _counts(self) -> str:
        counts = f"{self._done} of {self._total} done, {len(self._running)} running, {self._failed} failed"
        if others := self.elsewhere():
            counts += f", {others} with another driver"
        return counts + self._left()

    def _left(self) -> str:
        """`, about 12 min left`; empty before anything is measured."""
        seconds = self._seconds_left()
        if not seconds:
            return ""
        unknown = any(steps > 0 and cost_of(key, self._costs) is None for key, steps in self._steps_to_do.items())
        return f", {'more than' if unknown else 'about'} {duration(seconds)} left"

    def _seconds_left(self) -> float | None:
        """By the seconds of a step, measured now or earlier, as many at a time as trained; None before one did.

        Steps of which nothing is known, as those of another backbone, are not counted.
        """
        lefts = {key: each.left for key, each in list(self._running.items()) if each.left is not None}
        lanes = self._lanes()
        if not lanes:
            return None
        total = sum(lefts.values()) + sum(
            (steps - self._steps_handed_out(key, lefts)) * (cost_of(key, self._costs) or 0.0)
            for key, steps in self._steps_to_do.items()
        )
        return max(total / lanes, *lefts.values(), 0.0)

    def _lanes(self) -> int:
        """How many train at a time: a slot that has just ended a training is not idle. 0 before one is measured."""
        return min(self._most, max(1, len(self._running)))

    def _steps_handed_out(self, key: CostKey, running: Iterable[str]) -> int:
        """The steps of those of these running stages that have this cost."""
        stages = [self._running[each].stage for each in running if each in self._running]
        return sum(stage.steps for stage in stages if cost_key(stage.config) == key)

    def _picture(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading in ("running", "step", "left", "so far"):
            table.add_column(heading)
        for each in list(self._running.values()):
            left = "" if each.left is None else duration(each.left)
            steps = f"{each.step:,} / {each.stage.last:,}"
            table.add_row(self._title(each.stage), steps, left, self._figures(each.metrics))
        completed, total = self._share()
        bar = ProgressBar(total=total, completed=completed, width=40)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, self._counts())
        return Group(*([table] if self._running else []), line, *self._messages)
