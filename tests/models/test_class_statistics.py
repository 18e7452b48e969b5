"""Streamed statistics are those of the whole data (docs/method.md, section 4)."""

from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scale_ray.models import ClassStatistics

K, A = 4, 3
KINDS = pytest.mark.parametrize("kind", ["diagonal", "full"])


def data(seed: int, count: int = 60, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Correlated features around another mean in each class, and labels; class 2 is rare."""
    numbers = np.random.default_rng(seed)
    labels = numbers.choice(K, size=count, p=[0.4, 0.3, 0.05, 0.25])
    features = numbers.normal(size=(count, A)) @ numbers.normal(size=(A, A)) + labels[:, None] + offset
    return torch.from_numpy(features), torch.from_numpy(labels)


def streamed(features: Tensor, labels: Tensor, cuts: list[int], kind: str) -> ClassStatistics:
    statistics = ClassStatistics(K, A, kind)
    for rows, classes in zip(features.tensor_split(cuts), labels.tensor_split(cuts), strict=True):
        statistics.update(rows, classes)
    return statistics


def of_numpy(features: Tensor, labels: Tensor, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and covariance of the whole data; zeros where a class is empty."""
    x, y = features.numpy(), labels.numpy()
    count, mean, covariance = np.zeros(K), np.zeros((K, A)), np.zeros((K, A, A))
    for k in np.unique(y):
        count[k], mean[k] = np.sum(y == k), x[y == k].mean(axis=0)
        covariance[k] = np.cov(x[y == k], rowvar=False, bias=True)
    if kind == "diagonal":
        covariance = np.diagonal(covariance, axis1=1, axis2=2)
    return count, mean, covariance


def assert_same(statistics: ClassStatistics, expected: ClassStatistics, tolerance: float = 1e-12) -> None:
    assert torch.equal(statistics.count, expected.count)
    torch.testing.assert_close(statistics.mean, expected.mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(statistics.covariance, expected.covariance, rtol=tolerance, atol=tolerance)


def test_hand_case() -> None:
    """Class 0 holds 1, 3 and then 8: mean 4, population variance (9 + 1 + 16) / 3."""
    statistics = ClassStatistics(2, 1)
    statistics.update(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))
    assert (statistics.mean[0].item(), statistics.covariance[0].item()) == (2.0, 1.0)
    statistics.update(torch.tensor([[8.0], [5.0]]), torch.tensor([0, 1]))
    assert statistics.count.tolist() == [3, 1]
    assert statistics.mean.flatten().tolist() == pytest.approx([4, 5], abs=1e-15)
    assert statistics.covariance.flatten().tolist() == pytest.approx([26 / 3, 0], abs=1e-14)


@KINDS
@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40), cuts=st.lists(st.integers(0, 40), max_size=8))
def test_any_stream_gives_what_numpy_gives_for_the_whole(kind: str, seed: int, count: int, cuts: list[int]) -> None:
    """Batches may be empty, and classes missing from a batch or from all of them."""
    features, labels = data(seed, count)
    statistics = streamed(features, labels, sorted(cuts), kind)
    expected_count, mean, covariance = of_numpy(features, labels, kind)
    np.testing.assert_array_equal(statistics.count, expected_count)
    np.testing.assert_array_equal(statistics.seen, expected_count > 0)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(statistics.covariance, covariance, rtol=1e-11, atol=1e-12)


@KINDS
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(30)), cuts=st.lists(st.integers(0, 30), max_size=5))
def test_the_order_of_the_stream_does_not_matter(kind: str, seed: int, order: list[int], cuts: list[int]) -> None:
    features, labels = data(seed, 30)
    expected = streamed(features, labels, [10, 20], kind)
    assert_same(streamed(features[order], labels[order], sorted(cuts), kind), expected)


