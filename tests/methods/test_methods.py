"""What each method promises beyond the conformity suite."""

import dataclasses
import math

import pytest
import torch
from opened import open_data
from tiny_steps import CLASSES, STEPS_PER_EPOCH, build, source_batch, target_batch

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.batches import TargetBatch
from scale_ray.methods import METHODS
from scale_ray.training.resolve import check_trial
from scale_ray.training.trial import Training


def test_a_target_batch_has_no_field_for_labels() -> None:
    assert {field.name for field in dataclasses.fields(TargetBatch)} == {"weak", "strong", "indices"}


@pytest.mark.parametrize(
    ("combination", "teacher", "statistics", "target_in_warmup", "target_after"),
    [
        ("ce", False, False, False, False),
        ("ce+ssl", True, False, True, True),
        ("ce+dist", True, True, False, True),
        ("ce+reg", True, True, False, True),
        ("ce+ssl+dist+reg", True, True, True, True),
        ("ce+mcc", False, False, True, True),
        ("ce+im", False, False, True, True),
        ("ce+ssl+im+mcc", True, False, True, True),
    ],
)
def test_terms_that_are_off_cost_nothing(
    tiny_config: TrialConfig,
    combination: str,
    teacher: bool,
    statistics: bool,
    target_in_warmup: bool,
    target_after: bool,
) -> None:
    config = tiny_config.replace({"losses.terms": combination})
    method = build(config)
    last_of_warmup = config.optim.warmup_steps
    assert (method.teacher is not None) == teacher
    assert (method.statistics is not None) == statistics
    assert method.needs_target(last_of_warmup) == target_in_warmup
    assert method.needs_target(last_of_warmup + 1) == target_after
    output = method.step(last_of_warmup + 1, source_batch(), target_batch() if target_after else None)
    assert list(output.losses) == combination.split("+")
    torch.stack(list(output.losses.values())).sum().backward()
    # Without a contrast term nothing is projected.
    assert all((parameter.grad is not None) == statistics for parameter in method.student.projector.parameters())


@pytest.mark.parametrize("batch_norm", ["separate", "domain", "joint", "frozen"])
def test_the_term_mcc_alone_is_the_baseline(tiny_config: TrialConfig, batch_norm: str) -> None:
    alone = {"model.batch_norm": batch_norm}
    term = build(tiny_config.replace({"losses.terms": "ce+mcc", **alone})).step(0, source_batch(), target_batch())
    baseline = build(tiny_config.replace({"method": "mcc", "losses.terms": "ce", **alone}))
    expected = baseline.step(0, source_batch(), target_batch()).losses
    assert term.losses["ce"].item() == pytest.approx(expected["ce"].item(), rel=1e-6)
    assert term.losses["mcc"].item() == pytest.approx(expected["confusion"].item(), rel=1e-6)


def test_both_views_of_the_target_share_one_pass_and_its_statistics(tiny_config: TrialConfig) -> None:
    """With frozen BatchNorm no image sees another one: each term is what it is alone."""
    frozen = tiny_config.replace({"model.batch_norm": "frozen", "losses.threshold": 0.0})
    target = target_batch()
    both = build(frozen.replace({"losses.terms": "ce+ssl+mcc"})).step(0, source_batch(), target).losses
    for name in ("ssl", "mcc"):
        alone = build(frozen.replace({"losses.terms": f"ce+{name}"})).step(0, source_batch(), target).losses
        assert both[name].item() == pytest.approx(alone[name].item(), rel=1e-5)
    # Otherwise the batch statistics are those of both views, and the losses differ.
    separate = frozen.replace({"model.batch_norm": "separate"})
    both = build(separate.replace({"losses.terms": "ce+ssl+mcc"})).step(0, source_batch(), target).losses
    alone = build(separate.replace({"losses.terms": "ce+mcc"})).step(0, source_batch(), target).losses
    assert both["mcc"].item() != pytest.approx(alone["mcc"].item(), rel=1e-5)


