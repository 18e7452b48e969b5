"""What a person sees while a study runs: a live table on a terminal and in a notebook, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from scale_ray.stage import Stage
from scale_ray.sweep.notebook import NotebookLive

_MESSAGES = 5  # below the bar of a notebook


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class StudyProgress:
    """Counts cells as their stages begin and end, and shows it.

    Args:
        stages: what is to run.
        done_before: how many cells of the study the store answered before.
        console: where to show it.
        fields: fields to name in the titles of stages, because the cells differ in them.

    Attributes:
        elsewhere: returns the number of stages that other drivers work on.
    """

    def __init__(self, stages: Iterable[Stage], done_before: int, console: Console, fields: Sequence[str] = ()):
        stages = list(stages)
        self._console, self._fields = console, fields
        self._done, self._failed = done_before, 0
        self._total = done_before + sum(len(stage.ends) for stage in stages)
        self._steps_to_do = sum(stage.steps for stage in stages)
        self._steps_ended = 0  # of the stages that have ended: no longer to do
        self._steps_worked = 0  # the part of them that this session has trained
        self._resumed_at: dict[str, int] = {}
        self._running: dict[str, tuple[Stage, dict[str, Any]]] = {}  # with the last metrics
        self.elsewhere: Callable[[], int] = lambda: 0
        self._began = time.monotonic()
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
        self._running.setdefault(stage.key, (stage, {"step": stage.first}))

    def reported(self, stage: Stage, result: Mapping[str, Any]) -> None:
        """The stage has reported metrics."""
        if result.get("step", stage.first) <= stage.first and "source_val_accuracy" not in result:
            return  # it has just begun, or Tune closes it
        # A stage that goes on from its checkpoint was there at most one evaluation before its first report.
        before = max(stage.first, result["step"] - stage.config.evaluate_every)
        self._resumed_at.setdefault(stage.key, before)
        self._running[stage.key] = (stage, self._metrics(stage) | dict(result))
        if not self._shows and "source_val_accuracy" in result and result["step"] < stage.last:
            self.say(f"{self._title(stage)}: step {result['step']:,} of {stage.last:,}, {self._figures(result)}")

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

    def _metrics(self, stage: Stage) -> dict[str, Any]:
        """The last metrics of a running stage."""
        return self._running.get(stage.key, (stage, {"step": stage.first}))[1]

    def _end(self, stage: Stage) -> dict[str, Any]:
        result = self._metrics(stage)
        self._running.pop(stage.key, None)
        self._steps_ended += stage.steps
        self._steps_worked += result["step"] - self._resumed_at.get(stage.key, stage.first)
        return result

    def _counts(self) -> str:
        counts = f"{self._done} of {self._total} done, {len(self._running)} running, {self._failed} failed"
        if others := self.elsewhere():
            counts += f", {others} with another driver"
        left = self._seconds_left()
        return f"{counts}, about {duration(left)} left" if left else counts

    def _seconds_left(self) -> float | None:
        """By the pace of this session's steps; None before the first report."""
        done, worked = 0, self._steps_worked
        for stage, result in self._running.values():
            done += result["step"] - stage.first
            worked += result["step"] - self._resumed_at.get(stage.key, stage.first)
        if worked == 0:
            return None
        return (time.monotonic() - self._began) / worked * (self._steps_to_do - self._steps_ended - done)

    def _picture(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading in ("running", "step", "so far"):
            table.add_column(heading)
        for stage, result in list(self._running.values()):
            table.add_row(self._title(stage), f"{result['step']:,} / {stage.last:,}", self._figures(result))
        completed, total = self._share()
        bar = ProgressBar(total=total, completed=completed, width=40)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, self._counts())
        return Group(*([table] if self._running else []), line, *self._messages)
