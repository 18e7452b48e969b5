"""Conformity tests that every entry of METHODS must pass. For two workers see tests/training/test_parallel.py."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opened import open_data
from quick import slow_but
from tiny_steps import BATCH, build, source_batch, survey_before, take_step, target_batch
from torch import Tensor, nn

from scale_ray.config import BaselineConfig, ConfigError, Execution, TrialConfig
from scale_ray.data.decoded import Domain
from scale_ray.methods import METHODS, Passes
from scale_ray.methods.clip import ClipMethod
from scale_ray.training.checkpoint import from_bytes, to_bytes
from scale_ray.training.features import open_inputs
from scale_ray.training.resolve import check_trial, resolve
from scale_ray.training.stages import alone
from scale_ray.training.trial import Training

CPU = torch.device("cpu")

# Another valid value of every setting of the baselines.
SETTINGS = {
    "weight": 0.5,
    "transfer_from": "warm_up",
    "reversal_gamma": 5.0,
    "entropy_conditioning": True,
    "mcc_temperature": 2.0,
    "margin": 2.0,
    "sharpness_radius": 0.5,
    "source_share": 0.3,
    "dispersion_decay": 2.0,
    "prompt_ensemble": True,
    "shared_tokens": 8,
    "domain_tokens": 8,
    "class_tokens": True,
    "prompt_threshold": 0.99,
    "content_tokens": 2,
    "entropy_weight": 0.1,
    "alignment_weight": 0.1,
    "mapping_weight": 1.0,
}

ON_CLIP = [name for name, method in METHODS.items() if issubclass(method, ClipMethod)]
ON_IMAGES = [name for name, method in METHODS.items() if method.learns and name not in ON_CLIP]
LEARNING = [name for name, method in METHODS.items() if method.learns]


def of_method(config: TrialConfig, name: str, clip_weights: Path | str = "none") -> TrialConfig:
    """On a CLIP, one of random weights does where no accuracy is looked at."""
    clip = {"model.backbone": "clip_tiny", "model.weights": str(clip_weights)} if name in ON_CLIP else {}
    terms = "ce+ssl+dist+reg" if name == "scale" else "ce"
    own = {"mic": {"views.strong": "masked"}, "aad": {"baseline.weight": 0.1}}
    return config.replace({"method": name, "losses.terms": terms, **clip, **own.get(name, {})})


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def passes_made(config: TrialConfig) -> Passes:
    """Of the encoder, by the images that go through it in the last step."""
    method, step = build(config), config.optim.steps - 1
    survey_before(method, step)
    images = {True: 0, False: 0}  # with gradient, without

    def count(module: nn.Module, given: tuple[Tensor], output: Any) -> None:
        images[output[0].requires_grad] += len(given[0])

    method.student.encoder.register_forward_hook(count)
    if method.teacher is not None:
        method.teacher.module.encoder.register_forward_hook(count)
    take_step(method, step)
    return Passes(student=images[True] // BATCH, teacher=images[False] // BATCH)


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_beats_chance_on_both_domains_and_is_deterministic(
        self, name: str, tiny_config: TrialConfig, tiny_root: Path, clip_weights: Path
    ) -> None:
        steps = 30 if name in ON_CLIP else 100 if name in ("mic", "shot", "aad") else 50
        config = of_method(tiny_config, name, clip_weights).replace({"optim.steps": steps, "evaluate_every": steps})
        source, targets = open_data(config, ["inverted"], tiny_root)
        one, two = (Training(config, source, targets, CPU) for _ in range(2))
        first, second = one.run(), two.run()
        assert first.points == second.points
        students = one.method.student, two.method.student
        assert all(torch.equal(a, b) for a, b in zip(*(part.parameters() for part in students), strict=True))
        accuracies = first.points[-1].accuracies
        assert accuracies.source_val > 60  # chance is 33
        assert accuracies.target["inverted"] > 60

    def test_one_state_dict_is_the_whole_state(self, name: str, tiny_config: TrialConfig) -> None:
        method = build(of_method(tiny_config, name))
        step = tiny_config.optim.steps - 1
        survey_before(method, step)
        take_step(method, step)
        method.after_update()
        other = build(of_method(tiny_config, name).replace({"seed": 7}))
        other.load_state_dict(method.state_dict())
        expected, got = take_step(method, step, seed=2), take_step(other, step, seed=2)
        assert {key: value.item() for key, value in got.losses.items()} == {
            key: value.item() for key, value in expected.losses.items()
        }

    def test_does_not_change_its_inputs(self, name: str, tiny_config: TrialConfig) -> None:
        method = build(of_method(tiny_config, name))
        source, target = source_batch(), target_batch()
        for step in (3, tiny_config.optim.steps - 1):
            survey_before(method, step)
            method(step, source if method.needs_source(step) else None, target if method.needs_target(step) else None)
        for batch, fresh in ((source, source_batch()), (target, target_batch())):
            for field in dataclasses.fields(batch):
                assert torch.equal(getattr(batch, field.name), getattr(fresh, field.name))

    def test_resumed_from_half_ends_with_the_same_bits(
        self, name: str, tiny_config: TrialConfig, tiny_root: Path
    ) -> None:
        config = of_method(tiny_config, name)
        source, targets = open_data(config, ["inverted"], tiny_root)
        whole, first, second = (Training(config, source, targets, CPU) for _ in range(3))
        expected = whole.run()
        half = first.run(last=config.optim.steps // 2)
        found = second.run(start=from_bytes(to_bytes(half.state, "key"), "key", "here", CPU))
        assert found.points == expected.points
        assert same(second.method.state_dict(), whole.method.state_dict())

    def test_target_labels_change_nothing_but_reported_accuracy(
        self, name: str, tiny_config: TrialConfig, tiny_root: Path
    ) -> None:
        config = of_method(tiny_config, name)
        source, targets = open_data(config, ["inverted"], tiny_root)
        true = targets["inverted"]
        false = dataclasses.replace(true, labels=np.random.default_rng(0).permutation(true.labels))

        def trained(target: Domain) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
            training = Training(config, source, {"inverted": target}, CPU)
            reported = ("target_accuracy", "teacher_accuracy", "kept_accuracy")
            points = [point.on("inverted").model_dump(exclude=set(reported)) for point in training.run().points]
            return points, dict(training.method.state_dict())

        (points, state), (same_points, same_state) = trained(true), trained(false)
        assert points == same_points
        assert same(state, same_state)

    def test_all_that_is_trained_moves_and_nothing_else(
        self, name: str, tiny_config: TrialConfig, tiny_root: Path
    ) -> None:
        config = of_method(tiny_config, name)
        source, targets = open_data(config, ["inverted"], tiny_root)
        training = Training(config, source, targets, CPU)
        before = {key: value.clone() for key, value in training.method.named_parameters() if value.requires_grad}
        training.run()
        after = dict(training.method.named_parameters())
        moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
        unused = set() if name == "scale" else {key for key in before if key.startswith("student.projector")}
        assert moved == before.keys() - unused
        assert all(parameter.grad is None for parameter in after.values() if not parameter.requires_grad)

    def test_it_says_whose_it_is_and_where_its_defaults_come_from(self, name: str, tiny_config: TrialConfig) -> None:
        method = METHODS[name]
        assert method.__doc__
        assert name in ("scale", "source_only") or "https://" in method.paper
        assert method.defaults
        # A frozen CLIP is passed forward alone; texts are no passes of it. Without steps there are no passes of one.
        least = 0 if name in ON_CLIP or not method.learns else 1
        assert method.passes(of_method(tiny_config, name)).cost >= least

    def test_a_step_makes_the_passes_that_it_states(self, name: str, tiny_config: TrialConfig) -> None:
        config = of_method(tiny_config, name)
        assert passes_made(config) == METHODS[name].passes(config)

    def test_settings_of_the_baselines_change_it_where_it_reads_them_and_are_refused_elsewhere(
        self, name: str, tiny_config: TrialConfig
    ) -> None:
        assert SETTINGS.keys() == BaselineConfig.model_fields.keys()
        config = of_method(tiny_config, name)

        def total(changed: TrialConfig) -> float:
            method = build(changed)
            if not method.learns:
                return method.student.predict(source_batch().images).sum().item()
            found = 0.0
            # Of the warm-up, which `transfer_from` leaves to ce; on the source, which `source_share` ends; the last.
            for step in (1, 5, changed.optim.steps - 1):
                survey_before(method, step)
                output = take_step(method, step)
                weights = changed.losses.terms | output.weights
                loss = torch.stack([weights[term] * value for term, value in output.losses.items()]).sum()
                loss.backward()
                found += loss.item()
            gradients = [value.grad for value in method.student.parameters() if value.grad is not None]
            return found + sum(gradient.abs().sum().item() for gradient in gradients)

        for setting, value in SETTINGS.items():
            changed = config.replace({f"baseline.{setting}": value})
            if setting in METHODS[name].reads:
                assert total(changed) != total(config)
                check_trial(changed)
            else:
                with pytest.raises(
                    ConfigError, match=rf"baseline.{setting} is {value}, which method '{name}' does not"
                ):
                    check_trial(changed)


@pytest.mark.parametrize("name", slow_but(("scale", "dann", "mcc", "shot"), LEARNING))
def test_trains_in_bf16_with_losses_and_parameters_in_float32(
    name: str, tiny_config: TrialConfig, tiny_root: Path, clip_weights: Path
) -> None:
    # After 50 steps at this rate accuracies still depend on a machine's rounding; after 100 they do not.
    steps = 30 if name in ON_CLIP else 100
    config = of_method(tiny_config, name, clip_weights).replace(
        {"optim.steps": steps, "evaluate_every": steps, "optim.precision": "bf16"}
    )
    # Statistics that mix a domain with its negative make source_val a matter of luck, in float32 too.
    # So does a large rate for dan, whose kernels become as wide as its features.
    changes = {} if name in ON_CLIP else {"model.batch_norm": "domain"}
    config = config.replace(changes | ({"optim.learning_rate": 0.01} if name == "dan" else {}))
    source, targets = open_data(config, ["inverted"], tiny_root)
    training = Training(config, source, targets, CPU)
    assert training.run().points[-1].accuracies.source_val > 60  # chance is 33
    method = training.method
    output = method.step(3, source_batch(), target_batch() if method.needs_target(3) else None)
    assert {loss.dtype for loss in output.losses.values()} == {torch.float32}
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
    exact = build(config.replace({"optim.precision": "float32"}))
    exact.load_state_dict(method.state_dict())
    expected = exact.step(3, source_batch(), target_batch() if exact.needs_target(3) else None)
    assert any(not torch.equal(output.losses[term], loss) for term, loss in expected.losses.items())


@pytest.mark.parametrize("name", LEARNING)
class TestEveryMethodThatLearns:
    def test_gradient_reaches_the_student_and_nothing_else(self, name: str, tiny_config: TrialConfig) -> None:
        method = build(of_method(tiny_config, name))
        step = tiny_config.optim.warmup_steps + 1
        target = target_batch() if method.needs_target(step) else None
        output = method.step(step, source_batch(), target)
        torch.stack(list(output.losses.values())).sum().backward()
        reached = {key for key, value in method.student.named_parameters() if value.grad is not None}
        learning = {key for key, value in method.student.named_parameters() if value.requires_grad}
        unused = set() if name == "scale" else {key for key in learning if key.startswith("projector")}
        assert reached == learning - unused
        if method.teacher is not None:
            assert all(parameter.grad is None for parameter in method.teacher.parameters())


@pytest.mark.parametrize("name", ON_IMAGES)
class TestEveryMethodOnImages:
    def test_what_training_adds_is_no_part_of_the_kept_model(self, name: str, tiny_config: TrialConfig) -> None:
        student = build(of_method(tiny_config, name)).student
        kept = {key.partition(".")[0] for key in student.state_for_prediction()}
        assert kept == {"encoder", "classifier"}

    def test_it_starts_from_the_same_student_as_the_others(self, name: str, tiny_config: TrialConfig) -> None:
        student, other = (build(of_method(tiny_config, each)).student for each in (name, "source_only"))
        assert same(student.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", [name for name in ON_IMAGES if name != "mic"])
def test_every_method_on_images_trains_on_a_frozen_encoders_features(
    name: str, frozen_config: TrialConfig, tiny_root: Path
) -> None:
    """Beats chance, resumes bit for bit, and its gradient reaches the bottleneck through both heads."""
    config = of_method(frozen_config, name).replace({"optim.steps": 80, "evaluate_every": 40})
    check_trial(config)
    source, targets = open_inputs(alone(resolve(config, tiny_root)), Execution(root=tiny_root, device="cpu"), None)
    whole, first, second = (Training(config, source, targets, CPU) for _ in range(3))
    expected = whole.run()
    half = first.run(last=40)
    found = second.run(start=from_bytes(to_bytes(half.state, "key"), "key", "here", CPU))
    assert found.points == expected.points
    assert same(second.method.state_dict(), whole.method.state_dict())
    assert expected.points[-1].accuracies.source_val > 60  # chance is 33
    start = build(config).student.state_dict()
    moved = {
        key.partition(".")[0]
        for key, value in whole.method.student.named_parameters()
        if not torch.equal(value, start[key])
    }
    assert moved == {"bottleneck", "classifier", "projector"} - ({"projector"} if name != "scale" else set())


@pytest.mark.parametrize("name", [name for name in METHODS if name != "scale"])
def test_a_baseline_refuses_loss_terms(name: str, tiny_config: TrialConfig) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' trains with ce alone.*ce\+ssl.*method to 'scale'"):
        check_trial(of_method(tiny_config, name).replace({"losses.terms": "ce+ssl"}))


@pytest.mark.parametrize("name", ["dan", "dann", "cdan", "mean_teacher", "mcc", "mdd", "sdat", "mic", "shot", "aad"])
def test_a_baseline_refuses_what_it_cannot_do(name: str, tiny_config: TrialConfig) -> None:
    config = of_method(tiny_config, name)
    with pytest.raises(ConfigError, match=r"whole images: set model.contrast_level to 'pooled'"):
        check_trial(config.replace({"model.contrast_level": "spatial"}))
    balanced = config.replace({"data.class_balance": "both"})
    if name in ("mean_teacher", "mic", "shot"):
        method, last = build(balanced), balanced.optim.steps - 1
        survey_before(method, last)
        assert take_step(method, last).pseudo_labels is not None
        check_trial(balanced)
    else:
        with pytest.raises(
            ConfigError, match=r"pseudo-labels, and method .* makes none: set data.class_balance to 'source'"
        ):
            check_trial(balanced)


@pytest.mark.parametrize(
    "combination", ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+dist+reg", "ce+mcc", "ce+ssl+im+mcc"]
)
@pytest.mark.parametrize("balance", ["source", "both"])
def test_the_passes_of_scale_follow_its_terms(combination: str, balance: str, tiny_config: TrialConfig) -> None:
    config = tiny_config.replace({"losses.terms": combination, "data.class_balance": balance})
    assert passes_made(config) == METHODS["scale"].passes(config)


@pytest.mark.parametrize("labels", ["teacher", "prototype", "neighbours", "average"])
def test_the_passes_of_scale_follow_its_pseudo_labels(labels: str, tiny_config: TrialConfig) -> None:
    config = tiny_config.replace({"losses.terms": "ce+ssl", "losses.pseudo_labels": labels})
    assert passes_made(config) == METHODS["scale"].passes(config)
