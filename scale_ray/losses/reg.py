"""`reg` (L_reg): keeps the mean feature of a batch equally similar to all classes (SCALE, section 4.4).

Definition: docs/method.md, section 3.
"""

import torch
from torch import Tensor

from scale_ray.config import LossesConfig
from scale_ray.losses.term import LossTerm, StepTensors, check_classes, full_precision, given


@full_precision
def prototype_uniformity(mean_feature: Tensor, mean: Tensor, temperature: float, seen: Tensor | None = None) -> Tensor:
    """-(1/K) sum_k log softmax_k(Qbar . mu_k / tau): cross-entropy with the uniform distribution.

    The minimum, log K, is reached if Qbar is equally similar to every class. The minus sign is the paper's. SePiCo's
    released code has the opposite sign, which pushes the mean feature towards a single class.

    Args:
        mean_feature: Qbar, (A,), or M of them, (M, A).
        mean: (K, A) class means mu, of any precision; detached here.
        temperature: tau > 0.
        seen: (K,) bool, classes that have statistics; the others are left out of the sum, of the softmax and of K.
            With None every class has statistics.

    Returns:
        Scalar: mean over the M mean features, 0 if no class has statistics.

    Raises:
        ValueError: the temperature is not positive, or the shapes do not fit.

    Examples:
        >>> prototype_uniformity(torch.tensor([1.0, 1.0]), torch.eye(2), 0.1).item() == torch.tensor(2.0).log().item()
        True
    """
    check_classes(mean, temperature, seen)
    if mean_feature.ndim not in (1, 2) or mean_feature.shape[-1] != mean.shape[1]:
        raise ValueError(f"mean_feature {tuple(mean_feature.shape)} must be (A,) or (M, A) of mean {tuple(mean.shape)}")
    if seen is None:
        seen = torch.ones(len(mean), dtype=torch.bool, device=mean.device)
    scores = torch.atleast_2d(mean_feature) @ mean.detach().to(mean_feature.dtype).T / temperature
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    losses = torch.where(seen, -scores.log_softmax(dim=1), 0).sum(dim=1) / seen.sum().clamp(min=1)
    return losses.mean()


def _compute(step: StepTensors, losses: LossesConfig) -> Tensor:
    # One term for the source and one for the target, averaged.
    domains = (given(step.source_features), given(step.target_features))
    mean = given(step.mean)
    values = [
        prototype_uniformity(_mean_feature(features, step.locations, losses), mean, losses.temperature, step.seen)
        for features in domains
    ]
    return torch.stack(values).mean()


@full_precision
def _mean_feature(features: Tensor, locations: int, losses: LossesConfig) -> Tensor:
    """reg_mean=batch: (A,), mean over all rows; reg_mean=image: (B, A), mean over the locations of each image."""
    if losses.reg_mean == "batch":
        return features.mean(dim=0)
    return features.unflatten(0, (-1, locations)).mean(dim=1)


TERM = LossTerm(
    _compute,
    needs=frozenset({"target", "features", "statistics"}),
    after_warmup=True,
    reads=frozenset({"temperature", "reg_mean"}),
)
