"""What the training loop and the evaluator ask of a model that is trained."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

DomainRole = Literal["source", "target"]


class Student(nn.Module, ABC):
    """A model that names the class of an image.

    Attributes:
        encoder: the part that learns at optim.encoder_factor, and that execution may compile.
        feature_dim: D.
    """

    encoder: nn.Module
    feature_dim: int

    @abstractmethod
    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        """Class logits (B, K) and encoder features (B, D) of images (B, 3, H, W); float32 or better.

        `domain` is whose images these are, for a student that tells domains apart.
        """

    def predict(self, images: Tensor) -> Tensor:
        """Class logits (B, K)."""
        return self.predict_with_features(images)[0]

    def running_statistics(self) -> list[Tensor]:
        """Running statistics that a worker moves by its own images alone."""
        return []

    def state_for_prediction(self) -> dict[str, Tensor]:
        """What of the state a stored model needs."""
        return self.state_dict()


def widen(values: Tensor) -> Tensor:
    """Half precision to float32; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
