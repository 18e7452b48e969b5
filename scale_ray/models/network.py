"""Encoder, classifier head and projection head (METHOD 1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scale_ray.config import ModelConfig, Precision
from scale_ray.models.domain_norm import DomainBatchNorm, split_by_domain
from scale_ray.models.student import DomainRole, Student, widen


class Outputs(NamedTuple):
    """Of B images and L locations an image (L = 1 when pooled); row i * L + l is location l of image i."""

    logits: Tensor  # (B * L, K), float32 or better
    features: Tensor | None  # (B * L, A), float32 or better, L2-normalised; None where no projection was asked for
    hidden: Tensor | None = None  # (B * L, hidden_dim), float32 or better; None where it was not asked for


class Network(Student):
    """A network that classifies images and projects them for contrast.

    The projection head serves training only: `state_for_prediction` leaves it out and `load_for_prediction` does
    without it.

    With `batch_norm = domain` predictions for either domain take its own running statistics (DomainBatchNorm).
    With `batch_norm = frozen` every BatchNorm, the heads' too, normalises with the running statistics that it starts
    with, also in training mode; its scale and shift go on learning.

    Args:
        encoder: images (B, 3, H, W) -> feature map (B, D, H', W').
        feature_dim: D.
        num_classes: K.
        config: sizes of the heads, the level of contrast, and whether BatchNorm is frozen.
        precision: `bf16` runs every forward pass under autocast, predictions too: a trained network is measured as it
            was trained. Parameters and outputs are float32.
    """

    projector: nn.Module | None

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        num_classes: int,
        config: ModelConfig,
        precision: Precision = "float32",
    ):
        super().__init__()
        self.encoder = encoder
        self.classifier = _head(feature_dim, config.hidden_dim, num_classes)
        self.projector = _head(feature_dim, config.hidden_dim, config.projection_dim)
        self.feature_dim = feature_dim
        self.spatial = config.contrast_level == "spatial"
        self.frozen = config.batch_norm == "frozen"
        self.separate = config.batch_norm in ("separate", "domain")
        self.by_domain = config.batch_norm == "domain"
        self.bf16 = precision == "bf16"
        if self.by_domain:
            split_by_domain(self)
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            for layer in batch_norms(self):
                layer.eval()
        return self

    def forward(self, images: Tensor, *, project: bool = False, hidden: bool = False) -> Outputs:
        """Logits of images (B, 3, H, W); where asked for, projections, and the classifier head's hidden layer."""
        with self._autocast(images):
            rows = self._rows(self.encoder(images))
            bottleneck = self.classifier[:-1](rows) if hidden else None
            logits = widen(self.classifier(rows) if bottleneck is None else self.classifier[-1](bottleneck))
            kept = None if bottleneck is None else widen(bottleneck)
            if not project:
                return Outputs(logits, None, kept)
            assert self.projector is not None, "this network was loaded for prediction, without its projection head"
            return Outputs(logits, F.normalize(widen(self.projector(rows)), dim=1), kept)

    def forward_domains(
        self, source: Tensor, target: Tensor, *, project: bool = False, hidden: bool = False
    ) -> tuple[Outputs, Outputs]:
        """Outputs of as many images of each domain: a forward a domain where BatchNorm is `separate`, else one."""
        if self.separate:
            of_source = self(source, project=project, hidden=hidden)
            with self._seeing("target"):
                return of_source, self(target, project=project, hidden=hidden)
        both = self(torch.cat([source, target]), project=project, hidden=hidden)
        # Frozen too: one forward for both gives what two would.
        of_source, of_target = zip(*((None, None) if part is None else part.chunk(2) for part in both), strict=True)
        return Outputs(*of_source), Outputs(*of_target)

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        """Class logits (B, K) as `predict` gives them, and pooled encoder features h (B, D); float32 or better."""
        with self._autocast(images), self._seeing(domain):
            rows = self._rows(self.encoder(images))
            logits = widen(self.classifier(rows))
        return image_level(logits, len(images)), image_level(widen(rows), len(images))

    @contextmanager
    def _seeing(self, domain: DomainRole) -> Iterator[None]:
        """Tell BatchNorms that keep statistics by domain whose images come; without, they are the source's."""
        layers = [layer for layer in batch_norms(self) if isinstance(layer, DomainBatchNorm)] if self.by_domain else []
        for layer in layers:
            layer.on_target = domain == "target"
        try:
            yield
        finally:
            for layer in layers:
                layer.on_target = False

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16)

    def _rows(self, feature_map: Tensor) -> Tensor:
        """(B, D, H', W') -> (B, D) pooled, or (B * H' * W', D): a Linear over such rows is a 1x1 convolution."""
        if self.spatial:
            return feature_map.flatten(2).transpose(1, 2).flatten(0, 1)
        return feature_map.mean(dim=(2, 3))

    def running_statistics(self) -> list[Tensor]:
        """BatchNorm's running means and variances that a worker moves by its own images alone."""
        if self.frozen:
            return []
        layers = [layer for layer in batch_norms(self) if not isinstance(layer, nn.SyncBatchNorm)]
        return [buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()]

    def state_for_prediction(self) -> dict[str, Tensor]:
        """The state without the projection head."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("projector.")}

    def load_for_prediction(self, state: dict[str, Tensor]) -> None:
        """Load what `state_for_prediction` gave; the projection head is dropped."""
        self.projector = None
        self.load_state_dict(state)


class FeatureNetwork(Network):
    """A network on pooled features of a frozen encoder, (B, D) in place of images (model.encoder = frozen).

    A trained bottleneck, Linear - BatchNorm - ReLU, lies below both heads: what they hang on must learn, or dist and
    reg could not reach the classifier. It learns at the heads' rate.

    Args:
        feature_dim: D of the frozen encoder.
        num_classes, config, precision: as in Network.

    Attributes:
        feature_dim: width of the bottleneck.
    """

    def __init__(self, feature_dim: int, num_classes: int, config: ModelConfig, precision: Precision = "float32"):
        width = config.bottleneck_dim
        super().__init__(nn.Identity(), width, num_classes, config, precision)
        self.bottleneck = nn.Sequential(nn.Linear(feature_dim, width), nn.BatchNorm1d(width), nn.ReLU())
        if self.by_domain:
            split_by_domain(self.bottleneck)

    def _rows(self, features: Tensor) -> Tensor:
        return self.bottleneck(features)


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm in `module`, the synchronised ones too."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def image_level(values: Tensor, images: int) -> Tensor:
    """(B * L, K) -> (B, K): the mean over an image's locations."""
    return values.unflatten(0, (images, -1)).mean(dim=1)


def per_location(values: Tensor, locations: int) -> Tensor:
    """(B, ...) -> (B * L, ...): every location takes its image's value."""
    return torch.repeat_interleave(values, locations, dim=0) if locations > 1 else values