@pytest.mark.parametrize("labels", ["prototype", "average"])
def test_prototypes_label_the_target(tiny_config: TrialConfig, tiny_root, labels: str) -> None:
    """Fitted to both domains before the first step; with the teacher they are averaged."""
    config = tiny_config.replace(
        {"losses.terms": "ce+ssl", "losses.pseudo_labels": labels, "losses.threshold": 0.0, "optim.steps": 3}
    )
    source, targets = open_data(config, ["inverted"], tiny_root)
    training = Training(config, source, targets, torch.device("cpu"))
    method = training.method
    assert [method.surveys(step) for step in (0, 1)] == [True, False]
    training.run(last=1)
    assert torch.allclose(method.prototypes.prototypes.norm(dim=1), torch.ones(CLASSES), atol=1e-5)
    target = target_batch()
    by_prototype = method.prototypes(method.encode(target.weak, "target")).softmax(dim=1)
    by_teacher = method.teacher(target.weak).logits.softmax(dim=1)
    expected = by_prototype if labels == "prototype" else (by_prototype + by_teacher) / 2
    assert torch.equal(method.step(1, source_batch(), target).pseudo_labels, expected.argmax(dim=1))
    assert config.variant == f"scale {labels}"


def test_prototypes_are_fitted_before_the_first_labels(tiny_config: TrialConfig) -> None:
    """Not in a warm-up that reads no target."""
    waiting = tiny_config.replace({"losses.terms": "ce+dist", "losses.pseudo_labels": "prototype"})
    first, epoch = tiny_config.optim.warmup_steps + 1, STEPS_PER_EPOCH
    assert [step for step in range(12) if build(waiting).surveys(step)] == [first, epoch, 2 * epoch]
    unlabelled = waiting.replace({"losses.terms": "ce+mcc"})
    assert not any(build(unlabelled).surveys(step) for step in range(12))


def test_neighbours_label_the_target(tiny_config: TrialConfig) -> None:
    """The bank has what the teacher said of the batch; an image's label is that of the others in it."""
    config = tiny_config.replace({"losses.terms": "ce+ssl", "losses.pseudo_labels": "neighbours"})
    method, target = build(config), target_batch()
    assert not any(method.surveys(step) for step in range(12))
    found = method.step(0, source_batch(), target)
    of_teacher = method.teacher(target.weak, hidden=True)
    probabilities = of_teacher.logits.softmax(dim=1)
    assert torch.equal(method.neighbours.probabilities, probabilities)
    assert torch.allclose(method.neighbours.features, torch.nn.functional.normalize(of_teacher.hidden, dim=1))
    squares = probabilities.square() / probabilities.square().sum(dim=0)
    sharp = squares / squares.sum(dim=1, keepdim=True)
    expected = (sharp.sum(dim=0) - sharp) / 5  # all five others are neighbours
    assert torch.equal(found.pseudo_labels, expected.argmax(dim=1))
    assert torch.equal(found.kept, expected.amax(dim=1) > config.losses.threshold)
    assert config.variant == "scale neighbours"
    assert build(config.replace({"losses.pseudo_labels": "average"})).neighbours is None


def test_neighbours_of_images_with_locations_are_those_of_whole_images(tiny_config: TrialConfig) -> None:
    changes = {"losses.terms": "ce+ssl", "losses.pseudo_labels": "neighbours", "model.contrast_level": "spatial"}
    method, target = build(tiny_config.replace(changes)), target_batch()
    assert method.step(0, source_batch(), target).pseudo_labels.shape == target.indices.shape
    assert len(method.neighbours.features) == len(target.indices)


