"""Maximum mean discrepancy with several Gaussian kernels: a distance between the distributions of two samples."""

from collections.abc import Sequence

import torch
from torch import Tensor

from scale_ray.losses.term import full_precision

# As in TLLib, examples/domain_adaptation/image_classification/dan.py.
MULTIPLES = (0.125, 0.25, 0.5, 1.0, 2.0)


@full_precision
def multi_kernel_mmd(source: Tensor, target: Tensor, multiples: Sequence[float] = MULTIPLES) -> Tensor:
    """Unbiased estimate of the squared MK-MMD (Long et al., DAN, https://arxiv.org/abs/1502.02791, section 3.1).

    mean_{i != j} k(s_i, s_j) + mean_{i != j} k(t_i, t_j) - 2 mean_{i, j} k(s_i, t_j), where
    k(x, y) = sum_u exp(-|x - y|^2 / (2 m_u d)) and d is the mean squared distance over all (N + M)^2 pairs of rows. As
    in TLLib, all kernels have the same weight (the paper optimises the weights) and the estimate uses all pairs (the
    paper's linear-time estimate uses a part of them).

    Args:
        source: (N, A), N > 1.
        target: (M, A), M > 1.
        multiples: m_u, bandwidths as multiples of d.

    Returns:
        Scalar. As the estimate is unbiased it can be negative. The distance d is detached.

    Raises:
        ValueError: the shapes do not fit, or a sample has fewer than two rows.

    Examples:
        >>> apart = multi_kernel_mmd(torch.zeros(2, 1), torch.ones(2, 1), multiples=[1.0])  # d = 0.5: 2 - 2 exp(-1)
        >>> round(apart.item(), 4)
        1.2642
    """
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise ValueError(
            f"shapes do not fit: source {tuple(source.shape)} must be (N, A), target {tuple(target.shape)} (M, A)"
        )
    if min(len(source), len(target)) < 2:
        raise ValueError(f"{len(source)} source and {len(target)} target rows: MMD needs two or more of each")
    rows = torch.cat([source, target])
    # Differences instead of inner products: for nearly equal rows the latter would leave only rounding errors.
    distances = (rows[:, None] - rows).square().sum(dim=2)
    # The lower bound avoids 0 / 0 if all rows are equal: every distance is then 0, and so is the discrepancy.
    scale = distances.detach().mean().clamp(min=torch.finfo(distances.dtype).tiny ** 0.5)
    kernel = torch.stack([torch.exp(-distances / (2 * multiple * scale)) for multiple in multiples]).sum(dim=0)
    count = len(source)
    within = _mean_off_diagonal(kernel[:count, :count]) + _mean_off_diagonal(kernel[count:, count:])
    return within - 2 * kernel[:count, count:].mean()


def _mean_off_diagonal(kernel: Tensor) -> Tensor:
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))
