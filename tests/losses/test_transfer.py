"""The losses of the image baselines: hand cases, slow references, invariants."""

import doctest
import importlib
import math
from collections.abc import Callable
from itertools import pairwise

import loop_reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from scale_ray.losses import (
    certainty_weights,
    class_confusion,
    discrimination,
    margin_disparity,
    multi_kernel_mmd,
    multilinear_map,
    randomised_multilinear_map,
    reversal_coefficient,
    reverse_gradient,
    weighted_self_training,
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Margin disparity


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6), rows=st.integers(1, 5), classes=st.integers(2, 5), margin=st.sampled_from([1.0, 4.0])
)
def test_margin_disparity_is_what_loops_over_images_give(seed: int, rows: int, classes: int, margin: float) -> None:
    of_source, scores, of_target, target_scores = normal(4, rows, classes, seed=seed)
    expected = 0.0
    for logits, auxiliary in zip(of_source.tolist(), scores.tolist(), strict=True):
        total = sum(math.exp(each) for each in auxiliary)
        expected -= margin * math.log(math.exp(auxiliary[logits.index(max(logits))]) / total) / rows
    for logits, auxiliary in zip(of_target.tolist(), target_scores.tolist(), strict=True):
        total = sum(math.exp(each) for each in auxiliary)
        share = math.exp(auxiliary[logits.index(max(logits))]) / total
        expected -= math.log(min(1 - share + 1e-6, 1)) / rows
    found = margin_disparity(of_source, scores, of_target, target_scores, margin)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_margin_disparity_is_low_where_the_classifiers_agree_on_the_source_and_not_on_the_target() -> None:
    logits = torch.tensor([[9.0, -9.0]])
    agree, differ = logits, -logits
    assert margin_disparity(logits, agree, logits, differ, 4.0) < 1e-3
    worst = margin_disparity(logits, differ, logits, agree, 4.0)
    assert worst.item() == pytest.approx(4 * 18 - math.log(1e-6), abs=0.1)  # finite, by the offset
    scores = logits.clone().requires_grad_()
    assert gradcheck(lambda each: margin_disparity(logits.double(), each, logits.double(), -each, 4.0), scores.double())


def test_margin_disparity_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="margin must be positive"):
        margin_disparity(*torch.zeros(4, 2, 3), 0.0)
    with pytest.raises(ValueError, match="must both be"):
        margin_disparity(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 3), torch.zeros(2, 3), 4.0)


# Self-training on masked images


def test_each_pseudo_label_counts_as_much_as_it_is_sure() -> None:
    logits, labels = normal(4, 3), torch.tensor([0, 2, 1, 1])
    confidence = torch.tensor([1.0, 0.5, 0.0, 0.25], dtype=torch.float64, requires_grad=True)
    expected = -sum(
        share * logits[row].log_softmax(dim=0)[label].item() / 4
        for row, (label, share) in enumerate(zip(labels.tolist(), [1.0, 0.5, 0.0, 0.25], strict=True))
    )
    logits.requires_grad_()
    loss = weighted_self_training(logits, labels, confidence)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert confidence.grad is None
    with pytest.raises(ValueError, match=r"confidence \(4, 1\) \(N,\)"):
        weighted_self_training(logits, labels, torch.ones(4, 1))


# Maximum mean discrepancy


def test_mmd_of_two_points_each_by_hand() -> None:
    """0, 0 and 1, 1: of 16 pairs 8 are at distance 1, so d = 0.5; within 1 + 1, between exp(-1 / (2 m d))."""
    zeros, ones = torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    for multiples in ([1.0], [0.5, 2.0]):
        expected = sum(2 - 2 * math.exp(-1 / multiple) for multiple in multiples)
        assert multi_kernel_mmd(zeros, ones, multiples).item() == pytest.approx(expected, rel=1e-14)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), source=st.integers(2, 6), target=st.integers(2, 6), dims=st.integers(1, 4))
def test_mmd_is_what_loops_over_pairs_give(seed: int, source: int, target: int, dims: int) -> None:
    rows = normal(source + target, dims, seed=seed)
    multiples = (0.25, 1.0, 3.0)
    expected = loop_reference.multi_kernel_mmd(rows[:source].tolist(), rows[source:].tolist(), multiples)
    found = multi_kernel_mmd(rows[:source], rows[source:], multiples)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_mmd_is_unbiased_and_grows_with_the_distance() -> None:
    """Over many draws of one distribution it averages to 0; of shifted ones to more, the further the more."""

    def average(shift: float) -> tuple[float, float]:
        values = torch.stack(
            [
                multi_kernel_mmd(normal(8, 2, seed=2 * draw), normal(8, 2, seed=2 * draw + 1) + shift, [1.0])
                for draw in range(400)
            ]
        )
        return values.mean().item(), (values.std() / 20).item()

    means = [average(shift) for shift in (0.0, 0.5, 1.0)]
    assert abs(means[0][0]) < 4 * means[0][1]
    for (near, error), (far, other) in pairwise(means):
        assert far - near > 4 * (error + other)


