"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from scale_ray.training.stages import Stage


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class StudyProgress(Callback):
    """Counts cells as their stages start and end, and shows it.

    Args:
        stages: what is to run, by key.
        done_before: how many cells of the study the store answered already.
        console: where to show it.
    """

    def __init__(self, stages: Mapping[str, Stage], done_before: int, console: Console):
        self._stages = stages
        self._console = console
        self._done, self._failed = done_before, 0
        self._total = done_before + sum(len(stage.ends) for stage in stages.values())
        self._steps_to_do = sum(stage.steps for stage in stages.values())
        self._steps_ended = 0  # of the stages that ended: what need not be done any more
        self._steps_worked = 0  # of those, what this session did
        self._resumed_at: dict[str, int] = {}
        self._running: dict[str, dict[str, Any]] = {}
        self.elsewhere: Callable[[], int] = lambda: 0  # how many stages other drivers work on
        self._began = time.monotonic()
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=2, transient=True)

    def __enter__(self) -> "StudyProgress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that the store makes needless."""
        return {}

    # What happens

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        stage = self._stages[trial.config["stage"]]
        self._running.setdefault(stage.key, {"step": stage.first})

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        stage = self._stages[trial.config["stage"]]
        if result.get("step", stage.first) <= stage.first and "target_accuracy" not in result:
            return  # it has begun, or Tune closes it: nothing to show
        # One that goes on from its checkpoint was there at most one point of the curve before its first report.
        before = max(stage.first, result["step"] - stage.config.evaluate_every)
        self._resumed_at.setdefault(stage.key, before)
        self._running[stage.key] = self._running.get(stage.key, {}) | result
        if not self._console.is_terminal and "target_accuracy" in result and result["step"] < stage.last:
            self.say(f"{self._title(stage)}: step {result['step']:,} of {stage.last:,}, {self._figures(result)}")

    def ended(self, stage: Stage) -> None:
        """The stage has left its records or its state."""
        result = self._end(stage)
        self._done += len(stage.ends)
        outcome = f"done, {self._figures(result)}" if stage.ends else "done"
        self.say(f"{self._title(stage)}: {outcome} [{self._counts()}]")

    def failed(self, stage: Stage, *, again: bool) -> None:
        """The stage has failed, and with it every cell that waits for it, unless it is tried again."""
        if again:
            self._running.pop(stage.key, None)
            self.say(f"{self._title(stage)}: its process was lost, it will go on from its checkpoint")
            return
        self._end(stage)
        self._failed += len(stage.waiting)
        self.say(f"{self._title(stage)}: failed [{self._counts()}]")

    def answered(self, cells: int) -> None:
        """So many cells that were to do were done by another driver."""
        self._done += cells

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    # What is shown

    def _title(self, stage: Stage) -> str:
        return stage.title

    def _figures(self, result: Mapping[str, Any]) -> str:
        if "target_accuracy" not in result:
            return "no accuracy yet"
        return f"target {result['target_accuracy']:.1f} %, source_val {result['source_val_accuracy']:.1f} %"

    def _share(self) -> tuple[int, int]:
        """What is done, and of how much."""
        return self._done + self._failed, self._total

    def _end(self, stage: Stage) -> dict[str, Any]:
        result = self._running.pop(stage.key, {"step": stage.first})
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
        done = sum(result["step"] - self._stages[key].first for key, result in self._running.items())
        worked = self._steps_worked + sum(
            result["step"] - self._resumed_at.get(key, self._stages[key].first) for key, result in self._running.items()
        )
        if worked == 0:
            return None
        return (time.monotonic() - self._began) / worked * (self._steps_to_do - self._steps_ended - done)

    def _picture(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading in ("running", "step", "so far"):
            table.add_column(heading)
        for key, result in list(self._running.items()):
            stage = self._stages[key]
            table.add_row(self._title(stage), f"{result['step']:,} / {stage.last:,}", self._figures(result))
        completed, total = self._share()
        bar = ProgressBar(total=total, completed=completed, width=40)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, self._counts())
        return Group(table, line)
