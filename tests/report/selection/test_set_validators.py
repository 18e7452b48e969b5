"""ensv against a plain loop, by hand, and what must not change it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scale_ray.records import SET_VALIDATOR_NAMES
from scale_ray.report.selection.set_validators import SET_VALIDATORS


def made(seed: int, candidates: int, images: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), (candidates, images))


def scored(probabilities: np.ndarray, name: str = "ensv") -> np.ndarray:
    return SET_VALIDATORS[name](probabilities, probabilities.argmax(axis=2))


def slow_ensv(probabilities: list[list[list[float]]]) -> list[float]:
    images, classes = len(probabilities[0]), len(probabilities[0][0])
    agreed = [0] * len(probabilities)
    for image in range(images):
        total = [sum(each[image][k] for each in probabilities) for k in range(classes)]
        for candidate, each in enumerate(probabilities):
            agreed[candidate] += each[image].index(max(each[image])) == total.index(max(total))
    return [100 * count / images for count in agreed]


SHAPES = {"seed": st.integers(0, 10_000), "candidates": st.integers(1, 6), "images": st.integers(1, 12)}


@given(**SHAPES, classes=st.integers(2, 5))
@settings(deadline=None)
def test_equals_plain_loops(seed: int, candidates: int, images: int, classes: int) -> None:
    probabilities = made(seed, candidates, images, classes)
    assert scored(probabilities).tolist() == pytest.approx(slow_ensv(probabilities.tolist()))


def test_by_hand() -> None:
    """Means (0.5, 0.5 - ...) : image 1 is class 0 for the ensemble, as the first is sure; image 2 is class 1."""
    probabilities = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.4, 0.6], [0.3, 0.7]], [[0.4, 0.6], [0.6, 0.4]]])
    assert scored(probabilities).tolist() == [100, 50, 0]


@pytest.mark.parametrize("name", SET_VALIDATORS)
@given(**SHAPES)
@settings(deadline=None)
def test_neither_order_of_candidates_images_nor_classes_matters(
    name: str, seed: int, candidates: int, images: int
) -> None:
    probabilities, numbers = made(seed, candidates, images, 4), np.random.default_rng(seed + 1)
    found, order = scored(probabilities, name), numbers.permutation(candidates)
    assert len(found) == candidates
    assert np.isfinite(found).all()
    assert scored(probabilities[order], name).tolist() == pytest.approx(found[order].tolist())
    moved = probabilities[:, numbers.permutation(images)][..., numbers.permutation(4)]
    assert scored(moved, name).tolist() == pytest.approx(found.tolist())


@given(**SHAPES)
@settings(deadline=None)
def test_candidates_that_agree_or_are_alone_get_100(seed: int, candidates: int, images: int) -> None:
    one = made(seed, 1, images, 3)
    assert scored(one).tolist() == [100]
    assert scored(np.repeat(one, candidates, axis=0)).tolist() == [100] * candidates
    assert all(0 <= score <= 100 for score in scored(made(seed, candidates, images, 3)))


def test_float16_gives_the_scores_of_float64() -> None:
    probabilities = made(0, 5, 400, 10)
    assert scored(probabilities.astype(np.float16)).tolist() == pytest.approx(scored(probabilities).tolist(), abs=0.5)


def test_of_equal_rounded_probabilities_the_predicted_class_decides() -> None:
    """In float16 0.49995 and 0.50005 are one number."""
    exact = np.array([[[0.49995, 0.50005]], [[0.1, 0.9]], [[0.2, 0.8]]])
    rounded = exact.astype(np.float16)
    assert rounded[0, 0, 0] == rounded[0, 0, 1]
    assert SET_VALIDATORS["ensv"](rounded, exact.argmax(axis=2)).tolist() == [100, 100, 100]


def test_of_many_candidates_that_are_right_it_finds_the_best() -> None:
    """Right by chance 0.4 to 0.8 of 2,000 images, wrong at random: the order of the scores is that of accuracies."""
    numbers = np.random.default_rng(0)
    truth, rights = numbers.integers(0, 10, 2000), [0.4, 0.5, 0.6, 0.7, 0.8]
    labels = np.array(
        [np.where(numbers.random(2000) < right, truth, numbers.integers(0, 10, 2000)) for right in rights]
    )
    found = scored(np.eye(10)[labels])
    assert found.argsort().tolist() == [0, 1, 2, 3, 4]


def test_the_registry_has_the_names_that_records_know() -> None:
    assert tuple(SET_VALIDATORS) == SET_VALIDATOR_NAMES