@pytest.mark.parametrize("thresholding", ["flex", "relative"])
def test_thresholds_that_follow_the_training_keep_what_exceeds(tiny_config: TrialConfig, thresholding: str) -> None:
    changes = {"losses.terms": "ce+ssl", "losses.thresholding": thresholding, "losses.threshold": 0.9}
    after = tiny_config.optim.warmup_steps + 1
    method = build(tiny_config.replace(changes))
    target, found = target_batch(), method.step(after, source_batch(), target_batch())
    twin = build(tiny_config.replace(changes))
    confidence, labels = twin.teacher(target.weak).logits.softmax(dim=1).max(dim=1)
    if thresholding == "flex":
        limits = (method.thresholds.level * method.thresholds.predicted / method.thresholds.predicted.max())[labels]
    else:
        on_source = twin.student(source_batch().images).logits.softmax(dim=1).amax(dim=1).mean()
        limits = (0.9 * on_source).expand(len(labels))
    kept = confidence > limits
    assert torch.equal(found.kept, kept)
    logits = twin.student(target.strong).logits
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")[kept].sum() / len(labels)
    assert found.losses["ssl"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("thresholding", ["flex", "relative"])
def test_thresholds_follow_the_training_after_the_warm_up(tiny_config: TrialConfig, thresholding: str) -> None:
    # Confidences of random heads lie between 1/3 and 0.9, and above thresholds that follow them.
    changes = {"losses.terms": "ce+ssl", "losses.thresholding": thresholding, "losses.threshold": 0.9}
    method, last = build(tiny_config.replace(changes)), tiny_config.optim.warmup_steps
    kept = {step: method.step(step, source_batch(), target_batch()).kept for step in (0, last, last + 1)}
    assert [bool(kept[step].any()) for step in kept] == [False, False, True]


@pytest.mark.parametrize("labels", ["average", "neighbours"])
def test_a_training_that_remembers_the_target_goes_on_bit_for_bit(
    tiny_config: TrialConfig, tiny_root, labels: str
) -> None:
    config = tiny_config.replace({"losses.terms": "ce+ssl", "losses.pseudo_labels": labels, "optim.steps": 12})
    source, targets = open_data(config, ["inverted"], tiny_root)
    whole, first, second = (Training(config, source, targets, torch.device("cpu")) for _ in range(3))
    expected = whole.run()
    half = first.run(last=5)
    assert second.run(start=half.state).points == expected.points


def test_pseudo_labels_are_made_where_something_reads_them(tiny_config: TrialConfig) -> None:
    """reg does not; class-balanced target sampling does."""
    for changes, made in (({}, False), ({"data.class_balance": "both"}, True)):
        method = build(tiny_config.replace({"losses.terms": "ce+reg", **changes}))
        output = method.step(3, source_batch(), target_batch())
        assert (output.pseudo_labels is not None) == made


def test_statistics_are_kept_from_step_0(tiny_config: TrialConfig) -> None:
    method = build(tiny_config.replace({"losses.terms": "ce+dist"}))
    method.step(0, source_batch(), None)
    assert method.statistics.count.tolist() == [2, 2, 2]
    method.step(1, source_batch(), None)
    assert method.statistics.count.tolist() == [4, 4, 4]


def test_epoch_window_forgets_at_each_epoch(tiny_config: TrialConfig) -> None:
    method = build(tiny_config.replace({"losses.terms": "ce+dist", "losses.statistics_window": "epoch"}))
    for step, expected in ((0, 2), (1, 4), (STEPS_PER_EPOCH, 2)):
        target = target_batch() if method.needs_target(step) else None
        method.step(step, source_batch(), target)
        assert method.statistics.count.tolist() == [expected] * CLASSES


@pytest.mark.parametrize(
    "changes",
    [
        {"model.batch_norm": "joint"},
        {"model.contrast_level": "spatial", "losses.reg_mean": "image"},
        {"losses.covariance": "full"},
        {"losses.contrast": "proto"},
        {"losses.contrast": "bank"},
        {"losses.consistency": "mse"},
        {"losses.statistics_window": "ema"},
    ],
    ids=str,
)
def test_every_option_of_scale_gives_finite_losses_of_its_own(tiny_config: TrialConfig, changes: dict) -> None:
    def losses(config: TrialConfig) -> dict[str, float]:
        method = build(config)
        for step in (3, 4, 5):
            output = method.step(step, source_batch(step), target_batch(step))
            method.after_update()
        return {name: value.item() for name, value in output.losses.items()}

    confident = tiny_config.replace({"losses.threshold": 0.0})
    usual, changed = losses(confident), losses(confident.replace(changes))
    assert all(torch.isfinite(torch.tensor(list(changed.values()))))
    assert usual != changed


def test_joint_batch_norm_sees_both_domains(tiny_config: TrialConfig) -> None:
    """Joint: one forward, so the running mean after a step is that of source and target together."""
    bright = TargetBatch(target_batch().weak + 10, target_batch().strong + 10, torch.arange(6))
    trackers = {}
    for mode in ("separate", "joint"):
        method = build(tiny_config.replace({"model.batch_norm": mode, "losses.terms": "ce+ssl"}))
        method.step(0, source_batch(), bright)
        layer = next(module for module in method.student.encoder.modules() if isinstance(module, torch.nn.BatchNorm2d))
        trackers[mode] = int(layer.num_batches_tracked)
    assert trackers == {"separate": 2, "joint": 1}


def test_scale_refuses_terms_that_never_act(tiny_config: TrialConfig) -> None:
    with pytest.raises(ConfigError, match=r"dist\+reg never act.*lower optim.warmup_steps"):
        METHODS["scale"].check(tiny_config.replace({"optim.steps": 3, "optim.warmup_steps": 2}))


def test_the_bank_holds_the_teachers_last_projections_of_each_class(tiny_config: TrialConfig) -> None:
    bank = {"losses.contrast": "bank", "losses.bank_size": 3}
    method = build(tiny_config.replace({"losses.terms": "ce+dist", **bank}))
    batches = [source_batch(seed) for seed in range(2)]
    expected = [method.teacher(batch.images, project=True).features for batch in batches]
    for step, batch in enumerate(batches):
        method.step(step, batch, None)
    assert method.bank.count.tolist() == [4, 4, 4]
    # Of class 0, rows 0 and 3 of either batch: the fourth took the place of the first.
    kept = torch.stack([expected[1][3], expected[0][3], expected[1][0]])
    assert torch.equal(method.bank.features[0], kept)


def test_there_is_a_bank_only_where_it_is_read(tiny_config: TrialConfig) -> None:
    for terms, contrast, there in (("ce+dist", "bank", True), ("ce+reg", "bank", False), ("ce+dist", "proto", False)):
        method = build(tiny_config.replace({"losses.terms": terms, "losses.contrast": contrast}))
        assert (method.bank is not None) == there


# The adversaries


def adversary(config: TrialConfig, name: str, **changes: object):
    return build(config.replace({"method": name, "losses.terms": "ce", **changes}))


@pytest.mark.parametrize("name", ["dann", "cdan"])
def test_the_student_gains_from_what_the_discriminator_loses(tiny_config: TrialConfig, name: str) -> None:
    """One step along each one's gradient: the discriminator's lowers the domain loss, the student's raises it."""
    method = adversary(tiny_config, name)
    step = tiny_config.optim.steps - 1

    def domain_loss() -> torch.Tensor:
        return method.step(step, source_batch(), target_batch()).losses["domain"]

    before = domain_loss()
    before.backward()
    hidden = list(method.student.classifier[:-1].parameters())
    for parameters, sign in ((list(method.discriminator.parameters()), -1), (hidden, 1)):
        with torch.no_grad():
            for parameter in parameters:
                parameter.sub_(0.01 * parameter.grad)
        assert sign * (domain_loss() - before) > 0
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.01 * parameter.grad)


