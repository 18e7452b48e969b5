"""Cross-entropy, self-training and consistency, in float64."""

import math

import loop_reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from scale_ray.losses import consistency, cross_entropy, self_training


def batch(seed: int, count: int = 5, classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student logits, teacher probabilities, the teacher's labels and its confidence."""
    numbers = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=numbers, dtype=torch.float64)
    probabilities = (3 * torch.randn(count, classes, generator=numbers, dtype=torch.float64)).softmax(dim=1)
    confidence, labels = probabilities.max(dim=1)
    return logits, probabilities, labels, confidence


def float64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_cross_entropy_hand_case() -> None:
    """Logits log 3 and 0 give 3/4 and 1/4."""
    logits = float64(math.log(3), 0).repeat(2, 1)
    value = cross_entropy(logits, torch.tensor([0, 1])).item()
    assert value == pytest.approx((math.log(4 / 3) + math.log(4)) / 2, abs=1e-15)


def test_self_training_hand_case() -> None:
    """FixMatch, equation 4: two of four images are confident, and the sum is divided by four."""
    logits = float64(math.log(3), 0).repeat(4, 1)
    labels = torch.tensor([0, 1, 0, 1])
    value = self_training(logits, labels, float64(0.9, 0.95, 0.6, 0.5), 0.8).item()
    assert value == pytest.approx((math.log(4 / 3) + math.log(4)) / 4, abs=1e-15)


def test_consistency_hand_case() -> None:
    """(3/4 - 1)^2 + (1/4 - 0)^2 for the one confident image of two."""
    logits = float64(math.log(3), 0).repeat(2, 1)
    probabilities = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    value = consistency(logits, probabilities, float64(1.0, 0.5), 0.8).item()
    assert value == pytest.approx((1 / 16 + 1 / 16) / 2, abs=1e-15)


def test_consistency_is_zero_where_both_agree() -> None:
    logits, _, _, confidence = batch(0)
    assert consistency(logits, logits.softmax(dim=1), confidence, 0.0) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_confidence_equal_to_the_threshold_does_not_count(dtype: torch.dtype) -> None:
    logits, probabilities, labels, _ = batch(1)
    at = torch.full((5,), 0.8, dtype=dtype)
    above = at.nextafter(torch.ones(5, dtype=dtype))
    assert self_training(logits, labels, at, 0.8) == 0
    assert consistency(logits, probabilities, at, 0.8) == 0
    assert torch.equal(self_training(logits, labels, above, 0.8), cross_entropy(logits, labels))
    assert consistency(logits, probabilities, above, 0.8) > 0


def test_unconfident_images_enlarge_only_the_divisor() -> None:
    logits, probabilities, labels, _ = batch(2)
    confidence = float64(0.9, 0.9, 0.1, 0.1, 0.1)
    half = self_training(logits, labels, confidence, 0.8)
    torch.testing.assert_close(half, cross_entropy(logits[:2], labels[:2]) * 2 / 5, rtol=1e-14, atol=0)
    half = consistency(logits, probabilities, confidence, 0.8)
    alone = consistency(logits[:2], probabilities[:2], confidence[:2], 0.8)
    torch.testing.assert_close(half, alone * 2 / 5, rtol=1e-14, atol=0)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6), classes=st.integers(1, 6), threshold=st.floats(0, 1))
def test_they_are_what_loops_give(seed: int, count: int, classes: int, threshold: float) -> None:
    logits, probabilities, labels, confidence = batch(seed, count, classes)
    value = self_training(logits, labels, confidence, threshold)
    expected = loop_reference.self_training(logits.tolist(), labels.tolist(), confidence.tolist(), threshold)
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    value = consistency(logits, probabilities, confidence, threshold)
    expected = loop_reference.consistency(logits.tolist(), probabilities.tolist(), confidence.tolist(), threshold)
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_gradients_agree_with_finite_differences() -> None:
    logits, probabilities, labels, confidence = batch(3)
    threshold = confidence.median().item()
    logits.requires_grad_()
    assert gradcheck(lambda x: cross_entropy(x, labels), (logits,))
    assert gradcheck(lambda x: self_training(x, labels, confidence, threshold), (logits,))
    assert gradcheck(lambda x: consistency(x, probabilities, confidence, threshold), (logits,))


@pytest.mark.parametrize("shape", [(5, 1), (1,), (4,), ()], ids=str)
def test_a_confidence_that_would_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    logits, probabilities, labels, _ = batch(4)
    with pytest.raises(ValueError, match="confidence"):
        self_training(logits, labels, torch.ones(shape), 0.8)
    with pytest.raises(ValueError, match="confidence"):
        consistency(logits, probabilities, torch.ones(shape), 0.8)


def test_labels_and_probabilities_of_another_batch_are_refused() -> None:
    logits, probabilities, labels, confidence = batch(5)
    with pytest.raises(ValueError, match="batch"):
        cross_entropy(logits, labels[:-1])
    with pytest.raises(ValueError, match="batch"):
        self_training(logits, labels[:-1], confidence, 0.8)
    with pytest.raises(ValueError, match="teacher_probabilities"):
        consistency(logits, probabilities[:1], confidence, 0.8)
    with pytest.raises(ValueError, match="student_logits"):
        self_training(logits[0], labels[0], confidence[0], 0.8)
