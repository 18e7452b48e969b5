"""The bank of the target and the labels of its neighbours, by hand and against loops."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from scale_ray.models.neighbours import NEIGHBOURS, TargetBank, balanced


def turned(*degrees: float) -> Tensor:
    """Features of length 1 at these angles."""
    angles = torch.tensor(degrees).double().deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def filled(features: Tensor, probabilities: Tensor) -> TargetBank:
    bank = TargetBank(len(features), features.shape[1], probabilities.shape[1])
    bank.fill(features, probabilities)
    return bank


def random(images: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features, scores = (torch.randn(images, width, generator=generator).double() for width in (4, classes))
    return features, scores.softmax(dim=1)


def test_the_nearest_are_those_of_the_largest_cosines_and_never_the_image_itself() -> None:
    probabilities = torch.eye(8).double()
    bank = filled(turned(0, 10, 20, 30, 40, 50, 180, 190) * 3, probabilities)
    near = bank.nearest(torch.tensor([0, 6]), turned(0, 180) * 7)
    assert near.argmax(dim=2)[0].tolist() == [1, 2, 3, 4, 5]
    assert near.argmax(dim=2)[1].tolist() == [7, 5, 4, 3, 2]


def test_images_that_were_not_seen_are_no_neighbours() -> None:
    bank = TargetBank(100, 2, 3)
    assert bank.features.shape == (0, 2)  # it is empty until the first image
    rows = torch.tensor([3, 70, 41])
    bank.update(rows, turned(0, 5, 90), torch.eye(3).double())
    near = bank.nearest(rows, turned(0, 5, 90))
    assert near.shape == (3, NEIGHBOURS, 3)
    assert near.sum(dim=(1, 2)).tolist() == [2, 2, 2]  # the two others
    assert near[2].argmax(dim=1)[:2].tolist() == [1, 0]
    # Two neighbours of one class each, whose totals are equal.
    assert bank.label(rows, turned(0, 5, 90)).tolist() == [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def test_the_only_image_has_no_neighbours_and_no_label() -> None:
    bank = TargetBank(9, 2, 3)
    bank.update(torch.tensor([4]), turned(10), torch.tensor([[0.2, 0.3, 0.5]]).double())
    assert bank.label(torch.tensor([4]), turned(10)).tolist() == [[0, 0, 0]]


def test_a_bank_follows_what_is_stored_last() -> None:
    bank = filled(turned(0, 10, 20), torch.eye(3).double())
    bank.update(torch.tensor([1]), turned(90) * 2, torch.tensor([[0.5, 0.5, 0.0]]).double())
    assert torch.allclose(bank.features, turned(0, 90, 20))
    assert bank.probabilities.tolist() == [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]]


def test_balanced_by_hand() -> None:
    """Squares 0.36 and 0.16, 0.64 and 0.04: totals 1 and 0.2, so 0.36 and 0.8, 0.64 and 0.2, over their sums."""
    bank = torch.tensor([[0.6, 0.4], [0.8, 0.2], [0.0, 0.0]], dtype=torch.float64)
    found = balanced(bank, bank)
    assert found.tolist()[0] == pytest.approx([0.36 / 1.16, 0.8 / 1.16], rel=1e-12)
    assert found.tolist()[1] == pytest.approx([0.64 / 0.84, 0.2 / 0.84], rel=1e-12)
    assert found.tolist()[2] == [0, 0]


@given(images=st.integers(2, 12), classes=st.integers(2, 4), seed=st.integers(0, 99))
def test_labels_are_what_loops_give(images: int, classes: int, seed: int) -> None:
    features, probabilities = random(images, classes, seed)
    bank = filled(features, probabilities)
    asked = [seed % images, 0]
    found = bank.label(torch.tensor(asked), features[asked])
    rows, directions = probabilities.tolist(), (features / features.norm(dim=1, keepdim=True)).tolist()
    totals = [sum(row[k] ** 2 for row in rows) for k in range(classes)]
    for image, label in zip(asked, found.tolist(), strict=True):
        cosines = {
            other: sum(a * b for a, b in zip(directions[image], directions[other], strict=True))
            for other in range(images)
            if other != image
        }
        nearest = sorted(cosines, key=lambda other: -cosines[other])[:NEIGHBOURS]
        expected = [0.0] * classes
        for other in nearest:
            shares = [rows[other][k] ** 2 / totals[k] for k in range(classes)]
            expected = [
                value + share / sum(shares) / len(nearest) for value, share in zip(expected, shares, strict=True)
            ]
        assert label == pytest.approx(expected, rel=1e-9)
        assert sum(label) == pytest.approx(1, rel=1e-9)


def test_a_state_brings_its_size_along() -> None:
    features, probabilities = random(7, 3, 0)
    full, other = filled(features, probabilities), TargetBank(7, 4, 3)
    other.double().load_state_dict(full.state_dict())
    assert torch.equal(other.features, full.features)
    assert torch.equal(other.probabilities, full.probabilities)
    full.load_state_dict(TargetBank(9, 4, 3).state_dict())  # of a training that read no target
    assert full.features.shape == (0, 4)
