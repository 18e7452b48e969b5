"""DistCL and ProtoCL: the facts of docs/method.md, section 3, in float64."""

import math

import loop_reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from scale_ray.losses import distribution_contrast, prototype_contrast
from scale_ray.models import ClassStatistics

KINDS = pytest.mark.parametrize("kind", ["diagonal", "full"])


def queries(seed: int, count: int = 6, classes: int = 4, dims: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random unit queries, their labels, class means, and full covariances."""
    numbers = torch.Generator().manual_seed(seed)
    features = torch.randn(count, dims, generator=numbers, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=numbers)
    mean = torch.randn(classes, dims, generator=numbers, dtype=torch.float64) / 3
    factor = torch.randn(classes, dims, dims, generator=numbers, dtype=torch.float64) / 10
    return torch.nn.functional.normalize(features, dim=1), labels, mean, factor @ factor.transpose(1, 2)


def of_kind(covariance: Tensor, kind: str) -> Tensor:
    return covariance.diagonal(dim1=1, dim2=2) if kind == "diagonal" else covariance


def quadratic(features: Tensor, covariance: Tensor, tau: float) -> Tensor:
    """q' S_k q / (2 tau^2) for every query and class; S full."""
    return torch.einsum("na,kab,nb->nk", features, covariance, features) / (2 * tau**2)


def test_hand_case() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    mean = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    covariance = torch.tensor([[0.5], [0.25]], dtype=torch.float64)
    label = torch.tensor([0])
    assert distribution_contrast(one, label, mean, covariance, 0.5).item() == pytest.approx(1.0788897343, abs=5e-11)
    # log(e^2 + 1) - 2 without covariance
    assert prototype_contrast(one, label, mean, 0.5).item() == pytest.approx(math.log(math.exp(2) + 1) - 2, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_the_papers_two_forms_are_equal(seed: int) -> None:
    """-log of the positive's share, plus q' S_y q / (2 tau^2)."""
    features, labels, mean, covariance = queries(seed)
    tau = 0.1
    spread = quadratic(features, covariance, tau)
    share = (features @ mean.T / tau + spread).softmax(dim=1)
    rows = torch.arange(len(labels))
    second_form = (-share[rows, labels].log() + spread[rows, labels]).mean()
    first_form = distribution_contrast(features, labels, mean, covariance, tau)
    torch.testing.assert_close(first_form, second_form, rtol=1e-13, atol=0)


@KINDS
@pytest.mark.parametrize("seed", range(5))
def test_distcl_lies_above_protocl_and_the_positives_spread(seed: int, kind: str) -> None:
    features, labels, mean, covariance = queries(seed)
    covariance = of_kind(covariance, kind)
    full = torch.diag_embed(covariance) if kind == "diagonal" else covariance
    for tau in (0.1, 0.5):
        for row in range(len(features)):  # query by query: an average could hide one that breaks the bound
            query, label = features[row : row + 1], labels[row : row + 1]
            dist = distribution_contrast(query, label, mean, covariance, tau)
            assert dist > prototype_contrast(query, label, mean, tau)
            assert dist > quadratic(query, full, tau)[0, label]


@KINDS
def test_without_covariance_it_is_protocl(kind: str) -> None:
    features, labels, mean, covariance = queries(0)
    nothing = torch.zeros_like(of_kind(covariance, kind))
    assert torch.equal(
        distribution_contrast(features, labels, mean, nothing, 0.1), prototype_contrast(features, labels, mean, 0.1)
    )


def test_a_full_covariance_that_is_diagonal_gives_the_diagonal_value() -> None:
    features, labels, mean, covariance = queries(1)
    diagonal = of_kind(covariance, "diagonal")
    torch.testing.assert_close(
        distribution_contrast(features, labels, mean, torch.diag_embed(diagonal), 0.1),
        distribution_contrast(features, labels, mean, diagonal, 0.1),
        rtol=1e-14,
        atol=0,
    )


def test_it_does_not_overflow_where_exp_would() -> None:
    features, labels, mean, covariance = queries(2)
    value = distribution_contrast(features.float(), labels, mean.float() * 100, covariance.float() * 10, 0.1)
    assert math.exp(88) < float("inf")
    assert value.isfinite()
    assert value > 88


SAMPLES = 400_000


def sampled_limit(query: Tensor, label: int, mean: Tensor, covariance: Tensor, tau: float) -> tuple[float, float]:
    """-E_{q+}[log(e^{q.q+/tau} / (e^{q.q+/tau} + sum_{k != y} E e^{q.q_k/tau}))], sampled, and its standard error."""
    numbers = torch.Generator().manual_seed(11)

    def similarity(k: int) -> Tensor:
        noise = torch.randn(SAMPLES, mean.shape[1], generator=numbers, dtype=torch.float64)
        return (mean[k] + noise @ torch.linalg.cholesky(covariance[k] + 1e-15 * torch.eye(len(query))).T) @ query / tau

    negatives, variance = 0.0, 0.0
    for k in range(len(mean)):
        if k != label:
            drawn = similarity(k).exp()
            negatives += drawn.mean().item()
            variance += drawn.var().item() / SAMPLES
    positive = similarity(label)
    losses = (positive.exp() + negatives).log() - positive
    # The derivative of log(e^p + n) with n is 1 / (e^p + n), so the negatives' error enters with at most 1 / n.
    return losses.mean().item(), math.sqrt(losses.var().item() / SAMPLES + variance / negatives**2)


@pytest.mark.parametrize("seed", range(3))
def test_it_bounds_the_sampled_limit_of_infinitely_many_pairs(seed: int) -> None:
    features, labels, mean, covariance = queries(seed, count=1, classes=3, dims=3)
    tau, label = 0.5, int(labels[0])
    bound = distribution_contrast(features, labels, mean, 10 * covariance, tau).item()
    limit, error = sampled_limit(features[0], label, mean, 10 * covariance, tau)
    assert limit < bound + 4 * error
    # It is a bound and no equality: Jensen's gap is there, and larger than what sampling could feign.
    assert bound - limit > 4 * error


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_sampled_limit_where_positives_do_not_vary(seed: int) -> None:
    """Jensen is tight there, so this also pins the factor 1 / (2 tau^2) of the negatives."""
    features, labels, mean, covariance = queries(seed, count=1, classes=3, dims=3)
    tau, label = 0.5, int(labels[0])
    covariance = 10 * covariance
    covariance[label] = 0
    limit, error = sampled_limit(features[0], label, mean, covariance, tau)
    assert 0 < error < 1e-2
    assert distribution_contrast(features, labels, mean, covariance, tau).item() == pytest.approx(limit, abs=4 * error)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 7),
    classes=st.integers(1, 6),
    dims=st.integers(1, 5),
    tau=st.floats(0.05, 5),
    kind=st.sampled_from(["diagonal", "full"]),
    data=st.data(),
)
def test_it_is_what_loops_over_queries_and_classes_give(
    seed: int, count: int, classes: int, dims: int, tau: float, kind: str, data: st.DataObject
) -> None:
    features, _, mean, covariance = queries(seed, count, classes, dims)
    labels = data.draw(st.lists(st.integers(-1, classes - 1), min_size=count, max_size=count))
    seen = data.draw(st.lists(st.booleans(), min_size=classes, max_size=classes))
    covariance = of_kind(covariance, kind)
    mask = torch.tensor(seen)
    dist = distribution_contrast(features, torch.tensor(labels), mean, covariance, tau, mask)
    expected = loop_reference.distribution_contrast(
        features.tolist(), labels, mean.tolist(), covariance.tolist(), tau, seen
    )
    assert dist.item() == pytest.approx(expected, rel=1e-11, abs=1e-11)
    proto = prototype_contrast(features, torch.tensor(labels), mean, tau, mask)
    expected = loop_reference.distribution_contrast(
        features.tolist(), labels, mean.tolist(), torch.zeros_like(mean).tolist(), tau, seen
    )
    assert proto.item() == pytest.approx(expected, rel=1e-11, abs=1e-11)