def test_the_reversal_grows_with_progress_and_gamma(tiny_config: TrialConfig) -> None:
    def strength(step: int, **changes: object) -> float:
        method = adversary(tiny_config, "dann", **changes)
        method.step(step, source_batch(), target_batch()).losses["domain"].backward()
        return method.student.classifier[0].weight.grad.abs().sum().item()

    steps = tiny_config.optim.steps
    assert strength(0) == 0
    assert 0 < strength(1, **{"baseline.reversal_gamma": 1}) < strength(1) < strength(steps - 1)


def test_large_maps_of_cdan_are_randomised_and_their_matrices_kept(tiny_config: TrialConfig) -> None:
    exact, randomised = (adversary(tiny_config, "cdan", **{"model.hidden_dim": width}) for width in (1365, 1366))
    assert exact.discriminator[0].in_features == 3 * 1365 == 4095
    assert randomised.discriminator[0].in_features == 1024
    assert {"of_features", "of_probabilities"} <= randomised.state_dict().keys() - exact.state_dict().keys()
    assert torch.isfinite(randomised.step(5, source_batch(), target_batch()).losses["domain"])


def test_entropy_conditioning_weighs_images(tiny_config: TrialConfig) -> None:
    losses = {
        conditioned: adversary(tiny_config, "cdan", **{"baseline.entropy_conditioning": conditioned})
        .step(5, source_batch(), target_batch())
        .losses["domain"]
        for conditioned in (False, True)
    }
    assert losses[False] != losses[True]


