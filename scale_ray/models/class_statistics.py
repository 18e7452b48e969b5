"""Count, mean and covariance of every class, streamed batch by batch in O(K A) memory (METHOD 4).

The update is the pairwise one of Chan, Golub and LeVeque (http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf),
so a stream gives what the whole data set would, to rounding, in any order and any batching.

Every worker updates with the features of all workers. Those are B x A numbers to gather; summing counts, means and
deviations over the workers would move K x A or, with full covariances, K x A x A, and round otherwise than one worker.
"""

from typing import Literal, Self

import torch
from torch import Tensor, nn


class ClassStatistics(nn.Module):
    """Population statistics per class; buffers, so that they move, save and load with a model.

    Args:
        num_classes: K.
        feature_dim: A.
        covariance: `diagonal` keeps variances (K, A), `full` keeps matrices (K, A, A).
        decay: None counts every feature alike. A number d in [0, 1) forgets: once a class has statistics, a batch
            enters with weight 1 - d whatever its size (`statistics_window = ema`).
        dtype: of the sums; float64 keeps a stream of millions exact to float32.

    Raises:
        ValueError: a covariance or decay that is none of these.

    Attributes:
        count: (K,) float, features seen per class.
        mean: (K, A).
        covariance: (K, A) or (K, A, A), population (divided by n, not n - 1).
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
        """Merge a batch.

        Args:
            features: (N, A); detached here.
            labels: (N,) classes, 0 <= label < K.

        Raises:
            ValueError: shapes do not fit, or a label names no class (checked on the CPU, where it costs no sync).
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
        # Two passes over the batch: deviations from its own means lose no digits to large means.
        deviation = features - mean[labels]
        if self.full:
            squares = _sums_of_outer_products(deviation, labels, count)
        else:
            squares = torch.zeros_like(self.covariance).index_add_(0, labels, deviation.square())
        self._merge(count, mean, squares.div_(self._per_class(_at_least_one(count))))

    def merge(self, other: "ClassStatistics") -> Self:
        """Take in another stream's statistics, as if its features had come here; returns self.

        Raises:
            ValueError: the other has another number of classes, features, or kind of covariance.
        """
        if other.covariance.shape != self.covariance.shape:
            raise ValueError(
                f"statistics of shape {tuple(other.covariance.shape)} do not merge into {tuple(self.covariance.shape)}"
            )
        with torch.no_grad():
            self._merge(*(part.to(self.mean) for part in (other.count, other.mean, other.covariance)))
        return self

    def reset(self) -> None:
        """Forget everything (`statistics_window = epoch`)."""
        self.count.zero_()
        self.mean.zero_()
        self.covariance.zero_()

    def _merge(self, count: Tensor, mean: Tensor, covariance: Tensor) -> None:
        """Take in another population, in two passes over the covariances: full ones are large."""
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
        """(K,) made to multiply the covariance."""
        return values[:, None, None] if self.full else values[:, None]

    def extra_repr(self) -> str:
        return f"num_classes={len(self.count)}, feature_dim={self.mean.shape[1]}, full={self.full}, decay={self.decay}"


def _sums_of_outer_products(rows: Tensor, labels: Tensor, count: Tensor) -> Tensor:
    """Sum of x x' over the rows x (N, A) of every class: (K, A, A). No loop over classes, no host sync.

    Rows are laid class by class into groups, short ones filled up with zeros, and every group is one product of a
    batched one. A group holds as many rows as a class has on average: groups are never more than N and K together,
    and the K x A x A sums are written about twice, where an outer product of every row would write them N / K times.
    """
    number, classes = len(rows), len(count)
    size = max(1, -(-number // classes))
    groups = (number + min(number, classes) * (size - 1)) // size  # the sum of count / size, each rounded up, at most
    count = count.long()
    groups_of = (count + size - 1) // size
    order = labels.argsort(stable=True)
    labels = labels[order]
    place = torch.arange(number, device=labels.device) - (count.cumsum(0) - count)[labels]  # 0, 1, 2 ... of its class
    group = (groups_of.cumsum(0) - groups_of)[labels] + place // size
    filled = rows.new_zeros(groups, size, rows.shape[1])
    filled[group, place % size] = rows[order]
    class_of = labels.new_zeros(groups)  # of a group without rows: whichever, its product is zero
    class_of[group] = labels
    return rows.new_zeros(classes, *[rows.shape[1]] * 2).index_add_(0, class_of, filled.mT @ filled)


def _at_least_one(count: Tensor) -> Tensor:
    return count.clamp(min=1)
