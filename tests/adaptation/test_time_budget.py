"""What a time budget allows, and that the same command plans the same candidates."""

import io
from pathlib import Path

import pytest
from here import Here
from rich.console import Console

from scale_ray.adaptation import budget
from scale_ray.adaptation.asked import ask, study_of
from scale_ray.adaptation.budget import Decision, affordable_within, within_budget
from scale_ray.config import ConfigError, Execution, Resources
from scale_ray.store import Store
from scale_ray.sweep.measure import Measured


def test_the_cheapest_candidates_fill_the_budget() -> None:
    costs = {"slow": 75.0, "free": 0.0, "fast": 15.0, "mid": 30.0}
    assert affordable_within(costs, 50) == Decision(
        kept=["free", "fast", "mid"],
        left_out={"slow": "it takes about 75 s, and 5 s of the budget are left"},
    )


class Clock:
    """Stands for measurements, whose results are those of a clock: the first training takes 1 s a step, the next 2."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.factor, self.calls = 1.0, 0
        patch.setattr(budget, "measure", self)

    def __call__(self, stages: dict, *_: object) -> Measured:
        self.calls += 1
        return Measured({cell: self.factor * number for number, cell in enumerate(stages, 1)}, 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def kept(images: Here, out: Path, seconds: float, *, leave: bool = True) -> tuple[list[str], dict[str, str]]:
    """Methods that a budget allows, and what it leaves out."""
    asked = ask(images.source, images.targets, **images.options)
    store = Store(out / "store", create=True)
    execution = Execution(root=asked.catalogue, device="cpu", keep_model=True, keep_predictions=True)
    study, left_out = within_budget(
        study_of(asked),
        seconds,
        out / "budget.json",
        store,
        execution,
        Resources(),
        Console(file=io.StringIO()),
        leave=leave,
    )
    return [value["method"] for value in study.axes["method"]], left_out


def test_the_same_command_plans_the_same_candidates(images: Here, clock: Clock, tmp_path: Path) -> None:
    # 6 steps, 2 targets, 2 slots, a fifth more: 7.2 s the first candidate, 14.4 s the second, 21.6 s the third.
    first = kept(images, tmp_path, 45)
    assert len(first[0]) == 3
    clock.factor = 3
    assert kept(images, tmp_path, 45) == first
    assert clock.calls == 1
    assert len(kept(images, tmp_path, 25)[0]) == 2  # by what was measured before
    assert clock.calls == 1


def test_a_dry_run_leaves_no_notes(images: Here, clock: Clock, tmp_path: Path) -> None:
    kept(images, tmp_path, 45, leave=False)
    assert clock.calls == 1
    assert not (tmp_path / "budget.json").exists()


def test_finished_trainings_cost_nothing(images: Here, result: Path, clock: Clock) -> None:
    methods, left_out = kept(images, result, 0.001, leave=False)
    assert len(methods) == 6
    assert not any("it takes about" in reason for reason in left_out.values())
    assert clock.calls == 0


def test_notes_that_cannot_be_read_are_one_line(images: Here, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "budget.json").write_text("{")
    with pytest.raises(ConfigError, match=r"budget.json: cannot be read \(ValidationError\): remove it"):
        kept(images, tmp_path, 45)
