"""Distribution alignment, by hand."""

import pytest
import torch

from scale_ray.models.alignment import Alignment


def test_the_first_batch_by_hand() -> None:
    """predicted = 0.99 * 0.5 + 0.01 * (0.8, 0.2) = (0.503, 0.497); wanted stays 0.5."""
    aligned = Alignment(2, "uniform")(torch.tensor([[0.8, 0.2]]), torch.tensor([0]))
    first, second = 0.8 / 0.503, 0.2 / 0.497
    assert aligned[0].tolist() == pytest.approx([first / (first + second), second / (first + second)], rel=1e-6)


def test_the_source_says_what_is_wanted() -> None:
    """wanted = 0.99 * 0.5 + 0.01 * (0.75, 0.25) = (0.5025, 0.4975)."""
    alignment = Alignment(2, "source")
    alignment(torch.tensor([[0.5, 0.5]]), torch.tensor([0, 0, 0, 1]))
    assert alignment.wanted.tolist() == pytest.approx([0.5025, 0.4975])
    uniform = Alignment(2, "uniform")
    uniform(torch.tensor([[0.5, 0.5]]), torch.tensor([0, 0, 0, 1]))
    assert uniform.wanted.tolist() == [0.5, 0.5]


def test_classes_that_are_predicted_as_often_as_wanted_change_nothing() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    assert torch.allclose(Alignment(2, "uniform")(probabilities, torch.tensor([0, 1])), probabilities)


def test_in_the_long_run_an_over_predicted_class_loses_weight() -> None:
    alignment = Alignment(3, "uniform")
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3]])
    for _ in range(1000):
        aligned = alignment(probabilities, torch.tensor([0]))
    assert torch.allclose(aligned.sum(dim=1), torch.ones(2))
    # p / mean(p) = (1, 1.5, 0.5), up to its sum.
    assert aligned[0].tolist() == pytest.approx([1 / 3, 0.5, 1 / 6], abs=1e-3)
    assert torch.allclose(alignment.predicted, torch.tensor([0.6, 0.2, 0.2]), atol=1e-3)


def test_its_running_means_are_its_state() -> None:
    assert Alignment(4, "source").state_dict().keys() == {"predicted", "wanted"}
