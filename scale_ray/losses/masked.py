"""Self-training on masked images (MIC, https://arxiv.org/abs/2212.01322)."""

import torch.nn.functional as F
from torch import Tensor

from scale_ray.losses.term import full_precision


@full_precision
def weighted_self_training(student_logits: Tensor, pseudo_labels: Tensor, confidence: Tensor) -> Tensor:
    """Cross-entropy with all pseudo-labels, each weighted by its confidence (MIC's classification variant).

    Args:
        student_logits: (N, K) of the masked view.
        pseudo_labels: (N,) the teacher's most probable class.
        confidence: (N,) the probability of that class; detached here.

    Returns:
        Scalar: mean over the N images.

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> logits = torch.zeros(2, 4)
        >>> labels, confidence = torch.tensor([0, 1]), torch.tensor([1.0, 0.5])
        >>> round(weighted_self_training(logits, labels, confidence).item(), 4)  # 3/4 log(4)
        1.0397
    """
    if student_logits.ndim != 2 or confidence.shape != student_logits.shape[:1]:
        raise ValueError(
            f"shapes do not fit: student_logits {tuple(student_logits.shape)} must be (N, K), "
            f"confidence {tuple(confidence.shape)} (N,)"
        )
    return (confidence.detach() * F.cross_entropy(student_logits, pseudo_labels, reduction="none")).mean()