# The mean teacher


def test_consistency_is_ramped_up_over_the_warm_up(tiny_config: TrialConfig) -> None:
    def weights(warmup: int) -> list[float]:
        changes = {"method": "mean_teacher", "losses.terms": "ce", "optim.warmup_steps": warmup, "baseline.weight": 3}
        method = build(tiny_config.replace(changes))
        return [
            method.step(step, source_batch(), target_batch()).weights["consistency"]
            for step in (0, warmup // 2, warmup)
        ]

    assert weights(4) == pytest.approx([3 * math.exp(-5), 3 * math.exp(-1.25), 3])
    assert weights(0) == [3, 3, 3]


# Transfer losses after the warm-up

TRANSFER = ["dan", "dann", "cdan", "mcc", "mdd", "sdat", "mic"]


def transfer(config: TrialConfig, name: str, **changes: object):
    views = {"views.strong": "masked"} if name == "mic" else {}
    return build(config.replace({"method": name, "losses.terms": "ce", **views, **changes}))


@pytest.mark.parametrize("name", TRANSFER)
def test_before_the_transfer_loss_begins_a_step_is_that_of_source_only(tiny_config: TrialConfig, name: str) -> None:
    waiting = transfer(tiny_config, name, **{"baseline.transfer_from": "warm_up"})
    plain = transfer(tiny_config, "source_only")
    last = tiny_config.optim.warmup_steps
    assert [waiting.needs_target(step) for step in (0, last, last + 1)] == [False, False, True]
    outputs = [method.step(last, source_batch(), None) for method in (waiting, plain)]
    assert [list(output.losses) for output in outputs] == [["ce"], ["ce"]]
    for output in outputs:
        output.losses["ce"].backward()
    for (key, one), (_, other) in zip(
        waiting.student.named_parameters(), plain.student.named_parameters(), strict=True
    ):
        assert (one.grad is None and other.grad is None) or torch.equal(one.grad, other.grad), key
    assert {"ce"} < waiting.step(last + 1, source_batch(), target_batch()).losses.keys()


def test_progress_counts_from_where_the_transfer_loss_begins(tiny_config: TrialConfig) -> None:
    """12 steps with a warm-up of 2: steps 3 to 11 have the transfer loss."""
    waiting = transfer(tiny_config, "dann", **{"baseline.transfer_from": "warm_up"})
    assert [waiting.progress(step) for step in (3, 6, 12)] == [0, pytest.approx(1 / 3), 1]
    assert [transfer(tiny_config, "dann").progress(step) for step in (0, 3, 12)] == [0, 0.25, 1]


@pytest.mark.parametrize("name", TRANSFER)
def test_a_transfer_loss_that_never_acts_is_refused(tiny_config: TrialConfig, name: str) -> None:
    changes = {"method": name, "losses.terms": "ce", "views.strong": "masked", "optim.warmup_steps": 11}
    config = tiny_config.replace(changes)
    METHODS[name].check(config)
    with pytest.raises(ConfigError, match=r"never acts.*optim.warmup_steps=11.*last step is 11: lower optim.warmup"):
        METHODS[name].check(config.replace({"baseline.transfer_from": "warm_up"}))


# Sharpness


def gradients(method, output) -> dict[str, torch.Tensor]:
    losses = torch.stack([output.weights.get(name, 1.0) * loss for name, loss in output.losses.items()])
    losses.sum().backward()
    return {name: value.grad.clone() for name, value in method.named_parameters() if value.grad is not None}


def reference(config: TrialConfig, step: int, *, moved: bool) -> dict[str, torch.Tensor]:
    """By hand: cdan and mcc as two methods that share one student; with `moved`, its weights lie uphill."""
    method = transfer(config, "cdan").double()
    confusion = METHODS["mcc"].transfer
    student, baseline = method.student, config.baseline

    def losses() -> tuple[torch.Tensor, torch.Tensor]:
        of_source, of_target = student.forward_domains(
            source_batch().images.double(), target_batch().weak.double(), hidden=True
        )
        ce = torch.nn.functional.cross_entropy(of_source.logits, source_batch().labels)
        task = ce + baseline.weight * confusion(method, step, of_source, of_target)
        return task, baseline.weight * method.transfer(step, of_source, of_target)

    before = {name: value.detach().clone() for name, value in student.named_parameters()}
    if moved:
        losses()[0].backward()
        slopes = {name: value.grad for name, value in student.named_parameters() if value.grad is not None}
        length = sum(float(slope.square().sum()) for slope in slopes.values()) ** 0.5
        with torch.no_grad():
            for name, value in student.named_parameters():
                if name in slopes:
                    value.add_(slopes[name], alpha=baseline.sharpness_radius / length)
        method.zero_grad()
    sum(losses()).backward()
    assert moved != all(torch.equal(before[name], value) for name, value in student.named_parameters())
    return {name: value.grad for name, value in method.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("radius", [0.0, 0.5])
def test_the_gradient_of_sdat_is_that_of_cdan_and_mcc_uphill_of_the_task_loss(
    tiny_config: TrialConfig, radius: float
) -> None:
    config = tiny_config.replace({"baseline.sharpness_radius": radius, "baseline.weight": 0.7})
    method, step = transfer(config, "sdat").double(), 6
    source, target = source_batch(), target_batch()
    weights = {name: value.detach().clone() for name, value in method.named_parameters()}
    found = gradients(
        method,
        method.step(
            step,
            dataclasses.replace(source, images=source.images.double()),
            dataclasses.replace(target, weak=target.weak.double()),
        ),
    )
    expected = reference(config, step, moved=radius > 0)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert all(torch.equal(value, weights[name]) for name, value in method.named_parameters())


@pytest.mark.parametrize("mode", ["separate", "joint", "domain", "frozen"])
def test_the_two_passes_of_sdat_and_mic_update_running_statistics_once(tiny_config: TrialConfig, mode: str) -> None:
    counts, means = {}, {}
    for name in ("cdan", "sdat", "mic"):
        method = transfer(tiny_config, name, **{"model.batch_norm": mode, "baseline.sharpness_radius": 0.0})
        method.step(5, source_batch(), target_batch())
        state = method.student.state_dict()
        counts[name] = {key: int(value) for key, value in state.items() if key.endswith(("_tracked", "_batches"))}
        means[name] = {key: value for key, value in state.items() if "mean" in key or "var" in key}
        layers = [module for module in method.student.modules() if hasattr(module, "track_running_stats")]
        assert all(layer.track_running_stats for layer in layers)
    assert counts["cdan"] == counts["sdat"] == counts["mic"]
    for key, value in means["cdan"].items():
        torch.testing.assert_close(means["sdat"][key], value, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(means["mic"][key], value, rtol=1e-6, atol=1e-7)


# The margin disparity's second classifier


def test_the_student_gains_from_what_the_second_classifier_loses(tiny_config: TrialConfig) -> None:
    method, step = transfer(tiny_config, "mdd"), tiny_config.optim.steps - 1

    def disparity() -> torch.Tensor:
        return method.step(step, source_batch(), target_batch()).losses["disparity"]

    before = disparity()
    before.backward()
    hidden = list(method.student.classifier[:-1].parameters())
    assert method.student.classifier[-1].weight.grad is None  # the student's predictions alone are read
    for parameters, sign, length in ((list(method.auxiliary.parameters()), -1, 0.01), (hidden, 1, 0.001)):
        with torch.no_grad():
            for parameter in parameters:
                parameter.sub_(length * parameter.grad)
        assert sign * (disparity() - before) > 0
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(length * parameter.grad)


# Masked images


def test_mic_learns_from_all_pseudo_labels_as_much_as_the_teacher_is_sure(tiny_config: TrialConfig) -> None:
    method = transfer(tiny_config, "mic", **{"baseline.sharpness_radius": 0.0})
    with torch.no_grad():
        confidence, labels = method.teacher(target_batch().weak).logits.softmax(dim=1).max(dim=1)
        logits = method.student(target_batch().strong).logits
    output = method.step(5, source_batch(), target_batch())
    expected = (confidence * torch.nn.functional.cross_entropy(logits, labels, reduction="none")).mean()
    assert output.losses["masked"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert output.weights == {"masked": 1.0, "confusion": 1.0, "domain": 1.0}
    assert torch.equal(output.pseudo_labels, labels)


def test_mic_needs_masked_images_and_an_encoder_that_learns(tiny_config: TrialConfig, frozen_config) -> None:
    config = tiny_config.replace({"method": "mic", "losses.terms": "ce"})
    with pytest.raises(ConfigError, match=r"'mic' learns from masked images.*'colour_affine': set views.strong to"):
        check_trial(config)
    check_trial(config.replace({"views.strong": "masked"}))
    for name in ("mic", "mean_teacher"):
        with pytest.raises(ConfigError, match=r"views.strong='masked' teaches an encoder.*model.encoder is 'frozen'"):
            check_trial(frozen_config.replace({"method": name, "losses.terms": "ce", "views.strong": "masked"}))


# FixMatch


def test_fixmatch_is_scale_with_its_fields_bit_for_bit(tiny_config: TrialConfig, tiny_root) -> None:
    fixed = {"losses.terms": "ce+ssl", "losses.threshold": 0.95, "model.teacher_momentum": 0.0}
    configs = [
        tiny_config.replace({"method": "fixmatch", "losses.terms": "ce", "losses.threshold": 0.1}),
        tiny_config.replace({"method": "scale", **fixed}),
    ]
    source, targets = open_data(configs[0], ["inverted"], tiny_root)
    one, other = (Training(config, source, targets, torch.device("cpu")) for config in configs)
    assert one.run().points == other.run().points
    for (key, value), expected in zip(one.method.state_dict().items(), other.method.state_dict().values(), strict=True):
        assert torch.equal(value, expected), key


def test_the_teacher_of_fixmatch_is_the_student(tiny_config: TrialConfig) -> None:
    method = transfer(tiny_config, "fixmatch")
    for step in range(3):
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.add_(0.1 * step)
        method.after_update()
        pairs = zip(method.student.parameters(), method.teacher.module.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
