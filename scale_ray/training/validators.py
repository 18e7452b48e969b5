"""Validators: scores of a network on the target, computed without target labels (docs/method.md, section 7).

Every validator is a pure function of `Evidence`, and higher is better for all of them; the sign is changed where a
paper minimises. Only scores of trainings on the same domain pair are comparable.

All computations are in float64 on the CPU. Scores differ between devices and numbers of workers only as far as the
network's predictions do.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.records import LAST_POINT_VALIDATORS
from scale_ray.training.evidence import Evidence
from scale_ray.training.structure import circular, classami, coherence, mixval, reverse, transfer_score

SND_TEMPERATURE = 0.05  # tau, the paper's value in all experiments

# L2 penalty of DEV's discriminator: the weight of its squared norm / 2 beside its mean loss. It is the same for all
# trainings, as their scores are compared; DEV's authors choose it for each training by held-out accuracy.
DEV_L2 = 1e-2
_DEV_ITERATIONS = 500
_DEV_TOLERANCE = 1e-6  # for the largest entry of the gradient of the mean loss
_DEV_LARGEST_LOGIT = 50.0  # larger logits mean "certain" as well, and the squares of the weights must stay finite
_ROUNDING = 1e-9  # a standard deviation below this share of the values' magnitude counts as zero

Validator = Callable[[Evidence], float]


def source_val(evidence: Evidence) -> float:
    """Accuracy on the held-out source images, in percent."""
    correct = evidence.source_val.logits.argmax(dim=1) == evidence.source_val_labels
    return 100 * int(correct.sum()) / len(correct)


def entropy(evidence: Evidence) -> float:
    """Minus the mean entropy of the predictions on the target, -(1/N) sum_i H(p_i) in nats: from -log K to 0.

    Morerio, Cavazza, Murino: Minimal-Entropy Correlation Alignment for Unsupervised Deep Domain Adaptation, ICLR 2018
    (https://arxiv.org/abs/1711.10288), who minimise the entropy. It does not detect a collapse: it is highest if all
    images are assigned to one class with certainty.
    """
    return -_mean_entropy(evidence.target.logits.softmax(dim=1))


def im(evidence: Evidence) -> float:
    """Information maximisation, in nats: H(mean_i p_i) - mean_i H(p_i) over the target, from 0 to log K.

    The mutual information of image and predicted class: Shi, Sha: Information-Theoretical Learning of Discriminative
    Clusters for Unsupervised Domain Adaptation, ICML 2012 (https://arxiv.org/abs/1206.6438); as a validator: Musgrave
    et al. (https://arxiv.org/abs/2208.07360). It expects classes of similar size.
    """
    probabilities = evidence.target.logits.softmax(dim=1)
    return _mean_entropy(probabilities.mean(dim=0, keepdim=True)) - _mean_entropy(probabilities)


def snd(evidence: Evidence) -> float:
    """Soft neighbourhood density of the n sampled target images, in nats: from 0 to log(n - 1); 0 for a single image.

    It is the mean over i of the entropy of softmax_{j != i}(f_i . f_j / tau), where f_i are the class probabilities of
    image i after L2 normalisation. Saito et al.: Tune it the Right Way: Unsupervised Validation of Domain Adaptation
    via Soft Neighborhood Density, ICCV 2021, equation 2 and its entropy (https://arxiv.org/abs/2108.10860). It does not
    detect a collapse: it is highest if all predictions are the same.
    """
    sampled = evidence.target.logits[evidence.target.sample]
    if len(sampled) == 1:
        return 0.0
    directions = F.normalize(sampled.softmax(dim=1), dim=1)
    similarities = (directions @ directions.T / SND_TEMPERATURE).fill_diagonal_(-math.inf)
    return _mean_entropy(similarities.softmax(dim=1))


def bnm(evidence: Evidence) -> float:
    """Nuclear norm of the target's class probabilities P (N, K) over its upper bound: ||P||_* / sqrt(N min(N, K)).

    From 0 to 1; 1 is reached if all predictions are certain and the classes have equal size. Cui et al.: Towards
    Discriminability and Diversity: Batch Nuclear-norm Maximization under Label Insufficient Situations, CVPR 2020
    (https://arxiv.org/abs/2003.12237), minimise -||P||_* / N of a batch. This score differs from theirs by a constant
    factor, so that domains of different sizes can be averaged. The batch is the whole target, as in Musgrave et al.
    (https://arxiv.org/abs/2208.07360).
    """
    probabilities = evidence.target.logits.softmax(dim=1)
    bound = math.sqrt(len(probabilities) * min(probabilities.shape))
    return torch.linalg.svdvals(probabilities).sum().item() / bound


def dev(evidence: Evidence) -> float:
    """Minus the deep embedded validation risk, an estimate of the target error from source_val; about -1 to 0.

    You et al.: Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation, ICML 2019, algorithms 1 and 2
    (http://proceedings.mlr.press/v97/you19a.html), who minimise the risk. Each sampled source_val image has an error l
    (0 or 1) and a weight w = p_target(h) / p_source(h); the risk is their `controlled_risk`. The domain discriminator
    is linear, instead of the paper's network of three layers, so that it has one solution and needs no seed. If it
    separates the domains perfectly, all weights are near 0, and so is the score, whatever the target is like.
    """
    sampled = evidence.source_val.sample
    wrong = evidence.source_val.logits[sampled].argmax(dim=1) != evidence.source_val_labels[sampled]
    weights = density_ratio(evidence.source_train.features, evidence.target.features, evidence.source_val.features)
    return -controlled_risk(weights, wrong.double())


VALIDATORS: dict[str, Validator] = {
    "source_val": source_val,
    "entropy": entropy,
    "im": im,
    "snd": snd,
    "bnm": bnm,
    "dev": dev,
    "classami": classami,
    "transfer_score": transfer_score,
    "reverse": reverse,
    "mixval": mixval,
    "circular": circular,
    "coherence": coherence,
}


def scores(evidence: Evidence, *, last: bool = True) -> dict[str, float]:
    """The score of every validator, by name; of those in LAST_POINT_VALIDATORS only at the last point of a curve."""
    return {
        name: validator(evidence) for name, validator in VALIDATORS.items() if last or name not in LAST_POINT_VALIDATORS
    }


def controlled_risk(weights: Tensor, losses: Tensor) -> float:
    """mean(w l) + eta (mean(w) - 1) with eta = -cov(w l, w) / var(w), of weights w (N,) and losses l (N,).

    The weights are a control variate, as their expectation is 1. If all weights are equal, eta is 0.
    """
    weighted = weights * losses
    if weights.std(correction=0) <= _ROUNDING * weights.mean():
        return weighted.mean().item()
    covariance = torch.cov(torch.stack([weighted, weights]), correction=0)
    eta = -covariance[0, 1] / covariance[1, 1]
    return (weighted.mean() + eta * (weights.mean() - 1)).item()


def density_ratio(source: Tensor, target: Tensor, features: Tensor) -> Tensor:
    """Estimate the density ratio p_target(h) / p_source(h) from samples of both densities.

    The estimate is p(target | h) / p(source | h) x S / T. The probabilities are those of a logistic regression of the
    domain on standardised features. It is L2-regularised, except for the intercept, and fitted by L-BFGS from a fixed
    start.

    Args:
        source: (S, D) features of the source.
        target: (T, D) features of the target.
        features: (N, D) features h at which to estimate.

    Returns:
        (N,).
    """
    samples = torch.cat([source, target])
    mean, deviation = samples.mean(dim=0), samples.std(dim=0, correction=0)
    deviation = torch.where(deviation > _ROUNDING * samples.abs().amax(dim=0), deviation, 1.0)
    samples, queries = (samples - mean) / deviation, (features - mean) / deviation
    is_target = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).double()

    # One slope per feature, then the intercept. The gradient is explicit, as inference tensors allow no autograd.
    parameters = torch.zeros(samples.shape[1] + 1, dtype=torch.float64)
    parameters[-1] = math.log(len(target) / len(source))
    solver = torch.optim.LBFGS(
        [parameters],
        max_iter=_DEV_ITERATIONS,
        tolerance_grad=_DEV_TOLERANCE,
        tolerance_change=0.0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def mean_loss() -> float:
        slopes = parameters[:-1]
        logits = samples @ slopes + parameters[-1]
        residuals = (logits.sigmoid() - is_target) / len(is_target)
        parameters.grad = torch.cat([samples.T @ residuals + DEV_L2 * slopes, residuals.sum()[None]])
        return (F.binary_cross_entropy_with_logits(logits, is_target) + DEV_L2 / 2 * slopes @ slopes).item()

    solver.step(mean_loss)
    logits = queries @ parameters[:-1] + parameters[-1]
    return len(source) / len(target) * logits.clamp(-_DEV_LARGEST_LOGIT, _DEV_LARGEST_LOGIT).exp()


def _mean_entropy(distributions: Tensor) -> float:
    """Mean entropy in nats of the distributions in the rows (N, K)."""
    return torch.special.entr(distributions).sum(dim=1).mean().item()
