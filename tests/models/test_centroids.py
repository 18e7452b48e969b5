"""SHOT's pseudo-labels, by hand and against loops."""

import hypothesis.strategies as st
import torch
from hypothesis import given
from torch import Tensor

from scale_ray.models.centroids import centroid_labels


def loop(features: Tensor, probabilities: Tensor) -> list[int]:
    """Equations 4 to 6, one image and one class at a time."""
    unit = [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in features.tolist()]
    weights = probabilities.tolist()
    classes = range(len(weights[0]))
    labels = [max(classes, key=lambda k, row=row: row[k]) for row in weights]
    for _ in range(2):
        centroids = {}
        for k in set(labels):
            mean = [sum(w[k] * row[a] for w, row in zip(weights, unit, strict=True)) for a in range(len(unit[0]))]
            centroids[k] = [value / sum(v * v for v in mean) ** 0.5 for value in mean]
        labels = [
            max(sorted(centroids), key=lambda k, row=row: sum(a * b for a, b in zip(row, centroids[k], strict=True)))
            for row in unit
        ]
        weights = [[float(k == label) for k in classes] for label in labels]
    return labels


def test_an_image_gets_the_label_of_its_cluster_against_its_own_prediction() -> None:
    features = torch.tensor([[1.0, 0.0], [5.0, 0.5], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]).double()
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8]]).double()
    assert probabilities.argmax(dim=1).tolist() == [0, 0, 1, 1, 1]
    assert centroid_labels(features, probabilities).tolist() == [0, 0, 0, 1, 1]


def test_a_class_that_no_image_is_predicted_as_has_no_centroid() -> None:
    """All images have some probability of class 2: the centroid would lie near all of them."""
    features = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).double()
    probabilities = torch.tensor([[0.6, 0.0, 0.4], [0.42, 0.2, 0.38], [0.0, 0.6, 0.4]]).double()
    assert set(centroid_labels(features, probabilities).tolist()) == {0, 1}


@given(images=st.integers(3, 15), classes=st.integers(2, 4), seed=st.integers(0, 99))
def test_labels_are_what_loops_give(images: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, 3, generator=generator).double()
    probabilities = (2 * torch.randn(images, classes, generator=generator).double()).softmax(dim=1)
    assert centroid_labels(features, probabilities).tolist() == loop(features, probabilities)
