"""The last projections of every class: a memory bank of bounded size."""

import torch
from torch import Tensor, nn


class ProjectionBank(nn.Module):
    """A ring of the newest features per class; buffers, so that it moves, saves and loads with a model.

    SePiCo's released code (https://github.com/BIT-DA/SePiCo) keeps as many, of a batch's class means: of pixels there
    are many, of images there are not.

    Args:
        num_classes: K.
        feature_dim: A.
        size: M, features kept of a class.

    Attributes:
        features: (K, M, A), float32.
        count: (K,) int64, features ever put in per class.
        filled: (K, M) bool, places that hold a feature.
    """

    features: Tensor
    count: Tensor

    def __init__(self, num_classes: int, feature_dim: int, size: int):
        super().__init__()
        self.register_buffer("features", torch.zeros(num_classes, size, feature_dim))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.long))

    @property
    def filled(self) -> Tensor:
        return torch.arange(self.features.shape[1], device=self.count.device) < self.count[:, None]

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Put features (N, A) of classes `labels` (N,) in, in their order, each in place of its class's oldest."""
        size = self.features.shape[1]
        members = nn.functional.one_hot(labels, len(self.count))
        order = members.cumsum(dim=0).gather(1, labels[:, None]).squeeze(1) - 1  # 0, 1, 2 … within the class
        total = members.sum(dim=0)
        # More of one class than there are places: writes to one place have no order, so all write what the last would.
        # To leave the others out would take their number, and a GPU's host would wait for it.
        last = order + (total[labels] - 1 - order) // size * size
        by_class = labels.argsort(stable=True)
        newest = by_class[(total.cumsum(dim=0) - total)[labels] + last]
        self.features[labels, (self.count[labels] + order) % size] = features[newest].to(self.features.dtype)
        self.count += total
