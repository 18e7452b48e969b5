"""The network: encoder, classifier head and projection head (docs/method.md, section 1)."""

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
    """Outputs for B images with L locations each (L = 1 if pooled); row i * L + l is location l of image i.

    All are float32, or float64 if the network is.

    Attributes:
        logits: (B * L, K).
        features: (B * L, A), projections, L2-normalised; None if they were not requested.
        hidden: (B * L, hidden_dim), hidden layer of the classifier head; None if it was not requested. With
            `head=linear` it is what the encoder gives.
    """

    logits: Tensor
    features: Tensor | None
    hidden: Tensor | None = None


class Network(Student):
    """A network that classifies images and projects them for the contrast terms.

    The projection head is used in training only: `state_for_prediction` omits it and `load_for_prediction` drops it.

    With `batch_norm=domain`, predictions for a domain use the running statistics of that domain (DomainBatchNorm).
    With `batch_norm=frozen`, every BatchNorm, those of the heads included, normalises with its initial running
    statistics, also in training mode; its scale and shift still learn.

    Args:
        encoder: maps images (B, 3, H, W) to a feature map (B, D, H', W'), or to pooled features (B, D).
        feature_dim: D.
        num_classes: K.
        config: widths of the heads, level of the contrast, and mode of BatchNorm.
        precision: `bf16` runs every forward pass under autocast, predictions included, so that a network is evaluated
            as it was trained. Parameters and outputs are float32.
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
        linear = config.head == "linear"
        self.classifier = _head(feature_dim, None if linear else config.hidden_dim, num_classes)
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
        """Compute the outputs for images (B, 3, H, W).

        Args:
            images: float, (B, 3, H, W).
            project: also compute the projections.
            hidden: also return the hidden layer of the classifier head.
        """
        with self._autocast(images):
            rows = self._rows(self.encoder(images))
            bottleneck = widen(self.classifier[:-1](rows))
            features = None
            if project:
                assert self.projector is not None, "this network was loaded for prediction, without its projection head"
                features = F.normalize(widen(self.projector(rows)), dim=1)
        # Never in bfloat16, in which the two highest logits of an image were often equal.
        logits = self.classifier[-1](bottleneck)
        return Outputs(logits, features, bottleneck if hidden else None)

    def forward_domains(
        self,
        source: Tensor,
        target: Tensor,
        *,
        like_predicted: Tensor | None = None,
        project: bool = False,
        hidden: bool = False,
    ) -> tuple[Outputs, Outputs]:
        """Compute the outputs for source images (B, 3, H, W) and target images (B', 3, H, W).

        With `batch_norm` `separate` or `domain` each domain has a forward pass of its own; otherwise one forward pass
        sees both. `project` and `hidden` are those of `forward`.

        Args:
            source, target: the images.
            like_predicted: target images (B', 3, H, W) that look as those to predict, where `target` has strong views.
                With `batch_norm=domain` the target's running statistics are theirs, from a forward pass without
                gradients.
        """
        if self.separate:
            of_source = self(source, project=project, hidden=hidden)
            if like_predicted is None or not self.by_domain:
                return of_source, self.forward_target(target, project=project, hidden=hidden)
            with torch.no_grad():
                self.forward_target(like_predicted)
            with statistics_kept(self):
                return of_source, self.forward_target(target, project=project, hidden=hidden)
        both = self(torch.cat([source, target]), project=project, hidden=hidden)
        # With frozen BatchNorm, one forward pass gives the same as two.
        share = len(source) / (len(source) + len(target))
        of_source, of_target = zip(
            *((None, None) if part is None else part.tensor_split([round(share * len(part))]) for part in both),
            strict=True,
        )
        return Outputs(*of_source), Outputs(*of_target)

    def forward_target(self, images: Tensor, *, project: bool = False, hidden: bool = False) -> Outputs:
        """Compute the outputs for target images (B, 3, H, W) alone; `project` and `hidden` are those of `forward`."""
        with self._statistics_of("target"):
            return self(images, project=project, hidden=hidden)

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        """Class logits (B, K) and pooled encoder features h (B, D), averaged over locations; float32 or better.

        Args:
            images: float, (B, 3, H, W).
            domain: the domain of the images; it selects the running statistics with `batch_norm=domain`.
        """
        with self._autocast(images), self._statistics_of(domain):
            rows = self._rows(self.encoder(images))
            bottleneck = widen(self.classifier[:-1](rows))
        logits = self.classifier[-1](bottleneck)
        return image_level(logits, len(images)), image_level(widen(rows), len(images))

    def encoded(self, images: Tensor, domain: DomainRole = "target") -> Tensor:
        """Pooled features (B, D) of the encoder alone; float32 or better. Those of a frozen encoder are its input."""
        with self._autocast(images), self._statistics_of(domain):
            found = self.encoder(images)
            return widen(found.mean(dim=(2, 3)) if found.ndim == 4 else found)

    def class_weights(self) -> Tensor:
        last = self.classifier[-1]
        assert isinstance(last.weight, Tensor)
        return last.weight

    @contextmanager
    def _statistics_of(self, domain: DomainRole) -> Iterator[None]:
        """Let every DomainBatchNorm use the statistics of `domain` within the block; outside they use the source's."""
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
        """(B, D, H', W') -> (B, D) if pooled, else (B * H' * W', D), on which a Linear is a 1x1 convolution."""
        if self.spatial:
            return feature_map.flatten(2).transpose(1, 2).flatten(0, 1)
        return pooled(feature_map)

    def running_statistics(self) -> list[Tensor]:
        """Running means and variances of BatchNorm that a worker updates from its own images only."""
        if self.frozen:
            return []
        layers = [layer for layer in batch_norms(self) if not isinstance(layer, nn.SyncBatchNorm)]
        return [buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()]

    def state_for_prediction(self) -> dict[str, Tensor]:
        """The state without the projection head."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("projector.")}

    def load_for_prediction(self, state: dict[str, Tensor]) -> None:
        """Load what `state_for_prediction` returned, and drop the projection head."""
        self.projector = None
        self.load_state_dict(state)


class FeatureNetwork(Network):
    """A network whose input is pooled features (B, D) of a frozen encoder instead of images (`model.encoder=frozen`).

    A trained bottleneck, Linear - BatchNorm - ReLU, precedes both heads. Without a shared layer that learns, dist and
    reg, which act on the projection head, could not influence the classifier. It learns at the heads' rate. There is
    none with `head=linear`.

    Args:
        feature_dim: D of the frozen encoder.
        num_classes, config, precision: as in Network.

    Attributes:
        feature_dim: width of the bottleneck, which is the dimension of the features in predictions; without one, D.
    """

    heads_alone = True

    def __init__(self, feature_dim: int, num_classes: int, config: ModelConfig, precision: Precision = "float32"):
        linear = config.head == "linear"
        width = feature_dim if linear else config.bottleneck_dim
        super().__init__(nn.Identity(), width, num_classes, config, precision)
        layers = [] if linear else [nn.Linear(feature_dim, width), nn.BatchNorm1d(width), nn.ReLU()]
        self.bottleneck = nn.Sequential(*layers)
        if self.by_domain:
            split_by_domain(self.bottleneck)

    def _rows(self, features: Tensor) -> Tensor:
        return self.bottleneck(features)


def _head(inputs: int, hidden: int | None, outputs: int) -> nn.Sequential:
    if hidden is None:
        return nn.Sequential(nn.Linear(inputs, outputs))
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All BatchNorm layers in `module`, synchronised ones included."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch within the block without an update of its running statistics."""
    layers = batch_norms(network)
    before = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, tracks in zip(layers, before, strict=True):
            layer.track_running_stats = tracks


def pooled(features: Tensor) -> Tensor:
    """Features (B, D) of what an encoder gives: a map (B, D, H', W'), or features that are pooled already."""
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features


def image_level(values: Tensor, images: int) -> Tensor:
    """(B * L, K) -> (B, K): mean over the locations of each image; `images` is B."""
    return values.unflatten(0, (images, -1)).mean(dim=1)


def per_location(values: Tensor, locations: int) -> Tensor:
    """(B, ...) -> (B * L, ...): every location gets the value of its image; `locations` is L."""
    return torch.repeat_interleave(values, locations, dim=0) if locations > 1 else values
