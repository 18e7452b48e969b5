"""Configs: what they refuse, and what their identity sees and does not see."""

import json
import math
from typing import Any

import pytest
from field_changes import CHANGES, FROZEN, FROZEN_FIELDS, base_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scale_ray.config import (
    VARIANTS,
    ConfigError,
    Execution,
    LossesConfig,
    TrialConfig,
    check_name,
    field_paths,
)
from scale_ray.identity import identity

# What is refused


def test_a_config_cannot_be_changed() -> None:
    config = TrialConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.optim.steps = 1  # type: ignore[misc]


def test_configs_share_no_loss_terms() -> None:
    changed = TrialConfig()
    changed.losses.terms["ssl"] = 5.0
    assert TrialConfig().losses.terms["ssl"] == 1.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sed": 1}, ["unknown key 'sed' in TrialConfig", "did you mean 'seed'?"]),
        ({"losses": {"temprature": 0.1}}, ["losses: unknown key 'temprature'", "did you mean 'temperature'?"]),
        ({"optim": {"qqqq": 1}}, ["optim: unknown key 'qqqq'", "known keys: steps, warmup_steps"]),
    ],
)
def test_unknown_key_is_refused_with_the_nearest(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        TrialConfig.parse(values)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("losses.temprature", ["unknown field 'losses.temprature'", "did you mean 'losses.temperature'?"]),
        ("temperature", ["unknown field 'temperature'", "did you mean 'losses.temperature'?"]),
        ("losses", ["unknown field 'losses'"]),
        ("zzzzzzzz", ["unknown field 'zzzzzzzz'", "'evaluate_every'"]),
    ],
)
def test_unknown_path_is_refused_with_the_nearest(path: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        TrialConfig().replace({path: 1})
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses.temperature": 0}, "losses.temperature: Input should be greater than 0, got 0"),
        ({"losses.temperature": 10.5}, "losses.temperature: Input should be less than or equal to 10"),
        ({"losses.threshold": 1}, "losses.threshold: Input should be less than 1, got 1"),
        ({"losses.contrast": "mean"}, "losses.contrast: Input should be 'dist', 'proto' or 'bank', got 'mean'"),
        ({"losses.terms": {"ce": 1, "ssl": -1}}, "weight of loss term 'ssl' is -1.0"),
        ({"losses.terms": {"ce": 1, "ssl": math.nan}}, "losses.terms.ssl: Input should be a finite number"),
        ({"losses.terms": "ssl+dist"}, "loss terms ssl\\+dist lack 'ce'"),
        ({"losses.terms": {"ce": 0}}, r"loss terms \(none\) lack 'ce'"),
        ({"losses.terms": "ce+ssl+2*ssl"}, r"'ce\+ssl\+2\*ssl' names a loss term twice"),
        ({"losses.terms": "ce+ssl*0.5"}, r"'ce\+ssl\*0.5' is not a loss combination"),
        ({"losses.terms": "ce+nan*ssl"}, "losses.terms.ssl: Input should be a finite number"),
        ({"losses.terms": "ce+"}, "'ce\\+' is not a loss combination"),
        ({"optim.batch_size": 1}, "optim.batch_size: Input should be greater than or equal to 2"),
        ({"optim.steps": 0}, "optim.steps"),
        ({"optim.steps": 1.5}, "optim.steps"),
        ({"optim.learning_rate": math.nan}, "optim.learning_rate: Input should be a finite number"),
        ({"optim.learning_rate": math.inf}, "optim.learning_rate: Input should be a finite number"),
        ({"optim.learning_rate": "fast"}, "optim.learning_rate: .* got 'fast'"),
        ({"optim.momentum": 0}, "nesterov=True needs momentum > 0"),
        ({"views.crop_scale": (0.8, 0.5)}, "crop_scale=.* must satisfy 0 < low <= high <= 1"),
        ({"views.crop_scale": (0, 1)}, "crop_scale"),
        ({"views.crop_scale": (0.5, 1.1)}, "crop_scale"),
        ({"views.crop_scale": (0.5,)}, "views.crop_scale"),
        ({"data.target": "Art"}, "source and target are both 'Art'"),
        ({"data.resize": 223}, "resize=223 is smaller than image_size=224: raise data.resize"),
        ({"data.holdout": 1}, "data.holdout"),
        ({"seed": -1}, "seed"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"optim.precision": "fp16"}, "optim.precision: Input should be 'float32' or 'bf16', got 'fp16'"),
        ({"parallel.workers": 0}, "parallel.workers"),
        ({"parallel.workers": 3}, "optim.batch_size=32 cannot be split evenly over parallel.workers=3"),
        (
            {"model.bottleneck_dim": 64},
            "model: bottleneck_dim is 64, which only encoder='frozen' reads: leave it at 256",
        ),
        ({"model.frozen_views": 2}, "frozen_views is 2, which only encoder='frozen' reads"),
        (FROZEN | {"model.weights": "none"}, "weights='none' gives features of a random network: name its weights"),
        (FROZEN | {"model.contrast_level": "spatial"}, "keeps pooled features: set contrast_level to 'pooled'"),
        (FROZEN | {"model.batch_norm": "frozen"}, "no BatchNorm.*set batch_norm to 'domain'"),
        (
            {"model.batch_norm": "domain", "parallel.sync_batch_norm": True},
            "batch_norm='domain' keeps statistics that parallel.sync_batch_norm cannot synchronise.*'joint'",
        ),
        ({"parallel.workers": 32}, "one image, too few for BatchNorm.*'frozen'"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TrialConfig().replace(changes)


def test_values_at_the_edge_of_a_range_are_taken() -> None:
    changes = {"losses.threshold": 0, "optim.batch_size": 2, "views.crop_scale": (1, 1), "data.resize": 224}
    config = TrialConfig().replace(changes)
    assert (config.losses.threshold, config.optim.batch_size, config.views.crop_scale) == (0.0, 2, (1.0, 1.0))
    assert not TrialConfig().replace({"optim.nesterov": False, "optim.momentum": 0}).optim.momentum


def test_a_method_is_named_by_its_losses_where_they_tell_it() -> None:
    approaches = {
        method: TrialConfig().replace({"method": method, "losses.terms": "ce"}).approach
        for method in ("scale", "source_only", "dann")
    }
    assert approaches == {"scale": "ce", "source_only": "ce", "dann": "dann"}


@pytest.mark.parametrize(
    ("changes", "variant", "approach"),
    [
        ({}, "scale", "ce+ssl+dist+reg"),
        ({"losses.contrast": "bank"}, "scale bank", "ce+ssl+dist+reg (scale bank)"),
        ({"losses.contrast": "bank", "losses.terms": "ce+ssl"}, "scale", "ce+ssl"),  # nothing reads it
        ({"method": "source_only", "losses.terms": "ce", "losses.contrast": "proto"}, "source_only", "ce"),
        ({"method": "cdan", "losses.terms": "ce", "baseline.entropy_conditioning": True}, "cdan+E", "cdan+E"),
        ({"method": "cdan", "losses.terms": "ce", "baseline.weight": 0.5}, "cdan", "cdan"),
        (
            {"method": "clip_zero_shot", "losses.terms": "ce", "baseline.prompt_ensemble": True},
            "clip_zero_shot ensemble",
            "clip_zero_shot ensemble",
        ),
    ],
)
def test_a_variant_is_named_by_what_sets_it_apart(changes: dict[str, Any], variant: str, approach: str) -> None:
    config = TrialConfig().replace(changes)
    assert (config.variant, config.approach) == (variant, approach)


def test_variants_are_fields_and_their_values_are_values() -> None:
    for path, variant in VARIANTS.items():
        usual = TrialConfig().value(path)
        assert usual not in variant.written
        for value in variant.written:
            assert TrialConfig().replace({path: value}).value(path) == value
        assert variant.term is None or variant.term in LossesConfig().terms


def test_every_problem_is_named_on_its_own_line() -> None:
    with pytest.raises(ConfigError) as error:
        TrialConfig().replace({"losses.temperature": 0, "losses.threshold": 1})
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        "losses.threshold",
        "losses.temperature",
    ]


