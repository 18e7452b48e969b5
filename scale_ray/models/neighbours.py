"""A memory bank of the target, every image's last features and class probabilities, and the nearest images in it."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of an image. ATDOC's and, on VisDA, AaD's.
NEIGHBOURS = 5


class TargetBank(nn.Module):
    """Features and class probabilities of the target's images, as they were when each was last seen.

    It is empty until the first image is stored, so that a training of which no step has read a target has the same
    state for every target.

    Args:
        images: N, the number of images of the target.
        feature_dim: A.
        num_classes: K.

    Attributes:
        features: (N, A), L2-normalised; (0, A) while the bank is empty.
        probabilities: (N, K); zeros for an image that was not seen yet; (0, K) while the bank is empty.
    """

    features: Tensor
    probabilities: Tensor

    def __init__(self, images: int, feature_dim: int, num_classes: int):
        super().__init__()
        self._images = images
        self.register_buffer("features", torch.zeros(0, feature_dim))
        self.register_buffer("probabilities", torch.zeros(0, num_classes))
        take_sizes(self, "features", "probabilities")

    @torch.no_grad()
    def fill(self, features: Tensor, probabilities: Tensor) -> None:
        """Store features (N, A) of any length and probabilities (N, K) of all images."""
        self.features, self.probabilities = F.normalize(features, dim=1), probabilities.clone()

    @torch.no_grad()
    def update(self, indices: Tensor, features: Tensor, probabilities: Tensor) -> None:
        """Store what was computed for some images; of an image that occurs twice, one row.

        Args:
            indices: (B,) int64, the images in the target domain.
            features: (B, A) of any length.
            probabilities: (B, K).
        """
        if len(self.features) == 0:
            self.features = features.new_zeros(self._images, features.shape[1])
            self.probabilities = probabilities.new_zeros(self._images, probabilities.shape[1])
        rows = on_device(indices, self.features.device)
        self.features[rows] = F.normalize(features, dim=1)
        self.probabilities[rows] = probabilities

    @torch.no_grad()
    def nearest(self, indices: Tensor, features: Tensor) -> Tensor:
        """Class probabilities (B, M, K) of the images whose features have the largest cosines with the given ones.

        M is NEIGHBOURS, or the number of other images where there are fewer. An image is no neighbour of itself. Where
        too few images were seen, the rest are zeros.

        Args:
            indices: (B,) int64, the images whose neighbours are asked for.
            features: (B, A) of any length.
        """
        rows = on_device(indices, self.features.device)
        # The lengths of the given features do not change the order.
        cosines = features.to(self.features.dtype) @ self.features.T
        unseen = self.probabilities.sum(dim=1) == 0
        cosines = cosines.masked_fill(unseen, -torch.inf).scatter(1, rows[:, None], -torch.inf)
        near = cosines.topk(min(NEIGHBOURS, self._images - 1), dim=1)
        return self.probabilities[near.indices] * (near.values > -torch.inf)[:, :, None]

    @torch.no_grad()
    def label(self, indices: Tensor, features: Tensor) -> Tensor:
        """Class probabilities (B, K) of images: the mean of their neighbours', sharpened and balanced.

        Args:
            indices, features: as in `nearest`.
        """
        near = self.nearest(indices, features)
        there = near.sum(dim=2, keepdim=True) > 0
        return balanced(near, self.probabilities).sum(dim=1) / there.sum(dim=1).clamp(min=1)


def balanced(probabilities: Tensor, bank: Tensor) -> Tensor:
    """p_k^2 / sum_i b_ik^2 over the images i of a bank (N, K), divided by its sum over the classes k: (..., K).

    Liang et al., ATDOC (https://arxiv.org/abs/2012.07489), as in its code: certain probabilities
    count more, and classes that are predicted often count less. Zeros stay zeros.
    """
    tiny = torch.finfo(bank.dtype).tiny
    shares = probabilities.square() / bank.square().sum(dim=0).clamp(min=tiny)
    return shares / shares.sum(dim=-1, keepdim=True).clamp(min=tiny)


def on_device(indices: Tensor, device: torch.device) -> Tensor:
    """Indices of a batch, which are on the CPU, on a device; the host does not wait for it."""
    pinned = indices.pin_memory() if device.type == "cuda" else indices
    return pinned.to(device, non_blocking=True)


def take_sizes(module: nn.Module, *names: str) -> None:
    """Let `load_state_dict` give buffers the shape that they have in the state: they are as large as the target.

    Args:
        module: whose state is loaded.
        names: of its buffers.
    """

    def resize(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
        for name in names:
            if (stored := state.get(prefix + name)) is not None:
                setattr(module, name, getattr(module, name).new_zeros(stored.shape))

    module.register_load_state_dict_pre_hook(resize)
