"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from scale_ray.config import TrialConfig
from scale_ray.study import describe


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class StudyProgress(Callback):
    """Counts cells as Tune starts and ends them, and shows it.

    Args:
        cells: the cells to do, by id.
        done_before: how many cells of the study the store answered already.
        console: where to show it.
    """

    def __init__(self, cells: Mapping[str, TrialConfig], done_before: int, console: Console):
        self._cells = cells
        self._console = console
        self._done, self._failed = done_before, 0
        self._total = done_before + len(cells)
        self._steps_to_do = sum(config.optim.steps for config in cells.values())
        self._steps_ended = 0  # of the cells that ended: what need not be done any more
        self._steps_worked = 0  # of those, what this session did
        self._resumed_at: dict[str, int] = {}
        self._running: dict[str, dict[str, Any]] = {}
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

    # Ray Tune calls these

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._running.setdefault(trial.config["cell"], {"step": 0})

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "step" not in result:  # Tune's closing result of a function trainable carries no metrics of ours
            return
        cell = trial.config["cell"]
        # A cell that goes on from its checkpoint was there at most one point of the curve before its first report.
        self._resumed_at.setdefault(cell, max(0, result["step"] - self._cells[cell].evaluate_every))
        self._running[cell] = result
        if not self._console.is_terminal and result["step"] < self._cells[cell].optim.steps:
            steps = self._cells[cell].optim.steps
            self._line(f"{self._name(cell)}: step {result['step']:,} of {steps:,}, {_accuracy(result)}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.config["cell"], failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.config["cell"], failed=True)

    # What is shown

    def _end(self, cell: str, *, failed: bool) -> None:
        result = self._running.pop(cell, {"step": 0})
        self._steps_ended += self._cells[cell].optim.steps
        self._steps_worked += result["step"] - self._resumed_at.get(cell, 0)
        self._failed += failed
        self._done += not failed
        outcome = "failed" if failed else f"done, {_accuracy(result)}"
        self._line(f"{self._name(cell)}: {outcome} [{self._counts()}]")

    def _name(self, cell: str) -> str:
        return describe(self._cells[cell])

    def _counts(self) -> str:
        counts = f"{self._done} of {self._total} done, {len(self._running)} running, {self._failed} failed"
        left = self._seconds_left()
        return f"{counts}, about {duration(left)} left" if left else counts

    def _seconds_left(self) -> float | None:
        """By the pace of this session's steps; None before the first report."""
        done = sum(result["step"] for result in self._running.values())
        worked = self._steps_worked + done - sum(self._resumed_at.get(cell, 0) for cell in self._running)
        if worked == 0:
            return None
        return (time.monotonic() - self._began) / worked * (self._steps_to_do - self._steps_ended - done)

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _picture(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading in ("running", "step", "accuracy so far"):
            table.add_column(heading)
        for cell, result in self._running.items():
            table.add_row(
                self._name(cell), f"{result['step']:,} / {self._cells[cell].optim.steps:,}", _accuracy(result)
            )
        bar = ProgressBar(total=self._total, completed=self._done + self._failed, width=40)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, self._counts())
        return Group(table, line)


def _accuracy(result: Mapping[str, Any]) -> str:
    if "target_accuracy" not in result:
        return "no accuracy yet"
    return f"target {result['target_accuracy']:.1f} %, source_val {result['source_val_accuracy']:.1f} %"
