"""What validators see: a network's predictions, and the fixed samples of images that they are about."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scale_ray.models.prototypes import powered, within_class_space
from scale_ray.training.seeding import generator

# Validators whose cost is quadratic in the number of images, or that need features, use at most so many of a split.
SAMPLE_SIZE = 2_000

# The share of the first image in a mixed one. MixVal's authors use this value in all experiments.
MIX_SHARE = 0.55

# Share of the mean variance in the covariance within classes by which the common space is whitened.
COMMON_SHRINKAGE = 0.9


@dataclass(frozen=True)
class Predictions:
    """A network's predictions on the N images of a split, in order; float64 on the CPU, finite.

    Attributes:
        logits: (N, K).
        sample: (n,) int64, ascending indices of the images with features, as `sample_indices` chooses them.
        features: (n, D) pooled encoder features h of these images.
    """

    logits: Tensor
    sample: Tensor
    features: Tensor


@dataclass(frozen=True)
class Mixed:
    """A network's predictions on M mixed target images, each MIX_SHARE of one image and the rest of another.

    Attributes:
        labels: (M, 2) int64, the classes that the network predicts for the two images.
        logits: (M, K) of the mixed image, float64 on the CPU.
    """

    labels: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Common:
    """The sampled images in a space that is the same for all trainings: that of the encoder with its first weights.

    Attributes:
        source: (S, D) pooled features of the sampled source images for training, float64 on the CPU.
        source_labels: (S,) int64, their labels.
        target: (n, D) pooled features of the sampled target images.
    """

    source: Tensor
    source_labels: Tensor
    target: Tensor


@dataclass(frozen=True)
class Evidence:
    """The input of validators. It has no field for target labels.

    Attributes:
        source_train: predictions on at most SAMPLE_SIZE training images.
        source_val: predictions on the held-out source images.
        source_val_labels: (N,) int64, labels of the held-out source images.
        target: predictions on the whole target domain.
        class_weights: (K, D') weights of the network's last layer; None if it has no such layer.
        mixed: predictions on mixed images of the target's sample; None but at the last point of a curve.
        common: the samples in the space of the pre-trained encoder; None but at the last point of a curve, and where
            the encoder had random weights.
    """

    source_train: Predictions
    source_val: Predictions
    source_val_labels: Tensor
    target: Predictions
    class_weights: Tensor | None = None
    mixed: Mixed | None = None
    common: Common | None = None

    @cached_property
    def whitened(self) -> tuple[Tensor, Tensor] | None:
        """Directions (S, D) of source and (n, D) of target images in the common space; None where there is none.

        The space is that of the method `prototypes`: signed square roots, centred by domain, whitened by the source's
        covariance within classes. It is computed once for all validators that judge in it.
        """
        if self.common is None:
            return None
        source, target = powered(self.common.source), powered(self.common.target)
        source, target = source - source.mean(dim=0), target - target.mean(dim=0)
        num_classes = self.target.logits.shape[1]
        space = within_class_space(source, self.common.source_labels, num_classes, COMMON_SHRINKAGE)
        return space.directions(source), space.directions(target)


def sample_indices(images: int) -> Tensor:
    """Ascending indices (n,) of a fixed sample of a split with `images` images: all of them, or SAMPLE_SIZE.

    They are a function of the number of images alone, so all trainings are scored on the same images of a domain.
    """
    order = torch.randperm(images, generator=generator(0, "validator_sample", images))
    return order[:SAMPLE_SIZE].sort().values


def mixed_pairs(labels: Tensor) -> Tensor:
    """Pairs (M, 2) of the indices of images to mix, from the classes (n,) that a network predicts for them.

    In a fixed random order of the images, each is mixed with the next one if that is of another class, and with the
    next one of its own class if there is one; the order is closed to a ring. So M is 2 n at most.
    """
    order = torch.randperm(len(labels), generator=generator(0, "validator_mix", len(labels)))
    across = torch.stack([order, order.roll(-1)], dim=1)
    across = across[labels[across[:, 0]] != labels[across[:, 1]]]
    rings = [order[labels[order] == label] for label in labels.unique()]
    within = [torch.stack([ring, ring.roll(-1)], dim=1) for ring in rings if len(ring) > 1]
    return torch.cat([across, *within])
