"""The interface of a trained model for the training loop and the evaluator."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

DomainRole = Literal["source", "target"]


class Student(nn.Module, ABC):
    """A model that classifies images.

    Attributes:
        encoder: the part whose learning rate is multiplied by `optim.encoder_factor`, and that may be compiled.
        feature_dim: D, the dimension of its features.
        heads_alone: whether its state is that of heads on a frozen encoder, some MB, which a store keeps by default.
    """

    encoder: nn.Module
    feature_dim: int
    heads_alone: bool = False

    @abstractmethod
    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        """Class logits (B, K) and encoder features (B, D); float32 or better.

        Args:
            images: float, (B, 3, H, W).
            domain: the domain of the images, for students that treat the domains differently.
        """

    def predict(self, images: Tensor) -> Tensor:
        """Class logits (B, K) of target images (B, 3, H, W)."""
        return self.predict_with_features(images)[0]

    def class_weights(self) -> Tensor | None:
        """Weights (K, D) of the last layer, one row per class; None if the logits come from no such layer."""
        return None

    def running_statistics(self) -> list[Tensor]:
        """Running statistics that a worker updates from its own images only."""
        return []

    def state_for_prediction(self) -> dict[str, Tensor]:
        """The part of the state dict that prediction needs; a stored model consists of it."""
        return self.state_dict()


def widen(values: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 are returned unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
