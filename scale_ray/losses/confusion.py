"""`mcc`: class confusion, how often two different classes are both predicted for the same target image."""

import torch
from torch import Tensor

from scale_ray.config import LossesConfig
from scale_ray.losses.certainty import certainty_weights
from scale_ray.losses.term import LossTerm, StepTensors, full_precision, given


@full_precision
def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Minimum class confusion: the share of the class confusion matrix that lies off the diagonal.

    Jin et al., Minimum Class Confusion (https://arxiv.org/abs/1912.03699), section 3.1. With P = softmax(logits / T)
    and the certainty weights W on a diagonal, the confusion matrix is C = P' W P. Each row of C is divided by its sum;
    the loss is the mean over the K rows of the sum of the entries off the diagonal.

    Args:
        logits: (N, K) of target images.
        temperature: T > 0.

    Returns:
        Scalar in [0, 1): 0 if every prediction is certain, (K - 1) / K if all are uniform. The certainty weights are
        detached. A class with zero probability for every image counts as fully confused and has no gradient.

    Raises:
        ValueError: the temperature is not positive, or the logits are not (N, K).

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


def _compute(step: StepTensors, losses: LossesConfig) -> Tensor:
    return class_confusion(given(step.weak_target_logits), losses.mcc_temperature)


# Of the weak view, as in the paper: on strong views the confusion is that of the views.
TERM = LossTerm(_compute, needs=frozenset({"weak_target"}), after_warmup=False, reads=frozenset({"mcc_temperature"}))
