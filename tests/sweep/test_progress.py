"""What a person is told while a study runs."""

import io
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from scale_ray.config import TrialConfig
from scale_ray.sweep.progress import StudyProgress, duration

CONFIG = TrialConfig().replace({"optim.steps": 100, "optim.warmup_steps": 10, "evaluate_every": 20})


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (91, "2 min"), (5340, "89 min"), (5400, "1 h 30 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def progress(**cells: TrialConfig) -> tuple[StudyProgress, io.StringIO]:
    out = io.StringIO()
    return StudyProgress(cells, 1, Console(file=out, width=200)), out


def result(step: int) -> dict[str, float]:
    return {"step": step, "target_accuracy": 50.0, "source_val_accuracy": 60.0}


def test_lines_count_done_running_and_failed() -> None:
    shown, out = progress(a=CONFIG, b=CONFIG.replace({"seed": 1}))
    first, second = SimpleNamespace(config={"cell": "a"}), SimpleNamespace(config={"cell": "b"})
    for trial in (first, second):
        shown.on_trial_start(0, [], trial)
    shown.on_trial_result(0, [], first, result(20))
    shown.on_trial_error(0, [], second)
    shown.on_trial_result(0, [], first, result(100))
    shown.on_trial_complete(0, [], first)
    lines = out.getvalue().splitlines()
    assert "seed 0: step 20 of 100, target 50.0 %, source_val 60.0 %" in lines[0]
    assert "seed 1: failed [1 of 3 done, 1 running, 1 failed" in lines[1]
    assert "seed 0: done, target 50.0 %, source_val 60.0 % [2 of 3 done, 0 running, 1 failed]" in lines[2]


def test_time_left_counts_only_what_this_session_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, _ = progress(a=CONFIG)
    began = shown._began
    trial = SimpleNamespace(config={"cell": "a"})
    shown.on_trial_start(0, [], trial)
    assert shown._seconds_left() is None
    shown.on_trial_result(0, [], trial, result(80))  # it went on from its checkpoint after step 60 at the earliest
    monkeypatch.setattr(time, "monotonic", lambda: began + 10)
    assert shown._seconds_left() == pytest.approx(10)  # 20 steps took 10 s, 20 are left
