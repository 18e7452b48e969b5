"""Thresholds of pseudo-labels that follow the training."""

import torch
from torch import Tensor, nn

_DECAY = 0.99  # per step, as in `alignment`; FreeMatch has 0.999 for trainings of a million steps


class AdaptiveThresholds(nn.Module):
    """FreeMatch's self-adaptive thresholds: one for each class, lower where the model is less sure.

    Wang et al., FreeMatch (https://arxiv.org/abs/2205.07246), equations 5 to 8: the threshold of class c is
    level x p_c / max_k p_k. The level is a running mean of the batches' mean confidence, p a running mean of their mean
    probabilities; both begin at 1 / K. FlexMatch (https://arxiv.org/abs/2110.08263) has the idea of the ratio.

    Args:
        num_classes: K.
    """

    level: Tensor
    predicted: Tensor

    def __init__(self, num_classes: int):
        super().__init__()
        self.register_buffer("level", torch.tensor(1 / num_classes))
        self.register_buffer("predicted", torch.full((num_classes,), 1 / num_classes))

    @torch.no_grad()
    def forward(self, probabilities: Tensor) -> Tensor:
        """The threshold (B,) of each image's most probable class; also updates the running means.

        Args:
            probabilities: (B, K) of the global target batch.
        """
        confidence, labels = probabilities.max(dim=1)
        self.level.lerp_(confidence.mean().to(self.level.dtype), 1 - _DECAY)
        self.predicted.lerp_(probabilities.mean(dim=0).to(self.predicted.dtype), 1 - _DECAY)
        return (self.level * self.predicted / self.predicted.max())[labels]


def relative_threshold(threshold: float, source_logits: Tensor) -> Tensor:
    """AdaMatch's threshold, a scalar: `threshold` x the mean confidence on the source batch, detached.

    Berthelot et al., AdaMatch (https://arxiv.org/abs/2106.04732), section 3: a model that is unsure of labelled images
    is not asked for more on others.

    Args:
        threshold: tau.
        source_logits: (B, K) of the student on the source batch.
    """
    return threshold * source_logits.detach().softmax(dim=1).amax(dim=1).mean()
