"""Losses that train image-conditioned prompts (AD-CLIP, https://arxiv.org/abs/2308.05659)."""

import torch.nn.functional as F
from torch import Tensor

from scale_ray.losses.term import full_precision


@full_precision
def prediction_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats of the predictions softmax(logits), for logits (N, K); a scalar, mean over the N rows.

    Examples:
        >>> prediction_entropy(torch.zeros(3, 4)).item() == torch.tensor(4.0).log().item()
        True
    """
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


@full_precision
def prompt_divergence(source: Tensor, target: Tensor) -> Tensor:
    """KL(target || source) between the text features of paired prompts, as distributions over the classes.

    For each of the E features, the softmax over the K classes is one distribution.

    Args:
        source: (N, K, E) text features of K classes in the prompts of N source images.
        target: (N, K, E) the same for N target images.

    Returns:
        (N,): per pair, the sum over the E features. The caller averages over the pairs, as a worker has only a part
        of them.

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> one, other = torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[0.0], [3.0]]]).log1p()
        >>> round(prompt_divergence(one, other).item(), 4)  # 0.2 log(0.2 / 0.5) + 0.8 log(0.8 / 0.5)
        0.1927
    """
    if source.ndim != 3 or source.shape != target.shape:
        raise ValueError(
            f"shapes do not fit: source {tuple(source.shape)} and target {tuple(target.shape)} must both be (N, K, E)"
        )
    pointwise = F.kl_div(source.log_softmax(dim=1), target.log_softmax(dim=1), reduction="none", log_target=True)
    return pointwise.sum(dim=(1, 2))


@full_precision
def mapping_error(mapped: Tensor, tokens: Tensor) -> Tensor:
    """Squared difference between `mapped` and `tokens`.

    Args:
        mapped: (N, S, W).
        tokens: (N, S, W); detached here.

    Returns:
        (N,): mean over S and W.

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> mapping_error(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 3.0]]]))
        tensor([5.])
    """
    if mapped.ndim != 3 or mapped.shape != tokens.shape:
        raise ValueError(
            f"shapes do not fit: mapped {tuple(mapped.shape)} and tokens {tuple(tokens.shape)} must both be (N, S, W)"
        )
    return (mapped - tokens.detach()).square().mean(dim=(1, 2))
