"""`im`: information maximisation on the target, certain predictions that are spread over the classes."""

import math

import torch
from torch import Tensor

from scale_ray.config import LossesConfig
from scale_ray.losses.term import LossTerm, StepTensors, full_precision, given


@full_precision
def information_maximisation(logits: Tensor) -> Tensor:
    """log K + mean_i H(p_i) - H(mean_i p_i), in nats, of a batch's predictions.

    Liang et al., SHOT, ICML 2020 (https://arxiv.org/abs/2002.08546), equations 2 and 3: the mutual information of image
    and predicted class is maximised. Without the constant it would be negative.

    Args:
        logits: (N, K) of target images.

    Returns:
        Scalar from 0 (certain, all classes equally often) to log K.

    Raises:
        ValueError: the logits are not (N, K).

    Examples:
        >>> round(information_maximisation(torch.tensor([[9.0, 0.0], [9.0, 0.0]])).item(), 4)  # log(2): one class alone
        0.6931
    """
    if logits.ndim != 2:
        raise ValueError(f"logits {tuple(logits.shape)} must be (N, K)")
    log_probabilities = logits.log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    entropy = -(probabilities * log_probabilities).sum(dim=1).mean()
    mean = probabilities.mean(dim=0)
    tiny = torch.finfo(mean.dtype).tiny  # a class that no image has a probability of contributes 0
    return math.log(logits.shape[1]) + entropy + (mean * mean.clamp(min=tiny).log()).sum()


def _compute(step: StepTensors, losses: LossesConfig) -> Tensor:
    return information_maximisation(given(step.weak_target_logits))


TERM = LossTerm(_compute, needs=frozenset({"weak_target"}), after_warmup=False)
