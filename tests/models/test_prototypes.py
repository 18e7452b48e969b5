"""Prototypes in closed form, by values computed by hand and by invariants."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from scale_ray.models.prototypes import (
    SHRINKAGES,
    best_shrinkage,
    class_means,
    drawn_folds,
    powered,
    refined,
    within_class_space,
)


def test_a_power_keeps_the_sign() -> None:
    assert powered(torch.tensor([4.0, -9.0, 0.0])).tolist() == [2.0, -3.0, 0.0]


def test_means_by_class_and_zeros_where_there_is_no_image() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    assert class_means(features, torch.tensor([0, 0, 2]), 3).tolist() == [[2.0, 1.0], [0.0, 0.0], [5.0, 5.0]]


def test_without_shrinkage_the_classes_become_round() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    mixing = torch.tensor([[3.0, 0.0], [2.5, 0.5]]).double()
    centres = 10 * torch.randn(4, 2, generator=generator).double()
    features = centres[labels] + torch.randn(400, 2, generator=generator).double() @ mixing.T
    space = within_class_space(features, labels, 4, 0.0)
    whitened = features @ space.axes * space.variances.rsqrt()
    residuals = whitened - class_means(whitened, labels, 4)[labels]
    assert torch.allclose(residuals.T @ residuals / 400, torch.eye(2).double(), atol=1e-9)


def test_with_full_shrinkage_nothing_but_the_length_changes() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0], [0.0, 1.0]]).double()
    space = within_class_space(features, torch.tensor([0, 0, 1, 1]), 2, 1.0)
    found = space.directions(features)
    assert torch.allclose(found.norm(dim=1), torch.ones(4).double())
    # An orthogonal map keeps the cosines.
    assert found[0] @ found[1] == pytest.approx(0.8)


def test_a_direction_in_which_classes_vary_counts_less() -> None:
    """Noise along the first axis, of the length of the difference along the second: only whitening tells them apart."""
    noise = torch.tensor([5.0, -5.0, 5.0, -5.0])
    features = torch.stack([noise, torch.tensor([1.0, 1.0, -1.0, -1.0])], dim=1).double()
    labels = torch.tensor([0, 0, 1, 1])
    found = within_class_space(features, labels, 2, 0.01).directions(features)
    means = torch.nn.functional.normalize(class_means(found, labels, 2), dim=1)
    assert (found @ means.T).argmax(dim=1).tolist() == labels.tolist()
    assert found[0] @ found[1] > 0.5  # of one class
    assert found[0] @ found[2] < 0  # of two


def test_refinement_moves_prototypes_to_the_clusters() -> None:
    directions = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]]), dim=1)
    first = torch.nn.functional.normalize(torch.tensor([[1.0, 0.6], [0.5, 1.0]]), dim=1)
    found = refined(first, directions)
    assert torch.allclose(found, torch.eye(2), atol=1e-6)
    assert torch.equal(refined(first, directions, rounds=0), first)


def test_a_class_without_images_keeps_its_prototype() -> None:
    directions = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    first = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert torch.equal(refined(first, directions), first)


@given(images=st.integers(3, 50), seed=st.integers(0, 9))
def test_folds_are_of_equal_size(images: int, seed: int) -> None:
    sizes = drawn_folds(images, torch.Generator().manual_seed(seed)).bincount(minlength=3)
    assert int(sizes.max() - sizes.min()) <= 1
    assert int(sizes.sum()) == images


def test_the_source_chooses_whitening_where_it_helps_and_none_where_it_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 2
    side = (2.0 * labels - 1)[:, None]
    noise = torch.randn(120, 2, generator=generator)
    folds = drawn_folds(120, generator)
    # Along the second axis the classes differ by 6 deviations, and the noise along the first is a hundred times that.
    correlated = torch.cat([100 * noise[:, :1], 3 * side + noise[:, 1:]], dim=1).double()
    assert best_shrinkage(correlated, labels, 2, folds) < 1
    apart = torch.cat([50 * side, noise[:, 1:]], dim=1).double()
    assert best_shrinkage(apart, labels, 2, folds) == max(SHRINKAGES) == 1  # all classify all: the largest
