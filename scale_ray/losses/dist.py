"""`dist` (L_cl): contrast that pulls each query towards its class's distribution and away from the other classes'.

DistCL is the closed form of contrast with infinitely many samples drawn from one Gaussian per class (SePiCo,
https://arxiv.org/abs/2204.08808; SCALE, section 4.4.2). ProtoCL is the same without covariances. BankCL replaces the
Gaussians by the features in a memory bank. Definitions: docs/method.md, section 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.config import LossesConfig
from scale_ray.losses.term import LossTerm, StepTensors, check_classes, full_precision, given, masked_mean, threshold_of


@full_precision
def distribution_contrast(
    features: Tensor,
    labels: Tensor,
    mean: Tensor,
    covariance: Tensor,
    temperature: float,
    seen: Tensor | None = None,
) -> Tensor:
    """DistCL: logsumexp_k(q.mu_k/tau + q' S_k q / (2 tau^2)) - q.mu_y/tau, averaged over the queries.

    Args:
        features: (N, A) queries q. They must be L2-normalised: with tau = 0.1 the quadratic term has the factor 50 and
            would outweigh the similarities of longer vectors.
        labels: (N,) class y of each query; a row with a negative label is not a query.
        mean: (K, A) class means mu, of any precision; detached here.
        covariance: (K, A) diagonals or (K, A, A) full matrices S; detached here.
        temperature: tau > 0.
        seen: (K,) bool, classes that have statistics. A class without any is left out of the denominator and its rows
            are not queries. With None every class has statistics.

    Returns:
        Scalar: mean over the queries, 0 if there is none.

    Raises:
        ValueError: the temperature is not positive, or the shapes do not fit.

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
    """ProtoCL: logsumexp_k(q.mu_k/tau) - q.mu_y/tau, which is `distribution_contrast` with all covariances zero.

    Arguments, result and errors are those of `distribution_contrast`.
    """
    _check(features, labels, mean, temperature, seen)
    similarity = features @ mean.detach().to(features.dtype).T / temperature
    return _contrast(similarity, similarity, labels, seen)


@full_precision
def bank_contrast(features: Tensor, labels: Tensor, bank: Tensor, filled: Tensor, temperature: float) -> Tensor:
    """BankCL: contrast with every feature in a memory bank.

    -(1/|B_y|) sum_{b in B_y} log( e^{q.b/tau} / (e^{q.b/tau} + sum_{k != y} mean_{c in B_k} e^{q.c/tau}) ), averaged
    over the queries. B_k are the features of class k in the bank. The negatives of a class enter as the mean of their
    exponentials, as in SePiCo's paper and in the limit that gives DistCL; SePiCo's released code takes the exponential
    of their mean. Memory is needed for N x K x M similarities.

    Args:
        features: (N, A) queries q, L2-normalised.
        labels: (N,) class y of each query; a row with a negative label is not a query.
        bank: (K, M, A) features, M slots per class; detached here.
        filled: (K, M) bool, slots that hold a feature. A class without any is left out of the denominator and its rows
            are not queries.
        temperature: tau > 0.

    Returns:
        Scalar: mean over the queries, 0 if there is none.

    Raises:
        ValueError: the temperature is not positive, or the shapes do not fit.

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
    """Mean over the queries of logsumexp_k(scores) - similarity[label]; scores and similarity are (N, K)."""
    kept = labels >= 0
    chosen = labels.clamp(min=0)
    if seen is not None:
        # The lowest finite number instead of -inf keeps a row without any class, and its gradient, finite.
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
    # Target rows at or below the threshold get the label -1, so that the shape does not depend on their number.
    confident = given(step.confidence) > threshold_of(step, losses)
    features = torch.cat([given(step.source_features), given(step.target_features)])
    labels = torch.cat([step.source_labels, torch.where(confident, given(step.pseudo_labels), -1)])
    if losses.contrast == "bank":
        return bank_contrast(features, labels, given(step.bank), given(step.filled), losses.temperature)
    if losses.contrast == "proto":
        return prototype_contrast(features, labels, given(step.mean), losses.temperature, step.seen)
    covariance = given(step.covariance)
    return distribution_contrast(features, labels, given(step.mean), covariance, losses.temperature, step.seen)


TERM = LossTerm(
    _compute,
    needs=frozenset({"target", "pseudo_labels", "features", "statistics"}),
    after_warmup=True,
    reads=frozenset({"threshold", "contrast", "temperature"}),
)
