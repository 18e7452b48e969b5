"""Studies: which cells they plan, in which order, and what these will cost."""

from typing import Any

import pytest

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.identity import identity
from scale_ray.records import Provenance, Record, Result
from scale_ray.study import Study, ablation, cost_key, describe, estimate_seconds, seconds_per_step

BASE = TrialConfig().replace({"model.backbone": "lenet", "optim.steps": 100, "optim.warmup_steps": 10})


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


# Cells


def test_the_first_axis_varies_slowest() -> None:
    study = Study("s", BASE, {"seed": [5, 7], "losses.threshold": [0.1, 0.2, 0.3]})
    cells = [(cell.seed, cell.losses.threshold) for cell in study.cells()]
    assert cells == [(5, 0.1), (5, 0.2), (5, 0.3), (7, 0.1), (7, 0.2), (7, 0.3)]


def test_an_axis_of_mappings_sets_several_fields() -> None:
    pairs = [{"data.source": "Art", "data.target": "Product"}, {"data.source": "Product", "data.target": "Art"}]
    cells = Study("s", BASE, {"pair": pairs, "seed": [0, 1]}).cells()
    assert [(cell.pair, cell.seed) for cell in cells] == [
        ("Art>Product", 0),
        ("Art>Product", 1),
        ("Product>Art", 0),
        ("Product>Art", 1),
    ]


def test_loss_terms_with_weights_are_values_of_an_axis() -> None:
    cells = Study("s", BASE, {"losses.terms": [{"ce": 1, "ssl": 0.5}, "ce+ssl"]}).cells()
    assert [cell.combination for cell in cells] == ["ce+0.5*ssl", "ce+ssl"]


def test_no_axes_are_one_cell() -> None:
    assert Study("s", BASE, {}).cells() == [BASE]


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"seed": []}, "axis 'seed' has no values"),
        ({"seed": [0, 1, 0]}, r"plans one cell twice \(Art>Clipart ce\+ssl\+dist\+reg lenet seed 0\)"),
        ({"losses.terms": ["ce+ssl", "ssl+ce"]}, r"plans one cell twice \(Art>Clipart ce\+ssl lenet seed 0\)"),
        ({"losses.temprature": [0.1]}, "did you mean 'losses.temperature'"),
        ({"losses.temperature": [0.1, 0]}, "losses.temperature: Input should be greater than 0"),
    ],
)
def test_axes_that_make_no_grid_are_refused(axes: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Study("grid", BASE, axes).cells()


@pytest.mark.parametrize("name", ["", "a b", "../other", "a/b", "a\n"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="write letters, digits"):
        Study(name, BASE, {})


def test_the_ablation_maps_ce_to_source_only_and_puts_seeds_first() -> None:
    study = ablation(
        "a",
        BASE,
        pairs=[("Art", "Product"), ("Product", "Art")],
        combinations=["ce", "ce+ssl"],
        backbones=["lenet", "resnet18"],
        seeds=[3, 4],
    )
    cells = study.cells()
    assert len(cells) == 16
    assert [cell.seed for cell in cells] == [3] * 8 + [4] * 8
    assert {(cell.method, cell.combination) for cell in cells} == {("source_only", "ce"), ("scale", "ce+ssl")}
    assert [describe(cell) for cell in cells[:5]] == [
        "Art>Product ce lenet seed 3",
        "Art>Product ce+ssl lenet seed 3",
        "Art>Product ce resnet18 seed 3",
        "Art>Product ce+ssl resnet18 seed 3",
        "Product>Art ce lenet seed 3",
    ]


# Cost

LENET = "lenet 224 px x 32"


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
    assert seconds_per_step(records) == {("ce+ssl+dist+reg", LENET): 0.3, ("ce", LENET): 0.1}
    assert seconds_per_step([]) == {}


def test_estimate_of_known_and_unknown_combinations() -> None:
    measured = {("ce", LENET): 0.1, ("ce+ssl", LENET): 0.25, ("ce", "resnet18 224 px x 32"): 9.0}
    work = [
        (BASE.replace({"losses.terms": "ce"}), 100),  # x 0.1
        (BASE.replace({"losses.terms": "ce+ssl"}), 200),  # x 0.25
        (BASE.replace({"losses.terms": "ce+dist"}), 100),  # never measured: x the dearest of lenet's
    ]
    assert estimate_seconds(work, measured) == pytest.approx(10 + 50 + 25)
    assert estimate_seconds([], {}) == 0
    assert estimate_seconds([(BASE.replace({"model.backbone": "clip_rn50"}), 0), *work[:1]], measured) == 10
    assert estimate_seconds([(BASE.replace({"model.backbone": "resnet50"}), 1)], measured) is None


def test_cost_key_tells_combination_backbone_and_sizes_apart() -> None:
    assert cost_key(BASE) == ("ce+ssl+dist+reg", LENET)
    assert cost_key(BASE.replace({"optim.batch_size": 64})) != cost_key(BASE)
    assert cost_key(BASE.replace({"seed": 9, "losses.threshold": 0.5})) == cost_key(BASE)