@KINDS
@pytest.mark.parametrize("seen", [None, [True, False, True, True]], ids=["all seen", "one unseen"])
def test_gradients_agree_with_finite_differences(kind: str, seen: list[bool] | None) -> None:
    features, labels, mean, covariance = queries(3)
    labels[0] = -1
    features.requires_grad_()
    covariance = of_kind(covariance, kind)
    mask = None if seen is None else torch.tensor(seen)
    assert gradcheck(lambda q: distribution_contrast(q, labels, mean, covariance, 0.3, mask), (features,))
    assert gradcheck(lambda q: prototype_contrast(q, labels, mean, 0.3, mask), (features,))


def test_a_step_against_the_gradient_nears_the_own_class() -> None:
    features, labels, mean, covariance = queries(4)
    features.requires_grad_()
    distribution_contrast(features, labels, mean, 0 * covariance, 0.1).backward()
    assert features.grad is not None
    moved = features.detach() - 0.1 * features.grad
    rows = torch.arange(len(labels))

    def share(q: Tensor) -> Tensor:
        return (q @ mean.T).softmax(dim=1)[rows, labels]

    assert (share(moved) > share(features.detach())).all()


@KINDS
def test_an_unseen_class_leaves_the_denominator_and_gives_no_query(kind: str) -> None:
    """As if neither the class nor its queries were there."""
    features, _, mean, covariance = queries(5)
    covariance = of_kind(covariance, kind)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    seen = torch.tensor([True, True, True, False])
    asked = labels < 3
    masked = distribution_contrast(features, labels, mean, covariance, 0.1, seen)
    smaller = distribution_contrast(features[asked], labels[asked], mean[:3], covariance[:3], 0.1)
    torch.testing.assert_close(masked, smaller, rtol=1e-14, atol=0)
    assert masked != distribution_contrast(features, labels, mean, covariance, 0.1)


