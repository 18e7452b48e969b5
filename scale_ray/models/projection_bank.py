"""A memory bank with the last projections of every class."""

import torch
from torch import Tensor, nn


class ProjectionBank(nn.Module):
    """A ring buffer of the newest features per class, kept in buffers so that it moves, saves and loads with a model.

    SePiCo's released code (https://github.com/BIT-DA/SePiCo) has a bank of the same size that stores the class means of
    batches. It works on pixels, of which a batch has many; images are few, so that here every feature is stored.

    Args:
        num_classes: K.
        feature_dim: A.
        size: M, the number of slots per class.

    Attributes:
        features: (K, M, A), float32.
        count: (K,) int64, number of features stored so far per class, overwritten ones included.
        filled: (K, M) bool, slots that hold a feature.
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
        """Store a batch in order, each feature replacing the oldest one of its class.

        Args:
            features: (N, A); detached here.
            labels: (N,) int64, class of each feature.
        """
        size = self.features.shape[1]
        members = nn.functional.one_hot(labels, len(self.count))
        order = members.cumsum(dim=0).gather(1, labels[:, None]).squeeze(1) - 1  # 0, 1, 2 … within the class
        total = members.sum(dim=0)
        # If a class has more features than slots, several features map to one slot. As the order of such writes is
        # undefined, each of them writes the last one's value. Dropping the others would need their number on the host.
        last = order + (total[labels] - 1 - order) // size * size
        by_class = labels.argsort(stable=True)
        newest = by_class[(total.cumsum(dim=0) - total)[labels] + last]
        self.features[labels, (self.count[labels] + order) % size] = features[newest].to(self.features.dtype)
        self.count += total
