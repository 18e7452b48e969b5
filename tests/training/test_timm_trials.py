"""Trials on backbones of timm: trained and frozen, their ids, and learning rates that decay by layer."""

from pathlib import Path

import pytest
import torch
from opened import open_data

from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.models import build_encoder
from scale_ray.training.loop import _optimiser
from scale_ray.training.resolve import check_trial, resolve
from scale_ray.training.setup import build_method
from scale_ray.training.trial import Training, run_trial

TINY = "timm:test_vit.r160_in1k"
ON_TIMM = {"model.backbone": TINY, "data.image_size": 16, "data.resize": 16}


@pytest.fixture
def config(tiny_config: TrialConfig) -> TrialConfig:
    return tiny_config.replace(ON_TIMM)


@pytest.fixture
def execution(tiny_root: Path) -> Execution:
    return Execution(root=tiny_root, device="cpu")


def training(config: TrialConfig, execution: Execution) -> Training:
    source, targets = open_data(config, [config.data.target], execution.root)
    return Training(config, source, targets, torch.device("cpu"), execution)


def test_a_name_without_its_tag_is_the_same_trial_and_the_record_has_the_tag(
    config: TrialConfig, tiny_root: Path
) -> None:
    short = config.replace({"model.backbone": "timm:test_vit"})
    assert check_trial(short) == config
    assert resolve(short, tiny_root) == resolve(config, tiny_root)


def test_a_trial_is_the_same_bit_for_bit_and_learns(config: TrialConfig, execution: Execution) -> None:
    first, again = (run_trial(config, execution, None).result for _ in range(2))
    assert first == again
    assert first is not None
    assert first.curve[-1].losses["ce"] < first.curve[0].losses["ce"]


def test_a_frozen_one_trains_on_features_of_its_weights(
    config: TrialConfig, execution: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))
    torch.save(build_encoder(TINY, "none", 16).state_dict(), tmp_path / "w.pth")
    frozen = {"model.encoder": "frozen", "model.weights": str(tmp_path / "w.pth"), "model.frozen_views": 1}
    result = run_trial(config.replace(frozen), execution, None).result
    assert result is not None
    assert result.curve[-1].losses["ce"] < result.curve[0].losses["ce"]


def test_rates_decay_by_layer_from_the_heads_to_the_image(config: TrialConfig) -> None:
    """The last block and the norm after it learn as the encoder does without a decay."""
    config = config.replace({"optim.layer_decay": 0.5, "optim.learning_rate": 0.1, "optim.encoder_factor": 0.2})
    method = build_method(config, num_classes=3, steps_per_epoch=4)
    names = {id(parameter): name for name, parameter in method.student.named_parameters()}
    groups = _optimiser(method, config.optim).param_groups
    rates = {names[id(parameter)]: group["base_lr"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(names) == len(rates)
    depth = len(method.student.encoder.model.blocks)
    assert rates["encoder.model.norm.weight"] == rates[f"encoder.model.blocks.{depth - 1}.mlp.fc2.bias"] == 0.1 * 0.2
    assert rates[f"encoder.model.blocks.{depth - 2}.mlp.fc2.bias"] == 0.1 * 0.2 / 2
    assert rates["encoder.model.blocks.0.norm1.weight"] == pytest.approx(0.02 * 0.5 ** (depth - 1))
    assert rates["encoder.model.patch_embed.proj.weight"] == pytest.approx(0.02 * 0.5**depth)
    assert rates["encoder.model.pos_embed"] == rates["encoder.model.patch_embed.proj.bias"]
    assert rates["classifier.0.weight"] == 0.1
    assert {group["weight_decay"] for group in groups} == {config.optim.weight_decay}


def test_a_decay_of_one_is_todays_training(config: TrialConfig, execution: Execution, tiny_root: Path) -> None:
    assert resolve(config.replace({"optim.layer_decay": 1}), tiny_root).id == resolve(config, tiny_root).id
    groups = _optimiser(build_method(config, 3, 4), config.optim).param_groups
    assert len(groups) == 2


def test_a_training_with_a_decay_goes_on_as_if_it_had_not_ended(config: TrialConfig, execution: Execution) -> None:
    config = config.replace({"optim.layer_decay": 0.7})
    whole = training(config, execution).run()
    half = training(config, execution).run(last=6)
    rest = training(config, execution).run(start=half.state)
    assert rest.points == whole.points
    assert whole.points != training(config.replace({"optim.layer_decay": 1}), execution).run().points


@pytest.mark.parametrize(
    "changes",
    [
        {"model.backbone": "lenet"},
        {"model.encoder": "frozen", "model.weights": "imagenet", "model.batch_norm": "separate"},
        {"method": "clip_zero_shot", "model.backbone": "clip_tiny", "losses.terms": "ce"},
    ],
)
def test_a_decay_that_nobody_reads_is_refused(config: TrialConfig, changes: dict) -> None:
    with pytest.raises(
        ConfigError, match=r"optim\.layer_decay is 0\.7, which only a trained encoder of timm .*leave it"
    ):
        check_trial(config.replace({"optim.layer_decay": 0.7} | changes))
