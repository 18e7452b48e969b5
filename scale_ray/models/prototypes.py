"""Class prototypes of the target in closed form: the source's class means, refined on the target's own clusters.

All functions are pure and compute in float64. Features are pooled encoder features (N, D) of one domain.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Shares of the mean variance in the covariance, of which the source chooses. Between the covariance itself, which few
# images determine badly, and no whitening.
SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

ROUNDS = 20  # of assigning and averaging; they end earlier where no assignment changes

_FOLDS = 3


class Space(NamedTuple):
    """A linear map of features in which classes are round: the source's covariance within classes is the identity.

    Attributes:
        axes: (D, D) orthonormal eigenvectors of that covariance, in columns.
        variances: (D,) its eigenvalues, ascending.
        shrinkage: s; the variances that count are (1 - s) variances + s mean(variances).
    """

    axes: Tensor
    variances: Tensor
    shrinkage: float

    def directions(self, features: Tensor) -> Tensor:
        """Whitened features of length 1, (N, D)."""
        shrunk = (1 - self.shrinkage) * self.variances + self.shrinkage * self.variances.mean()
        return F.normalize(features @ self.axes * shrunk.clamp(min=torch.finfo(shrunk.dtype).tiny).rsqrt(), dim=1)


def powered(features: Tensor) -> Tensor:
    """Signed square root: it brings pooled activations, which have long tails, nearer to a normal distribution.

    Perronnin et al., Improving the Fisher Kernel, ECCV 2010 (https://doi.org/10.1007/978-3-642-15561-1_11), 3.1.
    """
    return features.sign() * features.abs().sqrt()


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Means (K, D) of the features (N, D) by label (N,); zeros for a class without an image."""
    members = F.one_hot(labels, num_classes).to(features.dtype)
    return members.T @ features / members.sum(dim=0)[:, None].clamp(min=1)


def within_class_space(features: Tensor, labels: Tensor, num_classes: int, shrinkage: float) -> Space:
    """The space of the covariance of features (N, D) about the means of their classes.

    It is that of linear discriminant analysis; for speakers, Hatch et al., Within-Class Covariance Normalization, 2006
    (https://doi.org/10.21437/Interspeech.2006-183).
    """
    residuals = features - class_means(features, labels, num_classes)[labels]
    variances, axes = torch.linalg.eigh(residuals.T @ residuals / len(features))
    return Space(axes, variances.clamp(min=0), shrinkage)


def best_shrinkage(features: Tensor, labels: Tensor, num_classes: int, folds: Tensor) -> float:
    """Of SHRINKAGES, that with which nearest means classify most held-out images of the source; the largest of equals.

    Args:
        features: (N, D) of the source.
        labels: (N,) int64.
        num_classes: K.
        folds: (N,) int64, the part of each image; each part is classified by the means of the others.
    """
    correct = dict.fromkeys(SHRINKAGES, 0)
    for fold in folds.unique():
        known, asked = folds != fold, folds == fold
        space = within_class_space(features[known], labels[known], num_classes, 0.0)
        for shrinkage in SHRINKAGES:
            tried = space._replace(shrinkage=shrinkage)
            means = class_means(tried.directions(features[known]), labels[known], num_classes)
            found = (tried.directions(features[asked]) @ F.normalize(means, dim=1).T).argmax(dim=1)
            correct[shrinkage] += int((found == labels[asked]).sum())
    return max(SHRINKAGES, key=lambda shrinkage: (correct[shrinkage], shrinkage))


def drawn_folds(images: int, generator: torch.Generator) -> Tensor:
    """The part (N,) of each image, for `best_shrinkage`: parts of equal size in a random order."""
    return torch.arange(images)[torch.randperm(images, generator=generator)] % _FOLDS


def refined(prototypes: Tensor, directions: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Prototypes (K, D) that are means of the images nearest to them: spherical k-means from the given ones.

    As the pseudo-labels of SHOT (Liang et al., ICML 2020, https://arxiv.org/abs/2002.08546, equations 4 to 6), with
    hard labels from the first round on. A class that loses all its images keeps its prototype.

    Args:
        prototypes: (K, D) of length 1.
        directions: (N, D) target features of length 1.
        rounds: at most so many.
    """
    assigned = None
    for _ in range(rounds):
        found = (directions @ prototypes.T).argmax(dim=1)
        if assigned is not None and torch.equal(found, assigned):
            break
        assigned = found
        means = F.normalize(class_means(directions, found, len(prototypes)), dim=1)
        filled = torch.bincount(found, minlength=len(prototypes)) > 0
        prototypes = torch.where(filled[:, None], means, prototypes)
    return prototypes
