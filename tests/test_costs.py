"""What training costs, judged by finished records."""

from typing import Any

import pytest

from scale_ray.config import TrialConfig
from scale_ray.costs import Measured, cost_key, estimate_seconds
from scale_ray.identity import identity
from scale_ray.records import Provenance, Record, Result

BASE = TrialConfig().replace({"model.backbone": "lenet", "optim.steps": 100, "optim.warmup_steps": 10})
LENET = "lenet 224 px x 32"


def record(seconds: float, steps: int, **changes: Any) -> Record:
    """A finished record of `steps` steps in `seconds`."""
    config = BASE.replace({"optim.steps": steps, **changes})
    result = Result(
        target_accuracy=50.0, teacher_accuracy=None, source_val_accuracy=50.0, steps=steps, curve=[], skipped={}
    )
    origin = Provenance(
        started="2026-03-01T00:00:00+00:00",
        wall_seconds=seconds,
        host="laptop",
        device="cpu",
        threads=1,
        git_commit=None,
        git_dirty=None,
        versions={},
    )
    return Record(id=identity(config, {}), status="done", config=config, inputs={}, result=result, provenance=origin)


def test_seconds_per_step_is_the_mean_over_all_steps() -> None:
    failed = record(1000, 10).model_copy(update={"status": "failed", "result": None})
    records = [
        record(10, 100),
        record(80, 200, seed=1),
        record(3, 30, **{"losses.terms": "ce", "method": "source_only"}),
        failed,
    ]
    unmoved = record(5, 20, **{"losses.terms": "ce", "method": "clip_zero_shot"})
    assert unmoved.result is not None
    no_step = unmoved.result.model_copy(update={"steps": 0})
    records.append(unmoved.model_copy(update={"result": no_step}))  # what took no step has no cost of one
    # (10 + 80) / (100 + 200), not the mean of 0.1 and 0.4.
    assert Measured(records).seconds_per_step() == {("ce+ssl+dist+reg", LENET): 0.3, ("ce", LENET): 0.1}
    assert Measured().seconds_per_step() == {}


def test_estimate_of_known_and_unknown_combinations() -> None:
    measured = {("ce", LENET): 0.1, ("ce+ssl", LENET): 0.25, ("ce", "resnet18 224 px x 32"): 9.0}
    work = [
        (cost_key(BASE.replace({"losses.terms": "ce"})), 100),  # x 0.1
        (cost_key(BASE.replace({"losses.terms": "ce+ssl"})), 200),  # x 0.25
        (cost_key(BASE.replace({"losses.terms": "ce+dist"})), 100),  # never measured: x the slowest of lenet's
    ]
    assert estimate_seconds(work, measured) == pytest.approx(10 + 50 + 25)
    assert estimate_seconds([], {}) == 0
    elsewhere = cost_key(BASE.replace({"model.backbone": "resnet50"}))
    assert estimate_seconds([(elsewhere, 0), *work[:1]], measured) == 10
    assert estimate_seconds([(elsewhere, 1)], measured) is None


def test_cost_key_tells_combination_backbone_and_sizes_apart() -> None:
    assert cost_key(BASE) == ("ce+ssl+dist+reg", LENET)
    assert cost_key(BASE.replace({"optim.batch_size": 64})) != cost_key(BASE)
    assert cost_key(BASE.replace({"seed": 9, "losses.threshold": 0.5})) == cost_key(BASE)
