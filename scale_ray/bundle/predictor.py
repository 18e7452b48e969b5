"""The network that a bundle holds: encoder and head with plain BatchNorm, from images to logits."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.models import build_encoder
from scale_ray.models.network import pooled
from scale_ray.models.prototypes import TEMPERATURE, Space, powered
from scale_ray.models.student import widen

State = dict[str, Tensor]


class Predictor(nn.Module):
    """Classifies images (B, 3, S, S) in ImageNet's normalisation as the trial's student classifies its target's.

    Args:
        encoder: maps images to a map (B, D, H', W'), or to pooled features (B, D).
        head: maps features (B, D) to logits (B, K).
        config: of the trial. It says whether the head is applied at every location and its logits are averaged, and
            whether encoder and hidden layers run under autocast.
    """

    def __init__(self, encoder: nn.Module, head: nn.Sequential, config: TrialConfig):
        super().__init__()
        self.encoder, self.head = encoder, head
        self.spatial = config.model.contrast_level == "spatial"
        self.frozen = config.model.encoder == "frozen"
        # A trained encoder below prototypes runs without autocast.
        self.bf16 = config.optim.precision == "bf16" and (self.frozen or config.method != "prototypes")
        self.eval()
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), float32."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.encoder(images)
            features = widen(features) if self.frozen else features  # its features were stored, and not in bfloat16
            rows = features.flatten(2).transpose(1, 2).flatten(0, 1) if self.spatial else pooled(features)
            hidden = widen(self.head[:-1](rows))
        logits: Tensor = self.head[-1](hidden)
        # Not `len(images)`: a graph is made for any number of images.
        return logits.unflatten(0, (images.shape[0], -1)).mean(dim=1) if self.spatial else logits


class NearestPrototype(nn.Module):
    """Cosines of centred, whitened features with the target's prototypes: `PrototypeHead` on the target.

    Args:
        feature_dim: D.
        num_classes: K.
    """

    mean: Tensor
    whitening: Tensor
    prototypes: Tensor

    def __init__(self, feature_dim: int, num_classes: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("whitening", torch.zeros(feature_dim, feature_dim))
        self.register_buffer("prototypes", torch.zeros(num_classes, feature_dim))

    def forward(self, features: Tensor) -> Tensor:
        directions = F.normalize((powered(features) - self.mean) @ self.whitening, dim=1)
        return directions @ self.prototypes.T / TEMPERATURE


def bundle_state(stored: Mapping[str, Tensor], config: TrialConfig) -> State:
    """What a store keeps of a student, as a bundle has it: `head.*`, and `encoder.*` where it was trained.

    Every BatchNorm has the target's statistics.

    Raises:
        ConfigError: the student is of another kind, such as one on CLIP.
    """
    state = with_target_statistics(stored)
    encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
    if "head.prototypes" in state:
        return encoder | {f"head.0.{name}": value for name, value in _prototype_head(state).items()}
    head = [name for name in state if name.startswith(("bottleneck.", "classifier."))]
    if not any(name.startswith("classifier.") for name in head) or len(head) + len(encoder) != len(state):
        raise ConfigError(
            f"method {config.method!r} predicts by other layers than an encoder and a head, which a bundle cannot "
            "hold: students on CLIP and those of your own stay in their store"
        )
    places = sorted({name.rpartition(".")[0] for name in head})
    return encoder | {_in_one_head(name, places): state[name] for name in head}


def with_target_statistics(state: Mapping[str, Tensor]) -> State:
    """A state whose BatchNorm layers are plain ones: those of each domain keep the target's statistics alone."""
    folded = {}
    for name, value in state.items():
        layer, _, leaf = name.rpartition(".")
        if f"{layer}.target_batches" not in state:
            folded[name] = value
        elif leaf in ("running_mean", "running_var"):
            folded[name] = state[f"{layer}.{leaf.replace('running', 'target')}"]
        elif not leaf.startswith("target_"):
            folded[name] = value
    return folded


def _in_one_head(name: str, places: list[str]) -> str:
    """`bottleneck.0.weight` or `classifier.3.weight` as its place in one nn.Sequential of Linear, BatchNorm, ReLU.

    Args:
        places: the layers with tensors, in order: Linear and BatchNorm in turn, the last Linear alone.
    """
    layer, _, leaf = name.rpartition(".")
    number = places.index(layer)
    return f"head.{number + number // 2}.{leaf}"


def _prototype_head(state: Mapping[str, Tensor]) -> State:
    """The map of `Space.directions` as one matrix, in float64 until it is rounded once."""
    space = Space(*(state[f"head.{name}"].double() for name in ("axes", "variances", "shrinkage")))
    return {
        "mean": state["head.target_mean"],
        "whitening": (space.axes * space.scales()).float(),
        "prototypes": state["head.prototypes"],
    }


def build_predictor(config: TrialConfig, state: State) -> Predictor:
    """Build the network of a bundle from the trial's config and the tensors `head.*` and `encoder.*`."""
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(config.model.backbone, "none", config.data.image_size)
    encoder.load_state_dict(part_of(state, "encoder."))
    return Predictor(encoder, build_head(part_of(state, "head.")), config)


def build_head(state: State) -> nn.Sequential:
    """The head whose tensors these are: nearest prototype, or Linear, BatchNorm and ReLU in turn and a last Linear."""
    layers: list[nn.Module] = []
    if "0.prototypes" in state:
        classes, width = state["0.prototypes"].shape
        layers = [NearestPrototype(width, classes)]
    for place in sorted({int(name.partition(".")[0]) for name in state} if not layers else ()):
        weight = state[f"{place}.weight"]
        layers += [nn.BatchNorm1d(len(weight)), nn.ReLU()] if weight.ndim == 1 else [nn.Linear(*weight.T.shape)]
    head = nn.Sequential(*layers)
    head.load_state_dict(state)
    return head


def part_of(state: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
