"""How sure a prediction is: the weight that cdan and mcc give an image."""

import torch
from torch import Tensor

from scale_ray.losses.term import full_precision


@full_precision
def certainty_weights(probabilities: Tensor) -> Tensor:
    """1 + exp(-H) of each prediction's entropy H, scaled so that their mean is 1.

    Entropy conditioning of Long et al., Conditional Adversarial Domain Adaptation (https://arxiv.org/abs/1705.10667);
    uncertainty reweighting of Jin et al., Minimum Class Confusion (https://arxiv.org/abs/1912.03699). The mean is taken
    over all rows, and no gradient goes through the entropy, as in TLLib.

    Args:
        probabilities: (N, K); detached here.

    Returns:
        (N,), detached: N times each image's share.

    Examples:
        >>> one_hot_and_uniform = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> certainty_weights(one_hot_and_uniform)  # 2 and 1.5, of which the mean is 1.75
        tensor([1.1429, 0.8571])
    """
    probabilities = probabilities.detach()
    weights = 1 + torch.exp(-torch.special.entr(probabilities).sum(dim=1))
    return weights / weights.mean()
