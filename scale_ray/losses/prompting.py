"""What prompts that are learnt from images are trained with (AD-CLIP, https://arxiv.org/abs/2308.05659)."""

import torch.nn.functional as F
from torch import Tensor

from scale_ray.losses.term import full_precision


@full_precision
def prediction_entropy(logits: Tensor) -> Tensor:
    """Mean Shannon entropy, in nats, of the predictions of `logits` (N, K).

    Examples:
        >>> prediction_entropy(torch.zeros(3, 4)).item() == torch.tensor(4.0).log().item()
        True
    """
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


@full_precision
def prompt_divergence(source: Tensor, target: Tensor) -> Tensor:
    """KL(target || source) of each pair of prompts' features, taken as distributions over the classes.

    Args:
        source: (N, K, E) text features of the classes in N source images' prompts.
        target: (N, K, E) of as many target images'.

    Returns:
        (N,): sum over the E features. A mean over pairs is left to the caller, who may have a worker's pairs alone.

    Raises:
        ValueError: shapes do not fit.

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
    """Mean squared difference of `mapped` (N, S, W) from `tokens` (N, S, W), which are detached: (N,).

    Raises:
        ValueError: shapes do not fit.

    Examples:
        >>> mapping_error(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 3.0]]]))
        tensor([5.])
    """
    if mapped.ndim != 3 or mapped.shape != tokens.shape:
        raise ValueError(
            f"shapes do not fit: mapped {tuple(mapped.shape)} and tokens {tuple(tokens.shape)} must both be (N, S, W)"
        )
    return (mapped - tokens.detach()).square().mean(dim=(1, 2))
