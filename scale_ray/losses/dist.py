"""`dist` (L_cl): every query is drawn to its class's distribution and pushed from the others'.

The closed form of contrast with infinitely many samples of Gaussian classes: SePiCo's DistCL
(https://arxiv.org/abs/2204.08808; SCALE, section 4.4.2). Without covariance it is ProtoCL. With samples that are kept
in a memory bank, and no Gaussian, it is BankCL.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.config import LossesConfig
from scale_ray.losses.term import LossTerm, StepTensors, check_classes, full_precision, given, masked_mean


@full_precision
def distribution_contrast(
    features: Tensor,
    labels: Tensor,
    mean: Tensor,
    covariance: Tensor,
    temperature: float,
    seen: Tensor | None = None,
) -> Tensor:
    """DistCL: logsumexp_k(q.mu_k/tau + q' S_k q / (2 tau^2)) - q.mu_y/tau, mean over the queries.

    Args:
        features: (N, A) queries q, L2-normalised: under tau^2 = 0.01 longer ones would drown in the quadratic term.
        labels: (N,) class of each query; a negative label gives no query.
        mean: (K, A) class means mu, of any precision; detached here.
        covariance: (K, A) diagonals or (K, A, A) full matrices S; detached here.
        temperature: tau > 0.
        seen: (K,) bool, the classes that have statistics; the others leave the denominator and give no query.

    Returns:
        Scalar; 0 where no query is left.

    Raises:
        ValueError: temperature is not positive, or shapes do not fit.

    Examples:
        >>> q, mu, s = torch.ones(1, 1), torch.tensor([[1.0], [0.0]]), torch.tensor([[0.5], [0.25]])
        >>> round(distribution_contrast(q, torch.tensor([0]), mu, s, 0.5).item(), 4)  # log(e^3 + e^0.5) - 2
        1.0789
    """
    _check(features, labels, mean, temperature, seen)
    covariance = covariance.detach().to(features.dtype)
    if covariance.shape == mean.shape:
        quadratic = features.square() @ covariance.T
    elif covariance.shape == (*mean.shape, mean.shape[1]):
        quadratic = torch.einsum("na,kab,nb->nk", features, covariance, features)
    else:
        raise ValueError(
            f"covariance {tuple(covariance.shape)} fits neither (K, A) nor (K, A, A) of mean {tuple(mean.shape)}"
        )
    similarity = features @ mean.detach().to(features.dtype).T / temperature
    return _contrast(similarity + quadratic / (2 * temperature**2), similarity, labels, seen)


@full_precision
def prototype_contrast(
    features: Tensor, labels: Tensor, mean: Tensor, temperature: float, seen: Tensor | None = None
) -> Tensor:
    """ProtoCL: cross-entropy of q.mu/tau with the query's class; `distribution_contrast` with no covariance.

    Arguments, result and errors as there.
    """
    _check(features, labels, mean, temperature, seen)
    similarity = features @ mean.detach().to(features.dtype).T / temperature
    return _contrast(similarity, similarity, labels, seen)


@full_precision
def bank_contrast(features: Tensor, labels: Tensor, bank: Tensor, filled: Tensor, temperature: float) -> Tensor:
    """BankCL: contrast with every feature that is kept of every class.

    -(1/|B_y|) sum_{b in B_y} log( e^{q.b/tau} / (e^{q.b/tau} + sum_{k != y} mean_{c in B_k} e^{q.c/tau}) ), mean over
    the queries. A class's negatives enter by the mean of their exp, as SePiCo's paper writes it and as DistCL's limit
    takes it; SePiCo's released code has the exp of their mean.

    Args:
        features: (N, A) queries q, L2-normalised.
        labels: (N,) class of each query; a negative label gives no query.
        bank: (K, M, A) kept features; detached here.
        filled: (K, M) bool, places that hold one; a class without any leaves the denominator and gives no query.
        temperature: tau > 0.

    Returns:
        Scalar; 0 where no query is left. Takes memory for N x K x M similarities.

    Raises:
        ValueError: temperature is not positive, or shapes do not fit.

    Examples:
        >>> q, bank = torch.ones(1, 1), torch.tensor([[[1.0], [0.0]], [[0.0], [-1.0]]])
        >>> held = torch.tensor([[True, False], [True, True]])
        >>> round(bank_contrast(q, torch.tensor([0]), bank, held, 0.5).item(), 4)  # log(e^2 + (1 + e^-2) / 2) - 2
        0.074
    """
    _check(features, labels, bank[:, 0], temperature, filled[:, 0])
    if filled.shape != bank.shape[:2]:
        raise ValueError(f"shapes do not fit: filled {tuple(filled.shape)} must be (K, M) of bank {tuple(bank.shape)}")
    lowest = torch.finfo(features.dtype).min
    seen = filled.any(dim=1)
    chosen = labels.clamp(min=0)
    similarity = torch.einsum("na,kma->nkm", features, bank.detach().to(features.dtype)) / temperature
    kept = filled.sum(dim=1).clamp(min=1).to(features.dtype)
    of_class = similarity.masked_fill(~filled, lowest).logsumexp(dim=2) - kept.log()
    own = torch.arange(len(bank), device=labels.device) == chosen[:, None]
    negatives = of_class.masked_fill(own | ~seen, lowest).logsumexp(dim=1)
    positives = similarity[torch.arange(len(features), device=labels.device), chosen]
    held = filled[chosen]
    # -log(e^p / (e^p + e^n)) = softplus(n - p)
    losses = torch.where(held, F.softplus(negatives[:, None] - positives), 0).sum(dim=1) / held.sum(dim=1).clamp(min=1)
    return masked_mean(losses, (labels >= 0) & seen[chosen])


def _contrast(scores: Tensor, similarity: Tensor, labels: Tensor, seen: Tensor | None) -> Tensor:
    """Mean over valid queries of logsumexp_k(scores) - similarity[label]."""
    kept = labels >= 0
    chosen = labels.clamp(min=0)
    if seen is not None:
        # The lowest finite number and not -inf: a row with no class at all stays finite, and so does its gradient.
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
        kept = kept & seen[chosen]
    losses = scores.logsumexp(dim=1) - similarity.gather(1, chosen[:, None]).squeeze(1)
    return masked_mean(losses, kept)


def _check(features: Tensor, labels: Tensor, mean: Tensor, temperature: float, seen: Tensor | None) -> None:
    check_classes(mean, temperature, seen)
    if features.ndim != 2 or features.shape[1] != mean.shape[1] or labels.shape != features.shape[:1]:
        raise ValueError(
            f"shapes do not fit: features {tuple(features.shape)} must be (N, A), labels {tuple(labels.shape)} (N,), "
            f"mean {tuple(mean.shape)} (K, A)"
        )


def _compute(step: StepTensors, losses: LossesConfig) -> Tensor:
    # Target queries under the threshold get the label -1: their number varies, the tensor's shape does not.
    confident = given(step.confidence) > losses.threshold
    features = torch.cat([given(step.source_features), given(step.target_features)])
    labels = torch.cat([step.source_labels, torch.where(confident, given(step.pseudo_labels), -1)])
    if losses.contrast == "bank":
        return bank_contrast(features, labels, given(step.bank), given(step.filled), losses.temperature)
    if losses.contrast == "proto":
        return prototype_contrast(features, labels, given(step.mean), losses.temperature, step.seen)
    covariance = given(step.covariance)
    return distribution_contrast(features, labels, given(step.mean), covariance, losses.temperature, step.seen)


TERM = LossTerm(_compute, needs=frozenset({"target", "pseudo_labels", "features", "statistics"}), after_warmup=True)
