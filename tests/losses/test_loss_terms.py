"""Conformity tests that every entry of LOSSES must pass; a new entry is tested without further code."""

import doctest
import importlib
from dataclasses import fields, replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from scale_ray.config import LossesConfig
from scale_ray.losses import (
    LOSSES,
    LossTerm,
    StepTensors,
    consistency,
    cross_entropy,
    distribution_contrast,
    prototype_contrast,
    prototype_uniformity,
    self_training,
)
from scale_ray.losses.term import given

K, A, BATCH = 5, 7, 6
STUDENT = {"source_logits", "source_features", "target_logits", "target_features", "weak_target_logits"}

# What each need makes available; two names: only where both needs are there.
PROVIDED_BY = {
    "source_features": {"features"},
    "target_features": {"target", "features"},
    "target_logits": {"target"},
    "weak_target_logits": {"weak_target"},
    "pseudo_labels": {"pseudo_labels"},
    "confidence": {"pseudo_labels"},
    "teacher_probabilities": {"pseudo_labels"},
    "mean": {"statistics"},
    "covariance": {"statistics"},
    "seen": {"statistics"},
    "bank": {"statistics"},
    "filled": {"statistics"},
}

CONFIGS = {
    "default": LossesConfig(),
    "full": LossesConfig(covariance="full"),
    "proto": LossesConfig(contrast="proto"),
    "bank": LossesConfig(contrast="bank"),
    "mse": LossesConfig(consistency="mse"),
    "image mean": LossesConfig(reg_mean="image"),
}

every_term = pytest.mark.parametrize("term", LOSSES.values(), ids=LOSSES.keys())
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def step_tensors(config: LossesConfig, *, locations: int = 2, dtype: torch.dtype = torch.float64) -> StepTensors:
    """A random step in which half of the target is confident and one class has no statistics."""
    numbers = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=numbers, dtype=dtype)

    rows = BATCH * locations
    directions = normal(K, 3, A) / 4
    covariance = directions.transpose(1, 2) @ directions
    probabilities = normal(rows, K).softmax(dim=1)
    return StepTensors(
        source_logits=normal(rows, K),
        source_labels=torch.randint(K, (rows,), generator=numbers),
        locations=locations,
        source_features=torch.nn.functional.normalize(normal(rows, A), dim=1),
        target_logits=normal(rows, K),
        target_features=torch.nn.functional.normalize(normal(rows, A), dim=1),
        pseudo_labels=probabilities.argmax(dim=1),
        confidence=torch.linspace(0.62, 1.0, rows, dtype=dtype),
        teacher_probabilities=probabilities,
        mean=normal(K, A) / 3,
        covariance=covariance if config.covariance == "full" else covariance.diagonal(dim1=1, dim2=2),
        seen=torch.tensor([True, True, True, False, True]),
        bank=torch.nn.functional.normalize(normal(K, 4, A), dim=2),
        filled=torch.arange(4) < torch.tensor([4, 2, 1, 0, 3])[:, None],
        weak_target_logits=normal(rows, K),
    )


def only(step: StepTensors, needs: frozenset[str]) -> StepTensors:
    """The step with every field None that `needs` do not ask for."""
    return replace(step, **{name: None for name, asked in PROVIDED_BY.items() if not asked <= needs})


def floating(step: StepTensors) -> dict[str, Tensor]:
    values = {field.name: getattr(step, field.name) for field in fields(step)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor) and value.is_floating_point()}


def with_gradients(step: StepTensors) -> StepTensors:
    return replace(step, **{name: value.clone().requires_grad_() for name, value in floating(step).items()})


@every_config
@every_term
def test_a_term_computes_from_what_its_needs_name(term: LossTerm, config: LossesConfig) -> None:
    value = term.compute(only(step_tensors(config), term.needs), config)
    assert value.shape == ()
    assert value.isfinite()
    assert value > 0


@every_config
@every_term
def test_a_term_names_no_need_that_it_does_not_have(term: LossTerm, config: LossesConfig) -> None:
    for need in term.needs:
        with pytest.raises(AssertionError, match="needs"):
            term.compute(only(step_tensors(config), term.needs - {need}), config)


class Recorder:
    """Stands for a LossesConfig and records the names of the fields that are read."""

    def __init__(self, config: LossesConfig):
        self._config = config
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._config, name)


