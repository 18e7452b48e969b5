"""Attraction and dispersion, and the smoothed cross-entropy of the methods that use them."""

import doctest
import importlib
import math

import hypothesis.strategies as st
import loop_reference
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.autograd import gradcheck

from scale_ray.losses import attraction, cross_entropy, dispersion


def predictions(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double().softmax(dim=-1)


def test_attraction_by_hand() -> None:
    """(1/2, 1/2) with (1, 0) and (0, 1), (1, 0) with (1, 0) and (1/4, 3/4): -(1 + 5/4) / 2."""
    probabilities = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    neighbours = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.25, 0.75]]])
    assert attraction(probabilities, neighbours).item() == -1.125


def test_dispersion_by_hand() -> None:
    """(1, 0), (1, 0) and (1/2, 1/2): products 1, 1/2 and 1/2, each counted for both images."""
    probabilities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    assert dispersion(probabilities).item() == pytest.approx(4 / 3, rel=1e-6)
    assert dispersion(probabilities[:1]).item() == 0


@given(images=st.integers(1, 6), classes=st.integers(2, 5), near=st.integers(0, 5), seed=st.integers(0, 99))
def test_both_are_what_loops_give(images: int, classes: int, near: int, seed: int) -> None:
    probabilities, neighbours = predictions(images, classes, seed=seed), predictions(images, near, classes, seed=seed)
    pulled = attraction(probabilities, neighbours).item()
    assert pulled == pytest.approx(loop_reference.attraction(probabilities.tolist(), neighbours.tolist()), abs=1e-12)
    assert -near - 1e-12 <= pulled <= 0
    pushed = dispersion(probabilities).item()
    assert pushed == pytest.approx(loop_reference.dispersion(probabilities.tolist()), abs=1e-12)
    assert dispersion(probabilities.flip(0)).item() == pytest.approx(pushed, abs=1e-12)


def test_the_gradient_reaches_predictions_and_no_neighbour() -> None:
    probabilities, neighbours = predictions(4, 3).requires_grad_(), predictions(4, 2, 3, seed=1).requires_grad_()
    attraction(probabilities, neighbours).backward()
    assert neighbours.grad is None
    assert gradcheck(lambda given: attraction(given, neighbours.detach()), (probabilities,))
    assert gradcheck(dispersion, (probabilities,))  # through both factors


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"probabilities \(2, 3\) must be \(N, K\), neighbours \(2, 4\)"):
        attraction(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="shapes do not fit"):
        attraction(torch.zeros(2, 3), torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r"probabilities \(4,\) must be \(N, K\)"):
        dispersion(torch.zeros(4))


def test_smoothed_labels_by_hand() -> None:
    """Probabilities 3/4 and 1/4 of two classes, a tenth spread over both: 0.95 log 4/3 + 0.05 log 4."""
    logits = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    expected = 0.95 * math.log(4 / 3) + 0.05 * math.log(4)
    assert cross_entropy(logits, torch.tensor([0]), 0.1).item() == pytest.approx(expected, rel=1e-14)
    assert cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(math.log(4 / 3), rel=1e-14)


def test_half_precision_does_not_change_the_sums() -> None:
    probabilities = predictions(6, 5).float()
    expected = dispersion(probabilities)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dispersion(probabilities), expected)
        assert dispersion(probabilities).dtype == torch.float32
    assert attraction(probabilities.bfloat16(), probabilities[:, None].bfloat16()).dtype == torch.float32


def test_the_examples_in_the_docstrings_hold() -> None:
    module = importlib.import_module("scale_ray.losses.neighbourhood")
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    assert (failed, tried > 0) == (0, True)