def test_unknown_name_is_refused_with_the_nearest() -> None:
    check_name("model.backbone", "lenet", ["lenet", "resnet18"])
    with pytest.raises(ConfigError, match=r"unknown model\.backbone 'resnet17': did you mean 'resnet18'\?"):
        check_name("model.backbone", "resnet17", ["lenet", "resnet18"])


# Loss terms


def test_terms_mean_the_same_in_every_spelling() -> None:
    spellings: list[Any] = [
        "ce+ssl+dist",
        "dist + ce + ssl",
        {"ssl": 1, "dist": 1.0, "ce": 1},
        {"reg": 0, "dist": 1, "ce": 1, "ssl": 1},
        {"reg": -0.0, "dist": 1, "ce": 1, "ssl": 1},
    ]
    configs = [TrialConfig().replace({"losses.terms": terms}) for terms in spellings]
    assert {identity(config, {}) for config in configs} == {identity(configs[0], {})}
    assert list(configs[-1].losses.terms) == ["ce", "ssl", "dist"]
    assert configs[-1].combination == "ce+ssl+dist"


WEIGHTS = st.integers(1, 10**6).map(lambda number: number / 1000) | st.sampled_from([1e-9, 3e7, 1e20])


@given(st.dictionaries(st.sampled_from(["ssl", "dist", "reg", "zeta"]), WEIGHTS), WEIGHTS)
def test_a_combination_reads_back(others: dict[str, float], ce: float) -> None:
    config = TrialConfig().replace({"losses.terms": {"ce": ce, **others}})
    for text in (config.combination, config.combination.replace("*", " * ").replace("+", " + ")):
        assert TrialConfig().replace({"losses.terms": text}) == config


