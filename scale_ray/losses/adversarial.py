"""What adversarial methods are made of: a reversed gradient, a discriminator's loss, and maps of what it is given."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.losses.term import full_precision


def reverse_gradient(features: Tensor, coefficient: float) -> Tensor:
    """`features` unchanged; their gradient is -coefficient times the plain one.

    Ganin et al., Domain-Adversarial Training of Neural Networks (https://arxiv.org/abs/1505.07818), section 4.2.
    """
    reversed_: Tensor = _Reverse.apply(features, coefficient)
    return reversed_


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, coefficient: float) -> Tensor:
        ctx.coefficient = coefficient
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.coefficient * gradient, None


def reversal_coefficient(progress: float, gamma: float) -> float:
    """2 / (1 + exp(-gamma p)) - 1: from 0 at progress p = 0 towards 1 (Ganin et al., section 5.2.2).

    Examples:
        >>> [round(reversal_coefficient(p, 10), 4) for p in (0, 0.1, 0.5, 1)]
        [0.0, 0.4621, 0.9866, 0.9999]
    """
    return math.tanh(gamma * progress / 2)


@full_precision
def discrimination(source_scores: Tensor, target_scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of a discriminator that should say 1 of the source and 0 of the target.

    Args:
        source_scores: (N,) logits.
        target_scores: (M,) logits.
        weights: (N + M,) of the images, source before target; detached here. None weighs all alike.

    Returns:
        Scalar: mean over the N + M images.

    Raises:
        ValueError: shapes do not fit.

    Examples:
        >>> discrimination(torch.zeros(2), torch.zeros(2)).item() == torch.tensor(2.0).log().item()
        True
    """
    scores = torch.cat([source_scores, target_scores])
    if scores.ndim != 1 or (weights is not None and weights.shape != scores.shape):
        found = None if weights is None else tuple(weights.shape)
        raise ValueError(
            f"shapes do not fit: scores {tuple(source_scores.shape)} and {tuple(target_scores.shape)} must be (N,) and "
            f"(M,), weights {found} (N + M,) or None"
        )
    domains = torch.cat([torch.ones_like(source_scores), torch.zeros_like(target_scores)])
    return F.binary_cross_entropy_with_logits(scores, domains, None if weights is None else weights.detach())


@full_precision
def multilinear_map(features: Tensor, probabilities: Tensor) -> Tensor:
    """Outer product of each image's features (N, A) and probabilities (N, K), flattened: (N, K * A).

    Long et al., Conditional Adversarial Domain Adaptation (https://arxiv.org/abs/1705.10667). No gradient reaches the
    probabilities, as in the authors' code and TLLib's.
    """
    return (probabilities.detach()[:, :, None] * features[:, None, :]).flatten(1)


@full_precision
def randomised_multilinear_map(
    features: Tensor, probabilities: Tensor, of_features: Tensor, of_probabilities: Tensor
) -> Tensor:
    """(R_f f) * (R_g g) / sqrt(d), whose inner products are in expectation those of `multilinear_map` (Long et al.).

    Args:
        features: (N, A).
        probabilities: (N, K); detached here.
        of_features: R_f', (A, d), fixed numbers of mean 0 and variance 1.
        of_probabilities: R_g', (K, d), likewise.

    Returns:
        (N, d).
    """
    return (features @ of_features) * (probabilities.detach() @ of_probabilities) / math.sqrt(of_features.shape[1])