@KINDS
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, 40), min_size=1, max_size=7),
    choices=st.lists(st.integers(0, 10**6), min_size=7, max_size=7),
)
def test_any_tree_of_merges_gives_the_same(kind: str, seed: int, cuts: list[int], choices: list[int]) -> None:
    features, labels = data(seed, 40)
    cuts = sorted(cuts)
    workers = [
        streamed(rows, classes, [], kind)
        for rows, classes in zip(features.tensor_split(cuts), labels.tensor_split(cuts), strict=True)
    ]
    for choice in choices:  # two neighbours at a time, until one is left
        if len(workers) > 1:
            i = choice % (len(workers) - 1)
            workers[i : i + 2] = [workers[i].merge(workers[i + 1])]
    assert_same(reduce(ClassStatistics.merge, workers), streamed(features, labels, [], kind))


@KINDS
def test_a_merge_returns_itself_and_leaves_the_other_alone(kind: str) -> None:
    features, labels = data(1)
    left, right = (streamed(features[rows], labels[rows], [], kind) for rows in (slice(0, 40), slice(40, None)))
    before = {name: value.clone() for name, value in right.state_dict().items()}
    assert left.merge(right) is left
    assert all(torch.equal(value, before[name]) for name, value in right.state_dict().items())


@KINDS
def test_large_offsets_cost_no_digits(kind: str) -> None:
    """E[x^2] - E[x]^2 would keep about four digits here; an offset of 1e6 itself rounds features at 1e-10."""
    features, labels = data(2, 400)
    shifted = streamed(features + 1e6, labels, list(range(7, 400, 7)), kind)
    expected = streamed(features, labels, [], kind)
    torch.testing.assert_close(shifted.mean, expected.mean + 1e6, rtol=1e-15, atol=0)
    torch.testing.assert_close(shifted.covariance, expected.covariance, rtol=0, atol=1e-8)


def test_float32_features_are_summed_in_float64() -> None:
    features, labels = data(3, 500, offset=100.0)
    narrow = features.float()
    assert_same(streamed(narrow, labels, [100, 333], "full"), streamed(narrow.double(), labels, [], "full"), 1e-11)


def test_more_rows_than_the_full_covariance_takes_at_a_time() -> None:
    features, labels = data(4, 1000)
    np.testing.assert_allclose(
        streamed(features, labels, [], "full").covariance, of_numpy(features, labels, "full")[2], rtol=1e-11
    )


def test_the_diagonal_is_that_of_the_full_covariance() -> None:
    features, labels = data(5)
    full, diagonal = (streamed(features, labels, [9, 30], kind) for kind in ("full", "diagonal"))
    torch.testing.assert_close(full.covariance.diagonal(dim1=1, dim2=2), diagonal.covariance, rtol=1e-13, atol=1e-15)


@KINDS
def test_covariances_are_symmetric_and_not_negative(kind: str) -> None:
    features, labels = data(6)
    covariance = streamed(features, labels, list(range(1, 60)), kind).covariance
    if kind == "diagonal":
        assert (covariance >= 0).all()
    else:
        torch.testing.assert_close(covariance, covariance.transpose(1, 2), rtol=1e-12, atol=1e-15)
        assert torch.linalg.eigvalsh(covariance).min() > -1e-12


