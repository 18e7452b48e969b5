"""Margin disparity: how much a second classifier disagrees with the student on the target, but not on the source."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.losses.term import full_precision

# TLLib's, which keeps the logarithm of a vanishing probability finite.
_OFFSET = 1e-6


@full_precision
def margin_disparity(
    source_logits: Tensor, source_scores: Tensor, target_logits: Tensor, target_scores: Tensor, margin: float
) -> Tensor:
    """What the auxiliary classifier of MDD minimises, and the features maximise.

    Zhang et al., Bridging Theory and Algorithm for Domain Adaptation (https://arxiv.org/abs/1904.05801), section 4.2,
    equation 30. With h the student's predicted class and q the auxiliary classifier's probabilities, it is
    -gamma mean(log q_h) on the source and -mean(log(1 - q_h)) on the target. As in TLLib, 1e-6 is added to 1 - q_h.

    Args:
        source_logits: (N, K) of the student; its predictions alone are used, so it gets no gradient.
        source_scores: (N, K) logits of the auxiliary classifier for the same images.
        target_logits, target_scores: (M, K), likewise.
        margin: gamma > 0.

    Returns:
        Scalar.

    Raises:
        ValueError: the margin is not positive, or the shapes do not fit.

    Examples:
        >>> flat = torch.zeros(1, 4)  # 4 log(4) - log(3 / 4)
        >>> round(margin_disparity(flat, flat, flat, flat, 4.0).item(), 4)
        5.8329
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    for logits, scores in ((source_logits, source_scores), (target_logits, target_scores)):
        if logits.ndim != 2 or logits.shape != scores.shape:
            raise ValueError(
                f"shapes do not fit: logits {tuple(logits.shape)} and scores {tuple(scores.shape)} must both be (N, K)"
            )
    agreement = F.cross_entropy(source_scores, source_logits.argmax(dim=1))
    of_target = target_scores.softmax(dim=1).gather(1, target_logits.argmax(dim=1, keepdim=True))
    return margin * agreement - torch.log((1 - of_target + _OFFSET).clamp(max=1)).mean()
