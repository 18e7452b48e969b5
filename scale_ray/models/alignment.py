"""Distribution alignment: pseudo-labels whose classes are as frequent as they should be."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Decay of both running means per step: they remember about 100 batches, ReMixMatch's window is 128.
_DECAY = 0.99


class Alignment(nn.Module):
    """Divides class probabilities by their running mean and multiplies them by the wanted frequencies.

    Berthelot et al., ReMixMatch (https://arxiv.org/abs/1911.09785), section 3.1; for domains, AdaMatch
    (https://arxiv.org/abs/2106.04732). The running means are exponential and begin at the uniform distribution.

    Args:
        num_classes: K.
        to: the wanted frequencies. `uniform`: 1 / K each. `source`: those of the labels in the source batches, which
            `data.class_balance` has drawn.
    """

    predicted: Tensor
    wanted: Tensor

    def __init__(self, num_classes: int, to: Literal["uniform", "source"]):
        super().__init__()
        self._to = to
        for name in ("predicted", "wanted"):
            self.register_buffer(name, torch.full((num_classes,), 1 / num_classes))

    @torch.no_grad()
    def forward(self, probabilities: Tensor, source_labels: Tensor) -> Tensor:
        """Aligned probabilities (B, K); also updates the running means.

        Args:
            probabilities: (B, K) of the global target batch.
            source_labels: (B,) of the global source batch.
        """
        self.predicted.lerp_(probabilities.mean(dim=0).to(self.predicted.dtype), 1 - _DECAY)
        if self._to == "source":
            drawn = F.one_hot(source_labels, len(self.wanted)).to(self.wanted.dtype).mean(dim=0)
            self.wanted.lerp_(drawn, 1 - _DECAY)
        aligned = probabilities * (self.wanted / self.predicted)
        return aligned / aligned.sum(dim=1, keepdim=True)