def test_combination_shows_weights_and_unknown_terms_last() -> None:
    config = TrialConfig().replace({"losses.terms": {"zeta": 1, "reg": 0.5, "alpha": 2, "ce": 1}})
    assert config.combination == "ce+0.5*reg+2*alpha+zeta"
    assert config.pair == "Art>Clipart"


# One config has one identity


def shuffled(value: Any, draw: Any) -> Any:
    """The same nested values with keys in another order."""
    if not isinstance(value, dict):
        return value
    keys = draw(st.permutations(list(value)))
    return {key: shuffled(value[key], draw) for key in keys}


@given(st.data())
def test_the_identity_does_not_depend_on_key_order(data: st.DataObject) -> None:
    apart = (*FROZEN, *FROZEN_FIELDS, "model.target_statistics")  # which exclude others
    config = TrialConfig().replace({path: CHANGES[path] for path in CHANGES if path not in apart})
    other = TrialConfig.parse(shuffled(config.model_dump(), data.draw))
    assert identity(other, {}) == identity(config, {})
    assert other.hashable() == config.hashable()


@given(st.floats(0, 0.99), st.floats(0.001, 1), st.integers(1, 10))
def test_the_identity_does_not_depend_on_float_formatting(threshold: float, low: float, temperature: int) -> None:
    def written(floats: str, integers: str) -> TrialConfig:
        text = (
            f'{{"losses": {{"threshold": {threshold:{floats}}, "temperature": {temperature:{integers}}}},'
            f' "views": {{"crop_scale": [{low:{floats}}, {1:{integers}}]}}}}'
        )
        return TrialConfig.parse(json.loads(text))

    short, long = written("", ""), written(".17e", ".3f")
    assert short.losses.threshold == threshold
    assert identity(short, {}) == identity(long, {})


@pytest.mark.parametrize("spelling", ["0.1", "1e-1", "0.10", ".1", "0.1000"])
def test_one_number_in_many_spellings_is_one_config(spelling: str) -> None:
    assert TrialConfig().replace({"losses.temperature": spelling}) == TrialConfig()


@pytest.mark.parametrize("path", ["optim.weight_decay", "optim.encoder_factor", "data.gamma", "losses.threshold"])
def test_minus_zero_is_zero(path: str) -> None:
    ids = {identity(TrialConfig().replace({path: zero}), {}) for zero in (0, 0.0, -0.0)}
    assert len(ids) == 1


@pytest.mark.parametrize("path", field_paths())
def test_a_config_reads_back_from_its_json(path: str) -> None:
    config = base_of(path).replace({path: CHANGES[path]})
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


def test_an_untuned_config_reads_as_before_there_was_tuning() -> None:
    config = TrialConfig()
    assert "tuning" not in config.model_dump() | json.loads(config.model_dump_json())
    tuned = config.replace({"tuning": CHANGES["tuning"]})
    assert TrialConfig.model_validate_json(tuned.model_dump_json()) == tuned
    assert str(tuned.tuning) == "24 settings by im on mnist>mnistm (study s)"


def test_a_change_is_known_for_every_field() -> None:
    assert list(CHANGES) == field_paths()


def test_execution_is_no_part_of_a_trial() -> None:
    leaves = {path.rpartition(".")[2] for path in field_paths()}
    assert not leaves & set(Execution.model_fields)
    with pytest.raises(ConfigError, match="unknown field 'threads'"):
        TrialConfig().replace({"threads": 2})
    with pytest.raises(ValidationError, match="frozen"):
        Execution().threads = 2  # type: ignore[misc]
