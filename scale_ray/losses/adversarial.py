"""Building blocks of adversarial methods: gradient reversal, the discriminator's loss, and maps of its input."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.losses.term import full_precision


def reverse_gradient(features: Tensor, coefficient: float) -> Tensor:
    """Return `features` unchanged; multiply their gradient by -coefficient in the backward pass.

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
    """2 / (1 + exp(-gamma p)) - 1, which grows from 0 at progress p = 0 towards 1 (Ganin et al., section 5.2.2).

    Args:
        progress: p in [0, 1], the share of the training that is done.
        gamma: how fast the coefficient grows.

    Examples:
        >>> [round(reversal_coefficient(p, 10), 4) for p in (0, 0.1, 0.5, 1)]
        [0.0, 0.4621, 0.9866, 0.9999]
    """
    return math.tanh(gamma * progress / 2)


@full_precision
def discrimination(source_scores: Tensor, target_scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of a domain discriminator; the source has label 1 and the target label 0.

    Args:
        source_scores: (N,) logits of the source images.
        target_scores: (M,) logits of the target images.
        weights: (N + M,) weights of the images, source first; detached here. With None every image has weight 1.

    Returns:
        Scalar: mean over the N + M images.

    Raises:
        ValueError: the shapes do not fit.

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

    Long et al., Conditional Adversarial Domain Adaptation (https://arxiv.org/abs/1705.10667). The probabilities are
    detached, as in the authors' code and in TLLib.
    """
    return (probabilities.detach()[:, :, None] * features[:, None, :]).flatten(1)


@full_precision
def randomised_multilinear_map(
    features: Tensor, probabilities: Tensor, of_features: Tensor, of_probabilities: Tensor
) -> Tensor:
    """Random projection of `multilinear_map`: (R_f f) * (R_g g) / sqrt(d), the product being elementwise.

    The inner product of two images' projections is in expectation that of their multilinear maps. Long et al.,
    Conditional Adversarial Domain Adaptation (https://arxiv.org/abs/1705.10667).

    Args:
        features: f, (N, A).
        probabilities: g, (N, K); detached here.
        of_features: R_f transposed, (A, d): fixed random numbers with mean 0 and variance 1.
        of_probabilities: R_g transposed, (K, d): likewise.

    Returns:
        (N, d).
    """
    return (features @ of_features) * (probabilities.detach() @ of_probabilities) / math.sqrt(of_features.shape[1])
