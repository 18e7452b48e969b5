"""What Tune is told of a training: the points of its curve, and its pace."""

from pathlib import Path
from typing import Any

import pytest

from scale_ray.cell import Cell
from scale_ray.config import Execution, TrialConfig
from scale_ray.records import CurvePoint, Ran
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.sweep.trainable import metrics, reporting
from scale_ray.training import pace
from scale_ray.training.evaluation import Accuracies
from scale_ray.training.loop import Point
from scale_ray.training.resolve import resolve
from scale_ray.training.stages import alone
from scale_ray.training.trial import run_stage
from scale_ray.training.validators import VALIDATORS
from scale_ray.training.watchdog import Watchdog, watching


def test_means_over_targets() -> None:
    validators = {
        domain: {name: float(place + shift) for place, name in enumerate(VALIDATORS)}
        for domain, shift in (("here", 0), ("there", 3))
    }
    accuracies = Accuracies({"here": 50.0, "there": 60.0}, None, 90.0, {}, validators)
    assert metrics(Point(7, accuracies, {"ce": 1.0}, None, None)) == {
        "step": 7,
        "target_accuracy": 55.0,
        "source_val_accuracy": 90.0,
        "validator_source_val": 1.5,
        "validator_entropy": 2.5,
        "validator_im": 3.5,
        "validator_snd": 4.5,
        "validator_bnm": 5.5,
        "validator_dev": 6.5,
        "validator_classami": 7.5,
        "validator_transfer_score": 8.5,
        "validator_reverse": 9.5,
        "validator_mixval": 10.5,
        "validator_circular": 11.5,
        "validator_coherence": 12.5,
    }


@pytest.mark.parametrize("every", [0.0, None])
def test_a_training_tells_its_pace_and_its_last_point_last(
    every: float | None, tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_FIRST_SECONDS", 0.0)
    config = tiny_config.replace({"optim.steps": 5, "optim.warmup_steps": 2, "evaluate_every": 5})
    stage, store = alone(resolve(config, tiny_root)), Store(tmp_path, create=True)
    execution, told = Execution(root=tiny_root, device="cpu"), list[dict[str, Any]]()
    with watching(stage, execution, store, Ran("ray tune")) as watchdog:
        run_stage(stage, execution, store, reporting(told.append, stage, watchdog, every=every))
    *paces, point = told
    assert [each["at"] for each in paces] == ([2, 3, 4] if every == 0 else [2, 4])
    assert all(each["seconds_a_step"] > 0 and "step" not in each for each in paces)
    assert (point["step"], "at" in point) == (5, False)
    assert point["source_val_accuracy"] >= 0
    assert point["seconds_a_step"] > 0
    told_whole = CurvePoint.model_validate(point["point"])
    assert (told_whole.step, told_whole.source_val_accuracy) == (5, point["source_val_accuracy"])
    assert told_whole.losses.keys() == {"ce", "ssl", "dist", "reg"}


def test_a_point_of_several_cells_is_told_as_a_mean_alone(tiny_config: TrialConfig) -> None:
    """Whose whole point it would be, nobody could say."""
    cell = Cell(id="a", config=tiny_config)
    stage = Stage("a", tiny_config, 0, 5, None, {}, (), (cell, cell.model_copy(update={"id": "b"})))
    told = list[dict[str, Any]]()
    accuracies = Accuracies({"inverted": 50.0}, None, 90.0, {}, {"inverted": {}})
    progress = reporting(told.append, stage, Watchdog(0, lambda sentence: None), every=None)
    progress.on_point(Point(5, accuracies, {}, None, None))
    assert told == [{"step": 5, "target_accuracy": 50.0, "source_val_accuracy": 90.0}]
