"""Weights of images by the certainty of their predictions, as cdan and mcc use them."""

import torch
from torch import Tensor

from scale_ray.losses.term import full_precision


@full_precision
def certainty_weights(probabilities: Tensor) -> Tensor:
    """1 + exp(-H), where H is the entropy of an image's prediction in nats, scaled so that the mean weight is 1.

    Entropy conditioning of Long et al., Conditional Adversarial Domain Adaptation (https://arxiv.org/abs/1705.10667);
    uncertainty reweighting of Jin et al., Minimum Class Confusion (https://arxiv.org/abs/1912.03699). As in TLLib, the
    mean is taken over all rows and the entropy is detached.

    Args:
        probabilities: (N, K); detached here.

    Returns:
        (N,) weights with mean 1, detached.

    Examples:
        >>> one_hot_and_uniform = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> certainty_weights(one_hot_and_uniform)  # 2 / 1.75 and 1.5 / 1.75
        tensor([1.1429, 0.8571])
    """
    probabilities = probabilities.detach()
    weights = 1 + torch.exp(-torch.special.entr(probabilities).sum(dim=1))
    return weights / weights.mean()
