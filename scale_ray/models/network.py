"""Encoder, classifier head and projection head (METHOD 1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scale_ray.config import ModelConfig


class Outputs(NamedTuple):
    """Of B images and L locations an image (L = 1 when pooled); row i * L + l is location l of image i."""

    logits: Tensor  # (B * L, K)
    features: Tensor | None  # (B * L, A), L2-normalised; None where no projection was asked for


class Network(nn.Module):
    """A network that classifies images and projects them for contrast.

    The projection head serves training only: `state_for_prediction` leaves it out and `load_for_prediction` does
    without it.

    Args:
        encoder: images (B, 3, H, W) -> feature map (B, D, H', W').
        feature_dim: D.
        num_classes: K.
        config: sizes of the heads and the level of contrast.
    """

    projector: nn.Module | None

    def __init__(self, encoder: nn.Module, feature_dim: int, num_classes: int, config: ModelConfig):
        super().__init__()
        self.encoder = encoder
        self.classifier = _head(feature_dim, config.hidden_dim, num_classes)
        self.projector = _head(feature_dim, config.hidden_dim, config.projection_dim)
        self.spatial = config.contrast_level == "spatial"

    def forward(self, images: Tensor, *, project: bool = False) -> Outputs:
        """Logits, and projections where asked for, of images (B, 3, H, W)."""
        rows = self._rows(self.encoder(images))
        logits = self.classifier(rows)
        if not project:
            return Outputs(logits, None)
        assert self.projector is not None, "this network was loaded for prediction, without its projection head"
        return Outputs(logits, F.normalize(self.projector(rows).float(), dim=1))

    def predict(self, images: Tensor) -> Tensor:
        """Class logits (B, K); at spatial level the mean over an image's locations."""
        return image_level(self(images).logits, len(images))

    def _rows(self, feature_map: Tensor) -> Tensor:
        """(B, D, H', W') -> (B, D) pooled, or (B * H' * W', D): a Linear over such rows is a 1x1 convolution."""
        if self.spatial:
            return feature_map.flatten(2).transpose(1, 2).flatten(0, 1)
        return feature_map.mean(dim=(2, 3))

    def state_for_prediction(self) -> dict[str, Tensor]:
        """The state without the projection head."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("projector.")}

    def load_for_prediction(self, state: dict[str, Tensor]) -> None:
        """Load what `state_for_prediction` gave; the projection head is dropped."""
        self.projector = None
        self.load_state_dict(state)


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def image_level(values: Tensor, images: int) -> Tensor:
    """(B * L, K) -> (B, K): the mean over an image's locations."""
    return values.unflatten(0, (images, -1)).mean(dim=1)


def per_location(values: Tensor, locations: int) -> Tensor:
    """(B, ...) -> (B * L, ...): every location takes its image's value."""
    return torch.repeat_interleave(values, locations, dim=0) if locations > 1 else values
