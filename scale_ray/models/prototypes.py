"""Class prototypes of the target in closed form: the source's class means, refined on the target's own clusters.

The functions are pure; `PrototypeHead` keeps what they find. Features are pooled encoder features (N, D) of one domain.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Shares of the mean variance in the covariance, of which the source chooses. Between the covariance itself, which few
# images determine badly, and no whitening.
SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

ROUNDS = 20  # of assigning and averaging; they end earlier where no assignment changes

# Logits are cosines over this temperature, as in SND (https://arxiv.org/abs/2108.10860).
TEMPERATURE = 0.05

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
    shrinkage: float | Tensor

    def directions(self, features: Tensor) -> Tensor:
        """Whitened features of length 1, (N, D)."""
        return F.normalize(features @ self.axes * self.scales(), dim=1)

    def scales(self) -> Tensor:
        """(D,) what whitening multiplies each axis by."""
        shrunk = (1 - self.shrinkage) * self.variances + self.shrinkage * self.variances.mean()
        return shrunk.clamp(min=torch.finfo(shrunk.dtype).tiny).rsqrt()


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


class PrototypeHead(nn.Module):
    """Classifies pooled encoder features by the nearest prototype. Each domain is centred at its own mean.

    Args:
        feature_dim: D.
        num_classes: K.

    Attributes:
        prototypes: (K, D) of length 1; zeros before `fit`.
    """

    source_mean: Tensor
    target_mean: Tensor
    axes: Tensor
    variances: Tensor
    prototypes: Tensor
    shrinkage: Tensor

    def __init__(self, feature_dim: int, num_classes: int):
        super().__init__()
        for name, shape in {
            "source_mean": (feature_dim,),
            "target_mean": (feature_dim,),
            "axes": (feature_dim, feature_dim),
            "variances": (feature_dim,),
            "prototypes": (num_classes, feature_dim),
            "shrinkage": (),
        }.items():
            self.register_buffer(name, torch.zeros(shape))

    def forward(self, features: Tensor, *, of_source: bool = False) -> Tensor:
        """Logits (B, K) of pooled encoder features (B, D)."""
        mean = self.source_mean if of_source else self.target_mean
        space = Space(self.axes, self.variances, self.shrinkage)
        return space.directions(powered(features.float()) - mean) @ self.prototypes.T / TEMPERATURE

    @torch.no_grad()
    def fit(self, source: Tensor, labels: Tensor, target: Tensor, generator: torch.Generator) -> None:
        """Find space and prototypes, in float64.

        Args:
            source: (N, D) pooled encoder features.
            labels: (N,) int64.
            target: (M, D).
            generator: draws the folds by which the source chooses the shrinkage.
        """
        num_classes = len(self.prototypes)
        source, target = powered(source.double()), powered(target.double())
        means = source.mean(dim=0), target.mean(dim=0)
        source, target = source - means[0], target - means[1]
        folds = drawn_folds(len(labels), generator).to(labels.device)
        shrinkage = best_shrinkage(source, labels, num_classes, folds)
        space = within_class_space(source, labels, num_classes, shrinkage)
        first = F.normalize(class_means(space.directions(source), labels, num_classes), dim=1)
        found = {
            "source_mean": means[0],
            "target_mean": means[1],
            "axes": space.axes,
            "variances": space.variances,
            "prototypes": refined(first, space.directions(target)),
            "shrinkage": torch.tensor(shrinkage),
        }
        for name, value in found.items():
            getattr(self, name).copy_(value)
