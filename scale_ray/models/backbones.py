"""Encoders by name. To add a backbone, add one entry to BACKBONES; those of timm have names such as `timm:resnet50`."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scale_ray.config import ConfigError, ModelConfig, check_name
from scale_ray.models import timm_encoders
from scale_ray.models.student import Student
from scale_ray.models.timm_encoders import TimmEncoder
from scale_ray.models.weights import WeightsError, load_weights, read_weights, reason, refuse_torchscript
from scale_ray.registry import Registry
from scale_ray.timm_names import canonical_name, is_timm

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


@dataclass(frozen=True)
class Backbone:
    """One encoder.

    Args:
        build: returns a randomly initialised module that maps images (B, 3, H, W) to a feature map (B, D, H', W').
            Its parameters have the names of the torchvision original.
        feature_dim: D.
        imagenet: gives torchvision's enum entry of the ImageNet weights; None if there are none.
    """

    build: Callable[[], nn.Module]
    feature_dim: int
    imagenet: "Callable[[], WeightsEnum] | None" = None


class _Layers(nn.Sequential):
    """Named layers in sequence.

    It defines its own `forward` for `--compile`. Older versions of torch do not trace nn.Sequential's: they compile
    each block separately and stop compiling at their limit of recompilations.
    """

    def __init__(self, layers: Mapping[str, nn.Module]):
        super().__init__(OrderedDict(layers))

    def forward(self, images: Tensor) -> Tensor:
        for layer in self:
            images = layer(images)
        return images


# torchvision is imported when one of its encoders is built: torch's compiler comes with it, which a plan does not need.


def _resnet(name: str, feature_dim: int) -> Backbone:
    """A torchvision ResNet without pooling and classifier; the layers keep their names."""

    def build() -> nn.Module:
        from torchvision.models import get_model

        layers = dict(get_model(name, weights=None).named_children())
        del layers["avgpool"], layers["fc"]
        return _Layers(layers)

    return Backbone(build, feature_dim, lambda: _first_weights(name))


def _mobilenet_v2() -> nn.Module:
    from torchvision.models import mobilenet_v2

    return _Layers({"features": mobilenet_v2(weights=None).features})


def _first_weights(name: str) -> "WeightsEnum":
    """Those of the network's paper, and not a later recipe's."""
    from torchvision.models import get_model_weights

    return get_model_weights(name)["IMAGENET1K_V1"]


def _lenet() -> nn.Module:
    """Five small convolutions for 32 x 32 images, similar to LeNet.

    Pooling comes before BatchNorm and ReLU, so that these work on a quarter of the pixels; this saves a third of the
    time of a step.
    """

    def block(inputs: int, outputs: int, *, halve: bool = False) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [nn.MaxPool2d(2)] if halve else []
        return nn.Sequential(*layers, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    blocks = [
        block(3, 24, halve=True), block(24, 48, halve=True), block(48, 48), block(48, 96, halve=True), block(96, 96)
    ]  # fmt: skip
    return _Layers({str(number): each for number, each in enumerate(blocks)})


BACKBONES: Registry[Backbone] = Registry(
    {
        "lenet": Backbone(_lenet, 96),
        "mobilenet_v2": Backbone(_mobilenet_v2, 1280, lambda: _first_weights("mobilenet_v2")),
        "resnet18": _resnet("resnet18", 512),
        "resnet50": _resnet("resnet50", 2048),
        "resnet101": _resnet("resnet101", 2048),
        "resnet152": _resnet("resnet152", 2048),
    }
)


def canonical_backbone(backbone: str) -> str:
    """The name that is part of a trial's identity: of timm's encoders with its tag; others are as they are written.

    Raises:
        ConfigError: timm is not installed, or has no such encoder.
    """
    return canonical_name(backbone) if is_timm(backbone) else backbone


def check_backbone(model: ModelConfig, image_size: int) -> None:
    """Check, before any computation, that this encoder can be built with its weights for images of this size.

    Raises:
        ConfigError: it cannot.
    """
    if not is_timm(model.backbone):
        check_name("model.backbone", model.backbone, (*BACKBONES, "timm:NAME"))
    elif canonical_backbone(model.backbone) and not timm_encoders.facts(model.backbone, image_size).is_map:
        _check_level(model)
    check_weights(model.backbone, model.weights)


def _check_level(model: ModelConfig) -> None:
    if model.contrast_level != "pooled":
        raise ConfigError(
            f"model.contrast_level is {model.contrast_level!r}, but {model.backbone!r} gives no map whose mean are its "
            "features: set it to 'pooled'"
        )


def check_weights(backbone: str, weights: str) -> None:
    """Check, before any computation, that the weights can exist for this backbone.

    Args:
        backbone: a name in BACKBONES, or `timm:` and a name of timm.
        weights: `none`, `imagenet` or the path of a state dict.

    Raises:
        WeightsError: `imagenet` for a backbone without ImageNet weights, a file that does not exist, or a TorchScript
            archive.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        if is_timm(backbone):
            timm_encoders.check_pretrained(backbone)
        elif BACKBONES[backbone].imagenet is None:
            raise WeightsError(f"model.weights: {backbone!r} has no ImageNet weights: write 'none' or a file's path")
    elif not Path(weights).is_file():
        raise WeightsError(f"model.weights: no file {weights!r}: write 'none', 'imagenet' or the path of a state dict")
    else:
        refuse_torchscript(Path(weights))


def feature_dim(backbone: str, image_size: int) -> int:
    """D, the width of the encoder's features."""
    if is_timm(backbone):
        return timm_encoders.facts(backbone, image_size).feature_dim
    return BACKBONES[backbone].feature_dim


def has_layers(backbone: str, image_size: int) -> bool:
    """Whether the order of the encoder's layers is known, which `optim.layer_decay` needs."""
    return is_timm(backbone) and timm_encoders.facts(backbone, image_size).has_layers


def build_encoder(backbone: str, weights: str, image_size: int = 224) -> nn.Module:
    """Build an encoder with its weights. Random weights are drawn from torch's global generator.

    Args:
        backbone: a name in BACKBONES, or `timm:` and a name of timm.
        weights: `none` for random ones, `imagenet`, or the path of a state dict.
        image_size: side in pixels of the images; some encoders are built for one size.

    Returns:
        A module that maps images to maps (B, D, H', W'), or to pooled features (B, D).

    Raises:
        WeightsError: the weights cannot be downloaded or read, or belong to another architecture.
    """
    check_weights(backbone, weights)
    if is_timm(backbone):
        return timm_encoders.build(backbone, weights, image_size)
    entry = BACKBONES[backbone]
    encoder = entry.build()
    if weights == "imagenet":
        assert entry.imagenet is not None
        found = entry.imagenet()
        load_weights(encoder, _download(found), f"torchvision {found}")
    elif weights != "none":
        load_weights(encoder, read_weights(Path(weights)), weights)
    return encoder


def synchronise_batch_norm(student: Student) -> Student:
    """Replace every BatchNorm of a student by one whose statistics are those of all workers' images."""
    if any(isinstance(module, TimmEncoder) for module in student.modules()):
        return timm_encoders.synchronise_batch_norm(student)
    return nn.SyncBatchNorm.convert_sync_batchnorm(student)


def _download(weights: "WeightsEnum") -> dict[str, Tensor]:
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except Exception as error:  # a download fails with many types of error, and a copy on disk may be damaged
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"model.weights: cannot download {weights.url} or read its copy ({reason(error)}): "
            f"put that file into {folder}, or name its path: --weights FILE (model.weights)"
        ) from error
