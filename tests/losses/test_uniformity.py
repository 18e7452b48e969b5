"""L_reg: the facts of docs/method.md, section 3, in float64."""

import math

import loop_reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from scale_ray.losses import prototype_uniformity


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hand_case() -> None:
    """K = 2, similarities 1 and 0, tau = 0.5: the logits are 2 and 0."""
    value = prototype_uniformity(
        torch.tensor([1.0, 0.0], dtype=torch.float64), torch.eye(2, dtype=torch.float64), 0.5
    ).item()
    assert value == pytest.approx(math.log(math.exp(2) + 1) - 1, abs=1e-15)
    assert value == pytest.approx(1.1269280110, abs=5e-11)


@pytest.mark.parametrize("classes", [1, 2, 5, 65])
def test_it_is_log_k_where_all_similarities_are_equal(classes: int) -> None:
    equal = torch.full((1, classes), 0.25, dtype=torch.float64)
    value = prototype_uniformity(equal, torch.eye(classes, dtype=torch.float64), 0.1)
    assert value.item() == pytest.approx(math.log(classes), abs=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_larger_than_log_k_elsewhere(seed: int) -> None:
    assert prototype_uniformity(random(seed, 4, 5), random(seed + 100, 6, 5), 0.1) > math.log(6)


@pytest.mark.parametrize("seed", range(5))
def test_its_gradient_leads_to_equal_similarities(seed: int) -> None:
    """The paper's sign; with the opposite one the mean feature runs to a single class."""
    mean = torch.nn.functional.normalize(random(seed, 3, 5), dim=1)
    query = random(seed + 50, 5).requires_grad_()
    for _ in range(2000):
        (gradient,) = torch.autograd.grad(prototype_uniformity(query, mean, 0.5), query)
        query.data.sub_(0.2 * gradient)
    similarities = mean @ query.detach()
    assert similarities.max() - similarities.min() < 1e-4
    assert prototype_uniformity(query, mean, 0.5).item() == pytest.approx(math.log(3), abs=1e-8)


def test_several_mean_features_are_averaged_over() -> None:
    queries, mean = random(0, 4, 5), random(1, 3, 5)
    one_by_one = torch.stack([prototype_uniformity(query, mean, 0.1) for query in queries]).mean()
    torch.testing.assert_close(prototype_uniformity(queries, mean, 0.1), one_by_one, rtol=1e-14, atol=0)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 4),
    dims=st.integers(1, 5),
    tau=st.floats(0.05, 5),
    seen=st.lists(st.booleans(), min_size=1, max_size=6),
)
def test_it_is_what_loops_give(seed: int, count: int, dims: int, tau: float, seen: list[bool]) -> None:
    queries, mean = random(seed, count, dims), random(seed + 1, len(seen), dims)
    value = prototype_uniformity(queries, mean, tau, torch.tensor(seen))
    expected = loop_reference.prototype_uniformity(queries.tolist(), mean.tolist(), tau, seen)
    assert value.item() == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("seen", [None, [True, False, True]], ids=["all seen", "one unseen"])
@pytest.mark.parametrize("shape", [(5,), (2, 5)], ids=str)
def test_gradients_agree_with_finite_differences(shape: tuple[int, ...], seen: list[bool] | None) -> None:
    mask = None if seen is None else torch.tensor(seen)
    query = random(1, *shape).requires_grad_()
    assert gradcheck(lambda q: prototype_uniformity(q, random(2, 3, 5), 0.5, mask), (query,))


def test_unseen_classes_do_not_count() -> None:
    query, mean = random(1, 2, 5), random(2, 4, 5)
    masked = prototype_uniformity(query, mean, 0.1, torch.tensor([True, False, True, False]))
    torch.testing.assert_close(masked, prototype_uniformity(query, mean[[0, 2]], 0.1), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_where_no_class_is_seen_value_and_gradient_are_zero(dtype: torch.dtype) -> None:
    query = random(1, 2, 5).to(dtype).requires_grad_()
    value = prototype_uniformity(query, random(2, 3, 5).to(dtype), 0.1, torch.zeros(3, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert query.grad is not None
    assert torch.equal(query.grad, torch.zeros_like(query))


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        prototype_uniformity(torch.ones(2), torch.eye(2), temperature)


@pytest.mark.parametrize(
    ("query", "mean", "seen"),
    [((3,), (2, 2), None), ((1, 1, 2), (2, 2), None), ((), (2, 2), None), ((2,), (2,), None), ((2,), (2, 2), (3,))],
)
def test_shapes_that_do_not_fit_are_refused(
    query: tuple[int, ...], mean: tuple[int, ...], seen: tuple[int, ...] | None
) -> None:
    mask = None if seen is None else torch.ones(seen, dtype=torch.bool)
    with pytest.raises(ValueError, match="must be"):
        prototype_uniformity(torch.ones(query), torch.ones(mean), 0.1, mask)
