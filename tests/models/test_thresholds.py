"""Thresholds that follow the training, by hand."""

import pytest
import torch

from scale_ray.models.thresholds import AdaptiveThresholds, relative_threshold


def test_the_first_batch_by_hand() -> None:
    """level = 0.99 * 0.5 + 0.01 * 0.7 = 0.502; p = 0.99 * 0.5 + 0.01 * (0.6, 0.4) = (0.501, 0.499)."""
    found = AdaptiveThresholds(2)(torch.tensor([[0.8, 0.2], [0.4, 0.6]]))
    assert found.tolist() == pytest.approx([0.502, 0.502 * 0.499 / 0.501])


def test_a_class_that_is_seldom_predicted_gets_a_lower_threshold() -> None:
    thresholds = AdaptiveThresholds(2)
    for _ in range(1000):
        found = thresholds(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]]))
    assert thresholds.level.item() == pytest.approx(2.5 / 3, abs=1e-3)
    assert found[2] / found[0] == pytest.approx((0.9 / 3) / (2.1 / 3), abs=1e-3)


def test_relative_to_the_confidence_on_the_source() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.3, 0.7]])).requires_grad_()
    found = relative_threshold(0.9, logits)
    assert found.item() == pytest.approx(0.9 * 0.8)
    assert not found.requires_grad