@every_term
def test_a_term_reads_exactly_the_settings_that_it_lists(term: LossTerm) -> None:
    """None beyond `reads`, in any config; and each of them in some config."""
    assert term.reads <= LossesConfig.model_fields.keys()
    read_in_any: set[str] = set()
    for config in CONFIGS.values():
        recorder = Recorder(config)
        term.compute(only(step_tensors(config), term.needs), cast(LossesConfig, recorder))
        assert recorder.read <= term.reads
        read_in_any |= recorder.read
    assert read_in_any == term.reads


@every_config
@every_term
def test_gradient_reaches_the_student_alone(term: LossTerm, config: LossesConfig) -> None:
    step = with_gradients(only(step_tensors(config), term.needs))
    term.compute(step, config).backward()
    reached = {name for name, value in floating(step).items() if value.grad is not None}
    assert reached
    assert reached <= STUDENT
    for name in reached:
        gradient = getattr(step, name).grad
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@every_config
@every_term
def test_autocast_does_not_change_the_value(term: LossTerm, config: LossesConfig) -> None:
    step = only(step_tensors(config, dtype=torch.float32), term.needs)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = term.compute(step, config)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, term.compute(step, config))


@every_term
def test_half_precision_inputs_are_widened(term: LossTerm) -> None:
    """What autocast hands over is bfloat16: the term computes as if it had been given the same numbers in float32."""
    config = LossesConfig()
    step = only(step_tensors(config, dtype=torch.float32), term.needs)
    narrow = replace(step, **{name: value.bfloat16() for name, value in floating(step).items()})
    widened = replace(narrow, **{name: value.float() for name, value in floating(narrow).items()})
    assert torch.equal(term.compute(narrow, config), term.compute(widened, config))


@every_config
@every_term
def test_the_order_of_the_images_does_not_matter(term: LossTerm, config: LossesConfig) -> None:
    step = step_tensors(config, locations=2)
    source = torch.tensor([3, 0, 5, 1, 4, 2])
    target = torch.tensor([1, 2, 0, 5, 3, 4])
    values = {}
    for field in fields(step):
        value = getattr(step, field.name)
        if value is None or field.name in ("mean", "covariance", "seen", "bank", "filled", "locations"):
            continue
        order = source if field.name.startswith("source") else target
        values[field.name] = value.unflatten(0, (BATCH, 2))[order].flatten(0, 1)
    before, after = (term.compute(only(each, term.needs), config) for each in (step, replace(step, **values)))
    torch.testing.assert_close(after, before, rtol=1e-13, atol=0)


@every_config
@every_term
def test_the_names_of_the_classes_do_not_matter(term: LossTerm, config: LossesConfig) -> None:
    step = step_tensors(config)
    order = torch.tensor([2, 4, 0, 1, 3])  # new class i is old class order[i]
    renamed = replace(
        step,
        source_logits=step.source_logits[:, order],
        source_labels=order.argsort()[step.source_labels],
        target_logits=given(step.target_logits)[:, order],
        weak_target_logits=given(step.weak_target_logits)[:, order],
        pseudo_labels=order.argsort()[given(step.pseudo_labels)],
        teacher_probabilities=given(step.teacher_probabilities)[:, order],
        mean=given(step.mean)[order],
        covariance=given(step.covariance)[order],
        seen=given(step.seen)[order],
        bank=given(step.bank)[order],
        filled=given(step.filled)[order],
    )
    torch.testing.assert_close(term.compute(renamed, config), term.compute(step, config), rtol=1e-13, atol=0)


@every_config
@every_term
def test_an_unseen_class_is_without_effect(term: LossTerm, config: LossesConfig) -> None:
    step = step_tensors(config)
    unseen = ~given(step.seen)
    mean, covariance = given(step.mean).clone(), given(step.covariance).clone()
    mean[unseen] = 7
    covariance[unseen] = 7
    bank = torch.where(given(step.filled)[:, :, None], given(step.bank), 7)
    other = replace(step, mean=mean, covariance=covariance, bank=bank)
    assert torch.equal(term.compute(other, config), term.compute(step, config))


@every_config
@every_term
def test_an_unsure_teacher_teaches_nothing(term: LossTerm, config: LossesConfig) -> None:
    """Where no image passes the threshold, what the teacher says on the target is without effect."""
    step = step_tensors(config)
    unsure = replace(step, confidence=torch.full_like(given(step.confidence), config.threshold))
    other = replace(
        unsure,
        pseudo_labels=(given(step.pseudo_labels) + 1) % K,
        teacher_probabilities=given(step.teacher_probabilities).flip(1),
    )
    assert torch.equal(term.compute(unsure, config), term.compute(other, config))