def test_mmd_does_not_see_order_scale_or_place() -> None:
    source, target = normal(5, 3), normal(7, 3, seed=1)
    value = multi_kernel_mmd(source, target)
    for other in (
        multi_kernel_mmd(source.flip(0), target[[3, 1, 0, 2, 6, 5, 4]]),
        multi_kernel_mmd(target, source),
        multi_kernel_mmd(7 * source + 2, 7 * target + 2),
    ):
        torch.testing.assert_close(other, value, rtol=1e-10, atol=0)


def test_mmd_of_equal_rows_is_zero_with_a_finite_gradient() -> None:
    source, target = (torch.ones(3, 2, requires_grad=True) for _ in range(2))
    value = multi_kernel_mmd(source, target)
    value.backward()
    assert value == 0
    assert source.grad is not None
    assert source.grad.isfinite().all()


def test_a_step_against_the_gradient_of_mmd_brings_the_samples_together() -> None:
    source, target = normal(6, 2).requires_grad_(), normal(6, 2, seed=1) + 2
    value = multi_kernel_mmd(source, target)
    value.backward()
    assert source.grad is not None
    moved = (source - 0.5 * source.grad).detach()
    assert (moved.mean(0) - target.mean(0)).norm() < (source.detach().mean(0) - target.mean(0)).norm()


def test_the_gradient_of_mmd_takes_the_bandwidth_as_given() -> None:
    source, target = normal(3, 2), normal(4, 2, seed=1)
    scale = torch.cdist(rows := torch.cat([source, target]), rows).square().mean()

    def fixed(moving: Tensor) -> Tensor:
        together = torch.cat([moving, target])
        kernel = torch.exp(-(together[:, None] - together).square().sum(2) / (2 * scale))
        within = (kernel[:3, :3].sum() - 3) / 6 + (kernel[3:, 3:].sum() - 4) / 12
        return within - 2 * kernel[:3, 3:].mean()

    assert gradcheck(fixed, (source.clone().requires_grad_(),))
    (expected,) = torch.autograd.grad(fixed(one := source.clone().requires_grad_()), one)
    (found,) = torch.autograd.grad(multi_kernel_mmd(other := source.clone().requires_grad_(), target, [1.0]), other)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [((3,), (3, 2), "must be"), ((3, 2), (3, 4), "must be"), ((1, 2), (3, 2), "1 source and 3 target rows")],
)
def test_samples_that_do_not_fit_are_refused(source: tuple[int, ...], target: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        multi_kernel_mmd(torch.zeros(source), torch.zeros(target))


# Adversaries


@pytest.mark.parametrize("coefficient", [0.0, 0.3, 1.0])
def test_the_reversed_gradient_is_minus_the_coefficient_times_the_plain_one(coefficient: float) -> None:
    plain, reversed_ = (normal(4, 3).requires_grad_() for _ in range(2))
    weight = normal(3, 2, seed=1)
    for features, given_ in ((plain, plain), (reversed_, reverse_gradient(reversed_, coefficient))):
        assert torch.equal(given_, features)
        ((given_ @ weight).exp().sum()).backward()
    assert plain.grad is not None
    assert reversed_.grad is not None
    torch.testing.assert_close(reversed_.grad, -coefficient * plain.grad, rtol=1e-15, atol=0)


@given(gamma=st.floats(0.1, 50), progress=st.floats(0, 1))
def test_the_coefficient_is_ganins(gamma: float, progress: float) -> None:
    expected = 2 / (1 + math.exp(-gamma * progress)) - 1
    assert reversal_coefficient(progress, gamma) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_discrimination_by_hand() -> None:
    """Scores log 3 and 0 for the source, log 3 for the target: -log 3/4, -log 1/2, -log 1/4."""
    source = torch.tensor([math.log(3), 0.0], dtype=torch.float64)
    target = torch.tensor([math.log(3)], dtype=torch.float64)
    losses = [math.log(4 / 3), math.log(2), math.log(4)]
    assert discrimination(source, target).item() == pytest.approx(sum(losses) / 3, rel=1e-14)
    weights = torch.tensor([2.0, 0.5, 0.5], dtype=torch.float64)
    expected = (2 * losses[0] + 0.5 * losses[1] + 0.5 * losses[2]) / 3
    assert discrimination(source, target, weights).item() == pytest.approx(expected, rel=1e-14)


def test_discrimination_and_its_gradient() -> None:
    source, target = normal(4).requires_grad_(), normal(3, seed=1).requires_grad_()
    weights = normal(7, seed=2).abs().requires_grad_()
    assert gradcheck(lambda s, t: discrimination(s, t, weights), (source, target))
    assert not torch.autograd.grad(discrimination(source, target, weights).sum(), weights, allow_unused=True)[0]
    for scores, wrong in ((torch.zeros(2, 1), None), (torch.zeros(2), torch.ones(3))):
        with pytest.raises(ValueError, match="shapes do not fit"):
            discrimination(scores, torch.zeros_like(scores), wrong)


def test_the_multilinear_map_is_the_outer_product() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    probabilities = torch.tensor([[0.25, 0.75], [1.0, 0.0]], requires_grad=True)
    mapped = multilinear_map(features, probabilities)
    assert mapped.tolist() == [[0.25, 0.5, 0.75, 1.5], [3, 4, 0, 0]]
    mapped.sum().backward()
    assert probabilities.grad is None
    assert features.grad is not None


def test_the_randomised_map_keeps_inner_products() -> None:
    """Long et al.: <T(x), T(x')> is in expectation <f, f'> <g, g'>."""
    features, probabilities = normal(2, 3), normal(2, 4, seed=1).softmax(dim=1)
    size = 200_000
    mapped = randomised_multilinear_map(features, probabilities, normal(3, size, seed=2), normal(4, size, seed=3))
    exact = multilinear_map(features, probabilities)
    torch.testing.assert_close(mapped @ mapped.T, exact @ exact.T, rtol=0.03, atol=0.02)


# Certainty and confusion


def test_certainty_weights_by_hand_and_without_a_gradient() -> None:
    probabilities = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    weights = certainty_weights(probabilities)
    assert weights.tolist() == pytest.approx([2 / 1.75, 1.5 / 1.75], rel=1e-14)
    assert not weights.requires_grad


def test_class_confusion_by_hand() -> None:
    """One image of (3/4, 1/4): C = p p', of which each row divided by its sum is p: 1 - (3/4 + 1/4) / 2."""
    logits = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    assert class_confusion(logits, 1.0).item() == pytest.approx(0.5, rel=1e-14)
    assert class_confusion(2 * logits, 2.0).item() == pytest.approx(0.5, rel=1e-14)
    sure = torch.tensor([[800.0, 0.0], [0.0, 800.0]], requires_grad=True)
    assert class_confusion(sure, 1.0).item() == 0
    never_predicted = torch.tensor([[800.0, 0.0]], requires_grad=True)
    value = class_confusion(never_predicted, 1.0)
    value.backward()
    assert value == 0.5
    assert never_predicted.grad is not None
    assert never_predicted.grad.isfinite().all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6), classes=st.integers(2, 5), temperature=st.floats(0.5, 5))