@KINDS
def test_with_decay_a_batch_enters_with_a_fixed_weight(kind: str) -> None:
    """d = 0.9: mean <- 0.9 mean + 0.1 batch's, whatever both sizes; the covariance takes the shift in, too."""
    features, labels = data(7, 80)
    statistics = ClassStatistics(K, A, kind, decay=0.9)
    first, second = slice(0, 70), slice(70, None)
    statistics.update(features[first], labels[first])
    assert_same(statistics, streamed(features[first], labels[first], [], kind))  # a new class takes its batch whole
    statistics.update(features[second], labels[second])
    count_a, mean_a, cov_a = of_numpy(features[first], labels[first], kind)
    count_b, mean_b, cov_b = of_numpy(features[second], labels[second], kind)
    assert (count_a > 0).all()
    for k in range(K):
        weight = 0.1 if count_b[k] else 0.0
        shift = mean_a[k] - mean_b[k]
        between = np.outer(shift, shift) if kind == "full" else shift**2
        np.testing.assert_allclose(statistics.mean[k], (1 - weight) * mean_a[k] + weight * mean_b[k], rtol=1e-12)
        expected = (1 - weight) * cov_a[k] + weight * cov_b[k] + weight * (1 - weight) * between
        np.testing.assert_allclose(statistics.covariance[k], expected, rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(statistics.count, count_a + count_b)


def test_with_decay_an_absent_class_does_not_fade() -> None:
    statistics = ClassStatistics(2, 1, decay=0.5)
    statistics.update(torch.tensor([[4.0], [1.0]]), torch.tensor([0, 1]))
    statistics.update(torch.tensor([[3.0]]), torch.tensor([1]))
    assert statistics.mean.flatten().tolist() == [4.0, 2.0]


def test_with_decay_zero_only_the_last_batch_counts() -> None:
    statistics = ClassStatistics(1, 1, decay=0.0)
    statistics.update(torch.tensor([[100.0], [0.0]]), torch.tensor([0, 0]))
    statistics.update(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))
    assert (statistics.mean.item(), statistics.covariance.item()) == (2.0, 1.0)


@KINDS
def test_reset_forgets_everything(kind: str) -> None:
    features, labels = data(8)
    statistics = streamed(features + 50, labels, [20], kind)
    statistics.reset()
    assert all(torch.count_nonzero(value) == 0 for value in statistics.state_dict().values())
    assert not statistics.seen.any()
    statistics.update(features, labels)
    assert_same(statistics, streamed(features, labels, [], kind), tolerance=0)


@KINDS
def test_a_stream_continues_from_its_state_dict(kind: str) -> None:
    features, labels = data(9)
    whole = streamed(features, labels, [20], kind)
    half = streamed(features[:20], labels[:20], [], kind)
    resumed = ClassStatistics(K, A, kind)
    resumed.load_state_dict(half.state_dict())
    resumed.update(features[20:], labels[20:])
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    assert set(whole.state_dict()) == {"count", "mean", "covariance"}


def test_no_gradient_enters() -> None:
    features, labels = data(10)
    features.requires_grad_()
    statistics = streamed(features, labels, [20], "diagonal")
    assert not statistics.mean.requires_grad
    assert not statistics.covariance.requires_grad


@pytest.mark.parametrize("label", [-1, K])
def test_a_label_that_names_no_class_is_refused_and_nothing_is_merged(label: int) -> None:
    features, labels = data(11)
    statistics = streamed(features, labels, [], "diagonal")
    before = {name: value.clone() for name, value in statistics.state_dict().items()}
    with pytest.raises(ValueError, match=rf"labels must lie in 0\.\.3, got .*{label}"):
        statistics.update(features[:1], torch.tensor([label]))
    assert all(torch.equal(value, before[name]) for name, value in statistics.state_dict().items())


@pytest.mark.parametrize(("features", "labels"), [((5, 2), (5,)), ((5,), (5,)), ((5, 3), (4,)), ((5, 3), (5, 1))])
def test_shapes_that_do_not_fit_are_refused(features: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(N, 3\) and \(N,\)"):
        ClassStatistics(K, A).update(torch.zeros(features), torch.zeros(labels, dtype=torch.long))


@pytest.mark.parametrize("other", [ClassStatistics(K, A, "full"), ClassStatistics(K + 1, A), ClassStatistics(K, A + 1)])
def test_statistics_of_another_shape_do_not_merge(other: ClassStatistics) -> None:
    with pytest.raises(ValueError, match="do not merge"):
        ClassStatistics(K, A).merge(other)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="covariance must be 'diagonal' or 'full', got 'ful'"):
        ClassStatistics(K, A, "ful")  # type: ignore[arg-type]
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match="decay"):
            ClassStatistics(K, A, decay=decay)
