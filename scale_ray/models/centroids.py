"""The pseudo-labels of SHOT: the nearest class centroid of the target's own features."""

import torch
import torch.nn.functional as F
from torch import Tensor


def centroid_labels(features: Tensor, probabilities: Tensor) -> Tensor:
    """Labels (N,) of target images from the model's features and predictions on all of them.

    Liang et al., SHOT, ICML 2020 (https://arxiv.org/abs/2002.08546), equations 4 to 6: centroids are the means of the
    features weighted by the probabilities of a class; every image gets the label of the nearest one by cosine. Means of
    these labels' images are new centroids, whose labels count. As in the authors' code, a class to which no image
    belongs, by prediction at first, has no centroid.

    Args:
        features: (N, A) of any length.
        probabilities: (N, K).
    """
    classes = probabilities.shape[1]
    features = F.normalize(features, dim=1)
    weights, labels = probabilities, probabilities.argmax(dim=1)
    for _ in range(2):
        centroids = F.normalize(weights.T @ features, dim=1)  # the length of a centroid changes no cosine
        empty = F.one_hot(labels, classes).sum(dim=0) == 0
        labels = (features @ centroids.T).masked_fill(empty, -torch.inf).argmax(dim=1)
        weights = F.one_hot(labels, classes).to(features.dtype)
    return labels
