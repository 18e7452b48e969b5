"""Class confusion: how often two classes are predicted of one target image."""

import torch
from torch import Tensor

from scale_ray.losses.certainty import certainty_weights
from scale_ray.losses.term import full_precision


@full_precision
def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Minimum class confusion: the share of confusion between different classes.

    Jin et al. (https://arxiv.org/abs/1912.03699), section 3.1: with P = softmax(logits / T) and certainty weights
    W, C = P' W P, each row divided by its sum; the mean over classes of what is off the diagonal.

    Args:
        logits: (N, K) of target images.
        temperature: T > 0.

    Returns:
        Scalar in [0, 1): 0 where every prediction is certain, (K - 1) / K where all are uniform. No gradient goes
        through the weights. A class that nothing predicts counts as fully confused, without a gradient.

    Raises:
        ValueError: temperature is not positive, or logits are not (N, K).

    Examples:
        >>> class_confusion(torch.zeros(3, 4), 2.5).item()
        0.75
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if logits.ndim != 2:
        raise ValueError(f"logits {tuple(logits.shape)} must be (N, K)")
    predictions = (logits / temperature).softmax(dim=1)
    confusion = (predictions * certainty_weights(predictions)[:, None]).T @ predictions
    shares = confusion.diagonal() / confusion.sum(dim=1).clamp(min=torch.finfo(confusion.dtype).tiny)
    return 1 - shares.mean()