def test_class_confusion_is_what_loops_give(seed: int, count: int, classes: int, temperature: float) -> None:
    logits = 3 * normal(count, classes, seed=seed)
    expected = loop_reference.class_confusion(logits.tolist(), temperature)
    value = class_confusion(logits, temperature)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    assert 0 <= value < 1
    torch.testing.assert_close(class_confusion(logits.flip(1), temperature), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(class_confusion(logits.flip(0), temperature), value, rtol=1e-12, atol=0)


def test_the_gradient_of_confusion_takes_the_weights_as_given() -> None:
    logits = normal(4, 3)
    weights = certainty_weights(logits.softmax(dim=1))

    def fixed(moving: Tensor) -> Tensor:
        predictions = moving.softmax(dim=1)
        confusion = predictions.T @ (weights[:, None] * predictions)
        return 1 - (confusion.diagonal() / confusion.sum(dim=1)).mean()

    assert gradcheck(fixed, (logits.clone().requires_grad_(),))
    (expected,) = torch.autograd.grad(fixed(one := logits.clone().requires_grad_()), one)
    (found,) = torch.autograd.grad(class_confusion(other := logits.clone().requires_grad_(), 1.0), other)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_what_confusion_cannot_be_of_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        class_confusion(torch.zeros(2, 2), 0)
    with pytest.raises(ValueError, match=r"logits \(4,\) must be \(N, K\)"):
        class_confusion(torch.zeros(4), 1)


# All of them

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mmd": multi_kernel_mmd,
    "discrimination": lambda source, target: discrimination(source[:, 0], target[:, 0]),
    "conditioned": lambda source, target: discrimination(
        source[:, 0], target[:, 0], certainty_weights(torch.cat([source, target]).softmax(dim=1))
    ),
    "confusion": lambda source, target: class_confusion(target, 2.5),
    "multilinear": lambda source, target: multilinear_map(source, target.softmax(dim=1)).sum(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_autocast_and_half_precision_do_not_change_the_sums(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    source, target = normal(6, 5, dtype=torch.float32), normal(6, 5, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = loss(source, target)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, loss(source, target))
    half = loss(source.bfloat16(), target.bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("name", ["mmd", "adversarial", "confusion", "certainty", "margin", "masked"])
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"scale_ray.losses.{name}")
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    assert (failed, tried > 0) == (0, True)
