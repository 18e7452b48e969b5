"""`ce`: cross-entropy on the labelled source images. It is the only term that reads labels."""

import torch.nn.functional as F
from torch import Tensor

from scale_ray.config import LossesConfig
from scale_ray.losses.term import LossTerm, StepTensors, full_precision


@full_precision
def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the true classes.

    Args:
        logits: (N, K).
        labels: (N,) class indices.
        smoothing: share of a label that is spread over all K classes, its own included (Szegedy et al.,
            https://arxiv.org/abs/1512.00567, section 7).

    Returns:
        Scalar: mean over the N rows.
    """
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def _compute(step: StepTensors, losses: LossesConfig) -> Tensor:
    return cross_entropy(step.source_logits, step.source_labels)


TERM = LossTerm(_compute, needs=frozenset(), after_warmup=False)
