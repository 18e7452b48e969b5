"""Studies: which cells they plan, and in which order."""

from typing import Any

import pytest
from pydantic import ValidationError

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.study import Study, approaches, combinations, describe, pairs

BASE = TrialConfig().replace({"model.backbone": "lenet", "optim.steps": 100, "optim.warmup_steps": 10})


# Cells


def test_the_first_axis_varies_slowest() -> None:
    study = Study("s", BASE, {"seed": [5, 7], "losses.threshold": [0.1, 0.2, 0.3]})
    cells = [(cell.seed, cell.losses.threshold) for cell in study.cells()]
    assert cells == [(5, 0.1), (5, 0.2), (5, 0.3), (7, 0.1), (7, 0.2), (7, 0.3)]


def test_an_axis_of_mappings_sets_several_fields() -> None:
    both = [{"data.source": "Art", "data.target": "Product"}, {"data.source": "Product", "data.target": "Art"}]
    cells = Study("s", BASE, {"pair": both, "seed": [0, 1]}).cells()
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
        ({"losses.temprature": [0.1]}, "axis 'losses.temprature': .+ did you mean 'losses.temperature'"),
        ({"pair": [("Art", "Product")]}, "axis 'pair': 'pair' is not a config field: .+ give dicts of dotted paths"),
        (
            {"pair": [{"data.sorce": "Art"}]},
            "'data.sorce' is not a config field: did you mean 'data.source'",
        ),
        ({"seed": [0], "both": [{"seed": 1}]}, "axes 'seed' and 'both' both set seed: keep one of them"),
        ({"losses.temperature": [0.1, 0]}, "losses.temperature: Input should be greater than 0"),
    ],
)
def test_axes_that_make_no_grid_are_refused(axes: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Study("grid", BASE, axes).cells()


@pytest.mark.parametrize("name", ["", "a b", "../other", "a/b", "a\n", ".", "..", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="write only letters, digits"):
        Study(name, BASE, {})


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"seed": range(10**12)}, "axis 'seed' has 1,000,000,000,000 values: a study has at most 1,000,000 cells"),
        ({"seed": range(10**4), "optim.steps": range(1, 102)}, "10000 seed x 101 optim.steps: a study has at most"),
    ],
)
def test_more_cells_than_can_be_planned_are_refused(axes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Study("grid", BASE, axes)


def test_the_ablation_maps_ce_to_source_only_and_puts_seeds_first() -> None:
    axes = {
        "seed": [3, 4],
        "pair": pairs("Art:Product", "Product>Art"),
        "model.backbone": ["lenet", "resnet18"],
        "losses": combinations("ce", "ce+ssl"),
    }
    cells = Study("a", BASE, axes).cells()
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


def test_a_study_is_plain_data() -> None:
    axes = {"seed": range(2), "losses": combinations("ce", "ce+0.5*ssl"), "views.crop_scale": [(0.5, 1.0), (0.8, 1.0)]}
    study = Study("plain", BASE, axes)
    again = Study.model_validate_json(study.model_dump_json())
    assert again.cells() == study.cells()
    assert len(study.cells()) == 8
    with pytest.raises(ValidationError, match="is not a config field"):
        Study.model_validate_json(study.model_dump_json().replace("views.crop_scale", "losses.temprature"))


def test_a_filter_keeps_cells_in_their_order() -> None:
    axes = {"seed": [0, 1], "model.batch_norm": ["joint", "domain"], "losses.threshold": [0.7, 0.8]}
    study = Study("filtered", BASE, axes)
    kept = study.where(lambda config: config.model.batch_norm == "joint" or config.losses.threshold == 0.7)
    assert kept.cells() == [
        config for config in study.cells() if config.model.batch_norm == "joint" or config.losses.threshold == 0.7
    ]
    assert len(kept.cells()) == 6
    assert kept.with_axes({"seed": [5]}).cells() == [config.replace({"seed": 5}) for config in kept.cells()[:3]]
    as_data = Study.model_validate_json(kept.model_dump_json())
    assert list(as_data.axes) == ["cell"]
    assert as_data.cells() == kept.cells()
    with pytest.raises(ConfigError, match="the filter keeps no cell"):
        study.where(lambda config: False).cells()


def test_other_values_of_an_axis_keep_its_position() -> None:
    study = Study("s", BASE, {"seed": [0, 1], "losses.threshold": [0.7, 0.8]})
    changed = study.with_axes({"seed": [5], "losses.temperature": [0.1, 0.2]})
    assert list(changed.axes) == ["seed", "losses.threshold", "losses.temperature"]
    assert [config.seed for config in changed.cells()] == [5] * 4


def test_approaches_set_method_terms_variant_and_network() -> None:
    found = approaches("scale", "dann", "scale:ce+ssl", "cdan/baseline.entropy_conditioning=true@clip_rn50=openai")
    configs = Study("s", BASE, {"method": found}).cells()
    assert [config.approach for config in configs] == ["ce+ssl+dist+reg", "dann", "ce+ssl", "cdan+E"]
    assert (configs[3].model.backbone, configs[3].model.weights) == ("clip_rn50", "openai")
    assert configs[3].baseline.entropy_conditioning is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale/losses.contrast", "'losses.contrast' sets nothing: write FIELD=VALUE"),
        ("scale/losses.threshold=0.9", "losses.threshold is not a variant of a method: .+ with --set"),
        ("scale:ce+ssl/losses.contrast=bank", "a setting of loss term 'dist', and ce[+]ssl is trained"),
    ],
)
def test_approaches_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        approaches(text)


# What the papers of the methods set


def test_usual_settings_lie_over_the_base_and_under_the_axes() -> None:
    usual = {"dann": {"optim.learning_rate": 0.01, "losses.threshold": 0.5}, "mcc": {"optim.learning_rate": 0.005}}
    axes = {"method": approaches("source_only", "dann", "mcc"), "losses.threshold": [0.6, 0.7]}
    study = Study("s", BASE, axes, usual)
    cells = [(cell.method, cell.optim.learning_rate, cell.losses.threshold) for cell in study.cells()]
    assert cells == [
        ("source_only", 0.003, 0.6),
        ("source_only", 0.003, 0.7),
        ("dann", 0.01, 0.6),
        ("dann", 0.01, 0.7),
        ("mcc", 0.005, 0.6),
        ("mcc", 0.005, 0.7),
    ]
    assert [cell.optim.learning_rate for cell in Study("s", BASE, axes).cells()] == [0.003] * 6


def test_usual_settings_stay_through_filters_axes_and_plain_data() -> None:
    study = Study("s", BASE, {"method": approaches("dann", "mcc")}, {"dann": {"optim.learning_rate": 0.01}})
    assert study.model_dump(mode="json")["usual"] == {"dann": {"optim.learning_rate": 0.01}}
    assert "usual" not in Study("s", BASE, {}).model_dump(mode="json")
    for changed in (
        study.where(lambda config: config.method == "dann"),
        study.with_axes({"seed": [1]}).where(lambda config: config.method == "dann"),
        Study(**study.where(lambda config: config.method == "dann").model_dump(mode="json")),
    ):
        assert [cell.optim.learning_rate for cell in changed.cells()] == [0.01]


def test_an_unknown_field_of_a_methods_usual_settings_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"study 's': usual of 'dann': 'optim.lr' is not a config field: did you mean"
    ):
        Study("s", BASE, {}, {"dann": {"optim.lr": 0.01}})