@pytest.mark.parametrize(
    ("labels", "seen"),
    [([0, 1, 2], [False] * 4), ([-1, -1, -1], None), ([0, 0, 0], [False, True, True, True])],
    ids=["no class is seen", "no query has a label", "no query's class is seen"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_without_a_query_value_and_gradient_are_zero(
    labels: list[int], seen: list[bool] | None, dtype: torch.dtype
) -> None:
    features, _, mean, covariance = (value.to(dtype) for value in queries(6, count=3))
    features.requires_grad_()
    mask = None if seen is None else torch.tensor(seen)
    value = distribution_contrast(features, torch.tensor(labels), mean, covariance, 0.1, mask)
    value.backward()
    assert value == 0
    assert features.grad is not None
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_a_negative_label_gives_no_query() -> None:
    features, labels, mean, covariance = queries(7)
    ignored = labels.clone()
    ignored[[1, 4]] = -1
    kept = ignored >= 0
    torch.testing.assert_close(
        distribution_contrast(features, ignored, mean, covariance, 0.1),
        distribution_contrast(features[kept], labels[kept], mean, covariance, 0.1),
        rtol=1e-14,
        atol=0,
    )


@pytest.mark.parametrize("temperature", [0, -0.1, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    features, labels, mean, covariance = queries(0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        distribution_contrast(features, labels, mean, covariance, temperature)
    with pytest.raises(ValueError, match="temperature must be positive"):
        prototype_contrast(features, labels, mean, temperature)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("features", (6, 4)),
        ("features", (5,)),
        ("features", (7, 5)),
        ("labels", (6, 1)),
        ("mean", (5,)),
        ("mean", (4, 6)),
        ("seen", (5,)),
        ("seen", (1,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    features, labels, mean, covariance = queries(0)
    arguments = {"features": features, "labels": labels, "mean": mean, "temperature": 0.1, name: torch.ones(shape)}
    with pytest.raises(ValueError, match="shapes do not fit"):
        distribution_contrast(**arguments, covariance=covariance)
    with pytest.raises(ValueError, match="shapes do not fit"):
        prototype_contrast(**arguments)


@pytest.mark.parametrize("shape", [(4,), (1, 5), (4, 5, 1), (5, 4, 4), (4, 5, 5, 5)])
def test_a_covariance_that_fits_no_class_is_refused(shape: tuple[int, ...]) -> None:
    features, labels, mean, _ = queries(0)
    with pytest.raises(ValueError, match=r"covariance \(.*\) fits neither"):
        distribution_contrast(features, labels, mean, torch.zeros(shape), 0.1)


def test_statistics_may_have_more_precision_than_features() -> None:
    """As ClassStatistics keeps float64 and networks give float32."""
    statistics = ClassStatistics(2, 2)
    statistics.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    loss = distribution_contrast(
        torch.tensor([[1.0, 0.0]]), torch.tensor([0]), statistics.mean, statistics.covariance, 0.5, statistics.seen
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(math.exp(2) + 1) - 2, rel=1e-6)