def test_ce_and_ssl_are_their_functions_of_the_right_tensors() -> None:
    config = LossesConfig(threshold=0.7)
    step = step_tensors(config)
    logits, confidence = given(step.target_logits), given(step.confidence)
    assert torch.equal(LOSSES["ce"].compute(step, config), cross_entropy(step.source_logits, step.source_labels))
    assert torch.equal(
        LOSSES["ssl"].compute(step, config), self_training(logits, given(step.pseudo_labels), confidence, 0.7)
    )
    assert torch.equal(
        LOSSES["ssl"].compute(step, config.model_copy(update={"consistency": "mse"})),
        consistency(logits, given(step.teacher_probabilities), confidence, 0.7),
    )


@pytest.mark.parametrize("name", ["default", "full", "proto"])
def test_dist_is_the_mean_over_source_and_confident_target_queries(name: str) -> None:
    config = CONFIGS[name].model_copy(update={"temperature": 0.3, "threshold": 0.7})
    step = step_tensors(config)
    kept = given(step.confidence) > 0.7
    features = torch.cat([given(step.source_features), given(step.target_features)[kept]])
    labels = torch.cat([step.source_labels, given(step.pseudo_labels)[kept]])
    if name == "proto":
        expected = prototype_contrast(features, labels, given(step.mean), 0.3, step.seen)
    else:
        expected = distribution_contrast(features, labels, given(step.mean), given(step.covariance), 0.3, step.seen)
    torch.testing.assert_close(LOSSES["dist"].compute(step, config), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["default", "image mean"])
def test_reg_is_the_average_of_the_domains(name: str) -> None:
    """Of the mean over all rows, or of each image's mean over its two locations: rows 2i and 2i + 1."""
    config = CONFIGS[name].model_copy(update={"temperature": 0.3})
    step = step_tensors(config, locations=2)
    values = []
    for features in (given(step.source_features), given(step.target_features)):
        query = (features[0::2] + features[1::2]) / 2 if name == "image mean" else features.mean(dim=0)
        values.append(prototype_uniformity(query, given(step.mean), 0.3, step.seen))
    torch.testing.assert_close(LOSSES["reg"].compute(step, config), sum(values) / 2, rtol=1e-13, atol=0)


@pytest.mark.parametrize("config", [CONFIGS["default"], CONFIGS["mse"]], ids=["cross_entropy", "mse"])
def test_ssl_is_zero_where_nothing_is_confident(config: LossesConfig) -> None:
    step = step_tensors(config)
    step = with_gradients(replace(step, confidence=torch.full_like(given(step.confidence), config.threshold)))
    value = LOSSES["ssl"].compute(step, config)
    value.backward()
    assert value == 0
    assert torch.count_nonzero(given(given(step.target_logits).grad)) == 0


def test_dist_gives_no_gradient_to_unconfident_target_images() -> None:
    config = LossesConfig()
    step = with_gradients(step_tensors(config))
    LOSSES["dist"].compute(step, config).backward()
    confident = given(step.confidence) > config.threshold
    known = given(step.seen)[given(step.pseudo_labels)]
    reached = given(given(step.target_features).grad).abs().sum(dim=1) > 0
    assert 0 < confident.sum() < len(confident)
    assert torch.equal(reached, confident & known)


@pytest.mark.parametrize(
    "term",
    [term for term in LOSSES.values() if not term.needs or term.needs & {"pseudo_labels", "statistics"}],
    ids=[name for name, term in LOSSES.items() if not term.needs or term.needs & {"pseudo_labels", "statistics"}],
)
def test_tensors_of_another_size_are_refused(term: LossTerm) -> None:
    """One row of labels or confidence, and one dimension of the means, too few."""
    step = step_tensors(LossesConfig())
    short = replace(
        step,
        source_labels=step.source_labels[:-1],
        confidence=given(step.confidence)[:-1],
        pseudo_labels=given(step.pseudo_labels)[:-1],
        mean=given(step.mean)[:, :-1],
    )
    with pytest.raises(ValueError, match=r"shapes do not fit|must be|batch_size"):
        term.compute(only(short, term.needs), LossesConfig())


def test_the_terms_that_see_the_target_wait_for_the_statistics() -> None:
    """docs/method.md, section 2: ce and ssl act from step 0, dist and reg after the warm-up."""
    paper = {"ce": False, "ssl": False, "dist": True, "reg": True}
    assert {name: LOSSES[name].after_warmup for name in paper} == paper


def test_every_term_of_the_default_config_exists() -> None:
    assert LossesConfig().terms.keys() <= LOSSES.keys()


@pytest.mark.parametrize("name", ["dist", "reg", "ssl"])
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"scale_ray.losses.{name}")
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    assert (failed, tried > 0) == (0, True)
