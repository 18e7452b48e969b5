"""What a person is told while a study runs."""

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.costs import cost_key, duration
from scale_ray.stage import Stage
from scale_ray.sweep.progress import StudyProgress
from scale_ray.training.stages import alone

INPUTS = {"source": "a", "target": "b"}
CONFIG = TrialConfig().replace({"optim.steps": 100, "optim.warmup_steps": 10, "evaluate_every": 20})


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (91, "2 min"), (5340, "89 min"), (5400, "1 h 30 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def progress(*configs: TrialConfig) -> tuple[StudyProgress, list[Stage], io.StringIO]:
    out = io.StringIO()
    stages = [alone(Cell(id=str(config.seed), config=config, inputs=INPUTS)) for config in configs]
    return StudyProgress(stages, 1, Console(file=out, width=200)), stages, out


def result(step: int) -> dict[str, float]:
    return {"step": step, "target_accuracy": 50.0, "source_val_accuracy": 60.0}


def test_lines_count_done_running_and_failed() -> None:
    shown, (first, second), out = progress(CONFIG, CONFIG.replace({"seed": 1}))
    for stage in (first, second):
        shown.begun(stage)
        shown.reported(stage, {"step": 0})
    shown.reported(first, result(20))
    shown.failed(second, again=True)
    shown.failed(second, again=False)
    shown.reported(first, result(100))
    shown.ended(first)
    lines = out.getvalue().splitlines()
    assert "seed 0: step 20 of 100, target 50.0 %, source_val 60.0 %" in lines[0]
    assert "seed 1: its process was lost, it will go on from its checkpoint" in lines[1]
    assert "seed 1: failed [1 of 3 done, 1 running, 1 failed" in lines[2]
    assert "seed 0: done, target 50.0 %, source_val 60.0 % [2 of 3 done, 0 running, 1 failed]" in lines[3]


def test_a_stage_without_a_step_shows_what_it_measured() -> None:
    shown, (stage,), out = progress(CONFIG.replace({"method": "clip_zero_shot", "losses.terms": "ce"}))
    shown.begun(stage)
    shown.reported(stage, {"step": 0})
    shown.reported(stage, result(0))
    shown.ended(stage)
    (line,) = out.getvalue().splitlines()
    assert "clip_zero_shot resnet50 seed 0: done, target 50.0 %, source_val 60.0 % [2 of 2 done" in line


def test_a_shared_stage_counts_every_cell_that_ends_or_waits() -> None:
    shown, (stage,), out = progress(CONFIG)
    cells = tuple(Cell(id=f"{number}", config=CONFIG, inputs=INPUTS) for number in range(3))
    trunk = replace(stage, last=11, ends=(), waiting=cells, warm_up="ce+ssl")
    shown.ended(replace(stage, ends=cells, waiting=cells))
    shown.failed(trunk, again=False)
    lines = out.getvalue().splitlines()
    assert "[4 of 2 done" in lines[0]
    assert "ce+ssl resnet50 seed 0, warm-up of 3 cells: failed [4 of 2 done, 0 running, 3 failed" in lines[1]


class Clock:
    """Stands in for `time.monotonic`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_time_left_follows_from_the_first_measured_steps_and_counts_down(clock: Clock) -> None:
    shown, (first, second), out = progress(CONFIG, CONFIG.replace({"seed": 1}))
    shown.begun(first)
    shown.reported(first, {"step": 0})
    assert shown._seconds_left() is None
    clock.now += 4
    shown.reported(first, {"at": 2, "seconds_a_step": 3.0})
    assert shown._seconds_left() == pytest.approx(98 * 3 + 100 * 3)  # the other trial is expected to cost the same
    clock.now += 30
    assert shown._seconds_left() == pytest.approx(98 * 3 + 100 * 3 - 30)
    shown.tick()
    (line,) = out.getvalue().splitlines()
    assert line.startswith("1 of 3 done, 1 running, 0 failed, about 9 min left; ")
    assert line.endswith("seed 0: step 2 of 100, no accuracy yet, about 4 min left")
    shown.begun(second)
    shown.reported(second, {"at": 2, "seconds_a_step": 3.0})
    assert shown._seconds_left() == pytest.approx(98 * 3)  # two at a time: the longer one
    shown.ended(first)
    assert shown._counts().endswith("about 5 min left")
    shown.ended(second)
    assert shown._counts() == "3 of 3 done, 0 running, 0 failed"


def test_between_two_trainings_the_time_left_stays(clock: Clock) -> None:
    shown, (first, _), _ = progress(CONFIG, CONFIG.replace({"seed": 1}))
    shown.begun(first)
    shown.reported(first, {"at": 2, "seconds_a_step": 3.0})
    shown.ended(first)
    assert shown._seconds_left() == pytest.approx(100 * 3)


def test_another_backbone_is_expected_to_cost_what_records_say_or_is_named_as_unknown(clock: Clock) -> None:
    wide = CONFIG.replace({"model.backbone": "resnet18"})
    shown, (first, other), _ = progress(CONFIG, wide)
    shown.begun(first)
    shown.reported(first, {"at": 50, "seconds_a_step": 2.0})
    assert shown._counts().endswith("more than 2 min left")
    known = StudyProgress([first, other], 0, Console(file=io.StringIO()), costs={cost_key(wide): 10.0})
    known.begun(first)
    known.reported(first, {"at": 50, "seconds_a_step": 2.0})
    assert known._seconds_left() == pytest.approx(50 * 2 + 100 * 10)


def test_without_a_terminal_lines_come_early_and_then_now_and_then(clock: Clock) -> None:
    config = CONFIG.replace({"optim.steps": 100_000, "evaluate_every": 1})
    shown, (stage,), out = progress(config)
    shown.begun(stage)
    for step in range(1, 2001):  # 2000 seconds
        clock.now += 1
        shown.reported(stage, {"at": step, "seconds_a_step": 1.0})
        shown.reported(stage, result(step))
        shown.tick()
    lines = out.getvalue().splitlines()
    assert "step 1 of 100,000" in lines[0]
    assert 30 < len(lines) < 60
    lefts = [line for line in lines if line.startswith("1 of 2 done")]
    assert "about 27 h 47 min left" in lefts[0]
    assert "about 27 h 14 min left" in lefts[-1]
