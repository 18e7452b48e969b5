"""Validators of a network's structure: the clusters of its features, its last layer, its boundaries between classes.

Like all validators they are pure functions of `Evidence`, and higher is better. Their random points and first centres
come from fixed seeds, so they score the same evidence with the same bits.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.models.prototypes import class_means
from scale_ray.training.evidence import Evidence, Mixed
from scale_ray.training.seeding import generator

# Points whose nearest neighbours the Hopkins statistic compares. Its authors take 5 % of the images.
HOPKINS_POINTS = 200

# Starts of k-means, of which the one with the smallest distances counts.
_STARTS = 3

# Added to the covariance of standardised features, whose mean eigenvalue is 1, before it is inverted.
REVERSE_SHRINKAGE = 1.0

# Nearest target images whose classes `coherence` compares, as many as ATDOC and AaD ask.
NEIGHBOURS = 5

_ROUNDING = 1e-9  # a standard deviation below this share of the values' magnitude counts as zero


def classami(evidence: Evidence) -> float:
    """How far the predictions on the sampled target images are the clusters of their features: about 0 to 1.

    AMI(argmax_k p, k-means(h)), the adjusted mutual information of predicted classes and K clusters of L2-normalised
    features: 1 for the same partition, 0 on average for independent ones; (MI - E[MI]) / (mean(H, H') - E[MI]).
    Musgrave, Belongie, Lim: Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain
    Adaptation, 2022 (https://arxiv.org/abs/2208.07360), section 3. K-means has fixed starts (k-means++, the best of 3)
    and does not see the predictions. It is 0 if all predictions are the same class. It expects as many clusters as
    there are classes, of similar size.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score
    from threadpoolctl import threadpool_limits

    classes = evidence.target.logits.shape[1]
    predicted = evidence.target.logits[evidence.target.sample].argmax(dim=1)
    if len(predicted.unique()) == 1:
        return 0.0
    # Sorted points make the clusters independent of the images' order, and one thread sums them in one order.
    points, place, counts = _directions(evidence.target.features).unique(dim=0, return_inverse=True, return_counts=True)
    with threadpool_limits(1):
        fitted = KMeans(min(classes, len(points)), n_init=_STARTS, random_state=0).fit(
            points.numpy(), sample_weight=counts.numpy()
        )
    return float(adjusted_mutual_info_score(predicted.numpy(), fitted.labels_[place.numpy()]))


def transfer_score(evidence: Evidence) -> float:
    """-U + H + M / log K: uniformity of the last layer, clustering of target features, mutual information; to 2.

    Yang et al.: Can We Evaluate Domain Adaptation Models Without Target-Domain Labels?, ICLR 2024
    (https://arxiv.org/abs/2305.18712). U is the mean over pairs of classes of (angle(w_i, w_j) - arccos(-1 / (K -
    1)))^2, the squared distance from the angles of a simplex, as in its authors' code. H is the Hopkins statistic of
    the sampled target features, and M the mutual information `im` of the whole target. A network without a last layer
    of class weights (prompts, a function of the user's) counts as having the identity on its logits there.
    """
    probabilities = evidence.target.logits.softmax(dim=1)
    classes = probabilities.shape[1]
    weights = torch.eye(classes).double() if evidence.class_weights is None else evidence.class_weights
    marginal = torch.special.entr(probabilities.mean(dim=0)).sum()
    information = marginal - torch.special.entr(probabilities).sum(dim=1).mean()
    return hopkins(evidence.target.features) - non_uniformity(weights) + information.item() / math.log(classes)


def non_uniformity(weights: Tensor) -> float:
    """Mean squared distance of the angles between rows (K, D), in radians, from that of a simplex, arccos(-1/(K-1))."""
    classes = len(weights)
    directions = F.normalize(weights.double(), dim=1)
    angles = (directions @ directions.T).clamp(-1, 1).acos()
    others = ~torch.eye(classes, dtype=torch.bool)
    return (angles[others] - math.acos(-1 / (classes - 1))).square().mean().item()


def hopkins(features: Tensor) -> float:
    """The Hopkins statistic u / (u + w) of points (n, D): 1/2 for uniform points, towards 1 for clusters.

    w: mean distance of HOPKINS_POINTS of the points (all, if there are fewer) to their nearest other point. u: mean
    distance of as many points, drawn uniformly from the bounding box with a fixed seed, to the nearest of the points.
    Hopkins, Skellam: A New Method for Determining the Type of Distribution of Plant Individuals, Annals of Botany 18,
    1954 (https://doi.org/10.1093/oxfordjournals.aob.a083391). 1/2 if all points are the same.
    """
    count = len(features)
    low, high = features.amin(dim=0), features.amax(dim=0)
    scale = (high - low).amax()
    if count == 1 or scale <= _ROUNDING * features.abs().amax():
        return 0.5
    points = (features - low) / scale
    numbers = generator(0, "hopkins", count)
    chosen = torch.randperm(count, generator=numbers)[:HOPKINS_POINTS]
    drawn = torch.rand(len(chosen), features.shape[1], generator=numbers, dtype=torch.float64) * ((high - low) / scale)
    to_others = torch.cdist(points[chosen], points)
    to_others[torch.arange(len(chosen)), chosen] = math.inf
    near, far = to_others.amin(dim=1).mean(), torch.cdist(drawn, points).amin(dim=1).mean()
    return (far / (far + near)).item()


def reverse(evidence: Evidence) -> float:
    """Reverse (circular) validation: source accuracy of a classifier that learnt the target's pseudo-labels; percent.

    A classifier is fitted to features h of the sampled target images and the classes predicted for them; its accuracy
    on the sampled source_val images is the score. Zhong et al.: Cross Validation Framework to Choose Amongst Models and
    Datasets for Transfer Learning, ECML PKDD 2010 (https://doi.org/10.1007/978-3-642-15939-8_35); Bruzzone, Marconcini:
    Domain Adaptation Problems, TPAMI 2010 (https://doi.org/10.1109/TPAMI.2009.57). They train the reverse classifier by
    the method itself; here it is a linear discriminant in closed form (`discriminant`), for all methods the same. It
    does not see an error that is the same in both directions, such as two classes that are swapped consistently.
    """
    found, labels = _reversed(evidence)
    return 100 * (found == labels).double().mean().item()


def _reversed(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Classes (S,) that the reverse classifier finds for the sampled source_val images, and their labels."""
    target, source = evidence.target, evidence.source_val
    predicted = target.logits[target.sample].argmax(dim=1)
    found = discriminant(target.features, predicted, source.features)
    return found, evidence.source_val_labels[source.sample]


def circular(evidence: Evidence) -> float:
    """Reverse validation in the space of the pre-trained encoder, in percent; `reverse` where it had random weights.

    The classes predicted for the sampled target images have means there; the score is the accuracy on the sampled
    source images of the nearest of these means. The space is `Evidence.whitened`. It is the same for all
    trainings, which `reverse` judges each in a space of its own making: a training that confuses two classes has also
    moved their features together. The idea of a common space is ours; the papers are those of `reverse`.
    """
    found, labels, _ = _there_and_back(evidence)
    return 100 * (found == labels).double().mean().item()


def coherence(evidence: Evidence) -> float:
    """Whether the predictions hold together on the target and lead back to the source, in percent; 0 by chance.

    The mean of two agreements, both corrected for chance as Cohen's kappa (https://doi.org/10.1177/001316446002000104):

    - of the classes that `circular` finds for source images with their labels;
    - of the class that is predicted for a sampled target image with those of its NEIGHBOURS nearest ones by cosine, in
      the space of `circular`.

    Each of the two alone has a blind side. Predictions without any adaptation lead back to the source best of all,
    however wrong they are, as they are a function of the source; but they cut through the target's clusters. Clusters
    that got each other's names hold together, but they do not lead back. A collapse to one class has neither. That
    decisions keep to clusters: Chapelle, Zien: Semi-Supervised Classification by Low Density Separation, AISTATS 2005.
    The score is ours.
    """
    found, labels, target = _there_and_back(evidence)
    predicted = evidence.target.logits[evidence.target.sample].argmax(dim=1)
    return 50 * (_above_chance(found, labels) + _with_neighbours(predicted, target))


def _there_and_back(evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
    """Classes (S,) found for source images by what is predicted on the target, their labels, and the target's space.

    The last are directions (n, D) of the sampled target images: in the encoder's whitened space or, where its weights
    were random, those of the network's own features, centred.
    """
    if evidence.whitened is None or evidence.common is None:
        own = evidence.target.features - evidence.target.features.mean(dim=0)
        return *_reversed(evidence), _directions(own)
    source, target = evidence.whitened
    predicted = evidence.target.logits[evidence.target.sample].argmax(dim=1)
    means = F.normalize(class_means(target, predicted, evidence.target.logits.shape[1]), dim=1)
    present = predicted.unique()
    return present[(source @ means[present].T).argmax(dim=1)], evidence.common.source_labels, target


def _above_chance(found: Tensor, labels: Tensor) -> float:
    """Cohen's kappa of two labellings (N,): 1 if they are the same, 0 by chance."""
    classes = int(torch.cat([found, labels]).max()) + 1
    shares = [torch.bincount(each, minlength=classes).double() / len(each) for each in (found, labels)]
    return _corrected((found == labels).double().mean().item(), (shares[0] @ shares[1]).item())


def _with_neighbours(predicted: Tensor, directions: Tensor) -> float:
    """How far images (n,) have the class of their nearest ones, by cosine of directions (n, D); 0 by chance."""
    neighbours = min(NEIGHBOURS, len(predicted) - 1)
    if neighbours == 0:
        return 0.0
    cosines = directions @ directions.T
    cosines.fill_diagonal_(-math.inf)
    nearest = predicted[cosines.topk(neighbours, dim=1).indices]
    shares = torch.bincount(predicted).double() / len(predicted)
    return _corrected((nearest == predicted[:, None]).double().mean().item(), (shares @ shares).item())


def _corrected(agreement: float, by_chance: float) -> float:
    return (agreement - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0


def discriminant(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """Classes (Q,) of the queries by linear discriminant analysis with equal priors, learnt from features and labels.

    Class k scores mu_k' S^-1 x - mu_k' S^-1 mu_k / 2 on features that are standardised by those that it learns from;
    mu_k: mean of the class, S: covariance within classes + REVERSE_SHRINKAGE times the identity. A class without a
    label is never found.

    Args:
        features: (n, D) to learn from.
        labels: (n,) int64.
        queries: (Q, D).
    """
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    deviation = torch.where(deviation > _ROUNDING * features.abs().amax(dim=0), deviation, math.inf)
    known, asked = (features - mean) / deviation, (queries - mean) / deviation
    present, place = labels.unique(return_inverse=True)
    members = F.one_hot(place, len(present)).double()
    means = members.T @ known / members.sum(dim=0)[:, None]
    within = known - means[place]
    covariance = within.T @ within / len(known) + REVERSE_SHRINKAGE * torch.eye(known.shape[1], dtype=torch.float64)
    slopes = torch.linalg.solve(covariance, means.T)
    return present[(asked @ slopes - (means.T * slopes).sum(dim=0) / 2).argmax(dim=1)]


def mixval(evidence: Evidence) -> float:
    """Share of mixed target images that are classified as the larger part of the mix, 0 to 1.

    The mean of two shares: over mixes of two images that are predicted as different classes (they probe the boundaries)
    and over mixes within a class (they probe the clusters). A share of no mix is 0, as that of a collapse to one class.
    Hu et al.: Mixed Samples as Probes for Unsupervised Model Selection in Domain Adaptation, NeurIPS 2023
    (https://openreview.net/forum?id=ackajXqei2), interpolation consistency with a share of 0.55. Its authors'
    code prints the two shares of a training; their mean is its score here.
    """
    mixed = evidence.mixed
    assert mixed is not None, "scored where there are mixed images only"
    across = mixed.labels[:, 0] != mixed.labels[:, 1]
    return (_consistent(mixed, across) + _consistent(mixed, ~across)) / 2


def _consistent(mixed: Mixed, chosen: Tensor) -> float:
    if not chosen.any():
        return 0.0
    return (mixed.logits[chosen].argmax(dim=1) == mixed.labels[chosen, 0]).double().mean().item()


def _directions(features: Tensor) -> Tensor:
    """L2-normalised rows; a row of zeros stays one. The rows are scaled first, as squares of tiny values vanish."""
    largest = features.abs().amax(dim=1, keepdim=True)
    return F.normalize(features / torch.where(largest > 0, largest, 1.0), dim=1)
