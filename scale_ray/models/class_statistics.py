"""Count, mean and covariance of the features of every class, updated batch by batch.

Definition: docs/method.md, section 4. Memory is O(K A), or O(K A^2) with full covariances. The update is the pairwise
one of Chan, Golub and LeVeque (http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf): up to rounding
the result is that of the whole data set, for any order and any split into batches.

With several workers, every worker updates with the features of all workers. This gathers B x A numbers. An all-reduce
of counts, means and deviations would move K x A numbers, K x A x A with full covariances, and would round differently
from a single worker.
"""

from typing import Literal, Self

import torch
from torch import Tensor, nn


class ClassStatistics(nn.Module):
    """Population statistics per class, kept in buffers so that they move, save and load with a model.

    Args:
        num_classes: K.
        feature_dim: A.
        covariance: `diagonal` keeps variances (K, A), `full` keeps matrices (K, A, A).
        decay: None weights all features equally. A number d in [0, 1) gives an exponential moving average
            (`statistics_window=ema`): once a class has statistics, a batch enters with weight 1 - d, whatever its size.
        dtype: dtype of the statistics; float64 keeps them exact to float32 over millions of features.

    Raises:
        ValueError: `covariance` or `decay` has another value.

    Attributes:
        count: (K,) float, number of features per class.
        mean: (K, A).
        covariance: (K, A) or (K, A, A), population covariance (divided by n, not n - 1).
        seen: (K,) bool, classes with at least one feature.
    """

    count: Tensor
    mean: Tensor
    covariance: Tensor

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        covariance: Literal["diagonal", "full"] = "diagonal",
        *,
        decay: float | None = None,
        dtype: torch.dtype = torch.float64,
    ):
        super().__init__()
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay must be None or in [0, 1), got {decay}")
        if covariance not in ("diagonal", "full"):
            raise ValueError(f"covariance must be 'diagonal' or 'full', got {covariance!r}")
        self.full = covariance == "full"
        self.decay = decay
        shape = (num_classes, feature_dim, feature_dim) if self.full else (num_classes, feature_dim)
        self.register_buffer("count", torch.zeros(num_classes, dtype=dtype))
        self.register_buffer("mean", torch.zeros(num_classes, feature_dim, dtype=dtype))
        self.register_buffer("covariance", torch.zeros(shape, dtype=dtype))

    @property
    def seen(self) -> Tensor:
        return self.count > 0

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Merge a batch of features.

        Args:
            features: (N, A); detached here.
            labels: (N,) classes, 0 <= label < K.

        Raises:
            ValueError: the shapes do not fit, or a label is out of range. The range is checked for tensors on the CPU
                only, as on a GPU the host would have to wait.
        """
        num_classes, feature_dim = self.mean.shape
        if features.ndim != 2 or features.shape[1] != feature_dim or labels.shape != features.shape[:1]:
            raise ValueError(
                f"features {tuple(features.shape)} and labels {tuple(labels.shape)} must be (N, {feature_dim}) and (N,)"
            )
        if labels.device.type == "cpu" and len(labels):
            lowest, highest = int(labels.min()), int(labels.max())
            if lowest < 0 or highest >= num_classes:
                raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {lowest}..{highest}")
        features = features.to(self.mean.dtype)
        count = torch.zeros_like(self.count).index_add_(0, labels, torch.ones_like(features[:, 0]))
        mean = torch.zeros_like(self.mean).index_add_(0, labels, features) / _at_least_one(count)[:, None]
        # Two passes over the batch: deviations from its own means stay accurate if the means are large.
        deviation = features - mean[labels]
        if self.full:
            squares = _sums_of_outer_products(deviation, labels, count)
        else:
            squares = torch.zeros_like(self.covariance).index_add_(0, labels, deviation.square())
        self._merge(count, mean, squares.div_(self._per_class(_at_least_one(count))))

    def merge(self, other: "ClassStatistics") -> Self:
        """Merge other statistics, with the same result as updating with their features.

        Returns:
            self.

        Raises:
            ValueError: `other` has another number of classes or features, or another kind of covariance.
        """
        if other.covariance.shape != self.covariance.shape:
            raise ValueError(
                f"covariances {tuple(other.covariance.shape)} do not merge into {tuple(self.covariance.shape)}: K, A "
                "and the kind of covariance must be the same"
            )
        with torch.no_grad():
            self._merge(*(part.to(self.mean) for part in (other.count, other.mean, other.covariance)))
        return self

    def reset(self) -> None:
        """Discard all statistics (`statistics_window=epoch` does so at the start of every epoch)."""
        self.count.zero_()
        self.mean.zero_()
        self.covariance.zero_()

    def _merge(self, count: Tensor, mean: Tensor, covariance: Tensor) -> None:
        """Merge another population in place, with only two passes over the covariances, as full ones are large."""
        weight = count / _at_least_one(count + self.count)
        if self.decay is not None:
            weight = torch.where(self.seen & (count > 0), 1 - self.decay, weight)
        w_mean, w_cov = weight[:, None], self._per_class(weight)
        shift = self.mean - mean
        between = w_mean * (1 - w_mean) * shift
        self.covariance.lerp_(covariance, w_cov)
        if self.full:
            self.covariance.addcmul_(between[:, :, None], shift[:, None, :])
        else:
            self.covariance.addcmul_(between, shift)
        self.mean.sub_(w_mean * shift)
        self.count.add_(count)

    def _per_class(self, values: Tensor) -> Tensor:
        """Reshape (K,) so that it broadcasts with the covariance."""
        return values[:, None, None] if self.full else values[:, None]

    def extra_repr(self) -> str:
        return f"num_classes={len(self.count)}, feature_dim={self.mean.shape[1]}, full={self.full}, decay={self.decay}"


def _sums_of_outer_products(rows: Tensor, labels: Tensor, count: Tensor) -> Tensor:
    """(K, A, A): for every class, the sum of x x' over its rows x, without a loop over classes or a host sync.

    The rows (N, A) are sorted by class and packed into groups of equal size, padded with zeros; one batched matrix
    product handles all groups. The group size is the average number of rows per class. There are then at most N + K
    groups, and the K x A x A results are written about twice; an outer product per row would write them N / K times.
    """
    number, classes = len(rows), len(count)
    size = max(1, -(-number // classes))
    groups = (number + min(number, classes) * (size - 1)) // size  # upper bound of the sum of ceil(count / size)
    count = count.long()
    groups_per_class = (count + size - 1) // size
    order = labels.argsort(stable=True)
    labels = labels[order]
    rank = torch.arange(number, device=labels.device) - (count.cumsum(0) - count)[labels]  # 0, 1, 2 ... in its class
    group = (groups_per_class.cumsum(0) - groups_per_class)[labels] + rank // size
    packed = rows.new_zeros(groups, size, rows.shape[1])
    packed[group, rank % size] = rows[order]
    class_of_group = labels.new_zeros(groups)  # a group without rows may have any class: its product is zero
    class_of_group[group] = labels
    return rows.new_zeros(classes, *[rows.shape[1]] * 2).index_add_(0, class_of_group, packed.mT @ packed)


def _at_least_one(count: Tensor) -> Tensor:
    return count.clamp(min=1)
