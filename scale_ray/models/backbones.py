"""Encoders and the loading of their weights. To add a backbone, add one entry to BACKBONES."""

import hashlib
import logging
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models as zoo

from scale_ray.config import NAMED_WEIGHTS, ConfigError
from scale_ray.registry import Registry

log = logging.getLogger(__name__)


class WeightsError(ConfigError):
    """Weights that cannot be loaded or do not fit the network; the message names the file and the remedy."""


@dataclass(frozen=True)
class Backbone:
    """One encoder.

    Args:
        build: returns a randomly initialised module that maps images (B, 3, H, W) to a feature map (B, D, H', W').
            Its parameters have the names of the torchvision original.
        feature_dim: D.
        imagenet: torchvision's enum entry of the ImageNet weights; None if there are none.
    """

    build: Callable[[], nn.Module]
    feature_dim: int
    imagenet: "zoo.WeightsEnum | None" = None


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


def _resnet(factory: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    """Builder of a torchvision ResNet without pooling and classifier; the layers keep their names."""

    def build() -> nn.Module:
        layers = dict(factory(weights=None).named_children())
        del layers["avgpool"], layers["fc"]
        return _Layers(layers)

    return build


def _mobilenet_v2() -> nn.Module:
    return _Layers({"features": zoo.mobilenet_v2(weights=None).features})


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
        "mobilenet_v2": Backbone(_mobilenet_v2, 1280, zoo.MobileNet_V2_Weights.IMAGENET1K_V1),
        "resnet18": Backbone(_resnet(zoo.resnet18), 512, zoo.ResNet18_Weights.IMAGENET1K_V1),
        "resnet50": Backbone(_resnet(zoo.resnet50), 2048, zoo.ResNet50_Weights.IMAGENET1K_V1),
        "resnet101": Backbone(_resnet(zoo.resnet101), 2048, zoo.ResNet101_Weights.IMAGENET1K_V1),
        "resnet152": Backbone(_resnet(zoo.resnet152), 2048, zoo.ResNet152_Weights.IMAGENET1K_V1),
    }
)


def check_weights(backbone: str, weights: str) -> None:
    """Check, before any computation, that the weights can exist for this backbone.

    Args:
        backbone: a name in BACKBONES.
        weights: `none`, `imagenet` or the path of a state dict.

    Raises:
        WeightsError: `imagenet` for a backbone without ImageNet weights, a file that does not exist, or a TorchScript
            archive.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        if BACKBONES[backbone].imagenet is None:
            raise WeightsError(f"model.weights: {backbone!r} has no ImageNet weights: write 'none' or a file's path")
    elif not Path(weights).is_file():
        raise WeightsError(f"model.weights: no file {weights!r}: write 'none', 'imagenet' or the path of a state dict")
    else:
        refuse_torchscript(Path(weights))


def refuse_torchscript(path: Path) -> None:
    """Refuse a TorchScript archive (torch.jit.save), which contains code. OpenAI publishes CLIP in this form.

    Raises:
        WeightsError: the file is such an archive; the message says how to convert it into a state dict.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:  # safetensors, an old torch.save, or no weights at all: `read_weights` decides
        return
    if scripted:
        raise WeightsError(
            f"{path}: a TorchScript archive, which contains code that is not run here. If you trust its origin, "
            f"convert it into a state dict: python -c \"import torch; torch.save(torch.jit.load('{path}', "
            f"map_location='cpu').state_dict(), '{path.stem}_state.pth')\""
        )


def weights_digest(weights: str) -> str | None:
    """sha256 (hex) of the weights file, which replaces its path in a trial's identity; None for a named weight set.

    Raises:
        WeightsError: the file cannot be read.
    """
    if weights in NAMED_WEIGHTS:
        return None
    try:
        state = Path(weights).stat()
        return _file_digest(weights, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    except OSError as error:
        raise WeightsError(
            f"model.weights: {weights!r} cannot be read ({error.strerror}): check the file and its permissions"
        ) from error


@cache
def _file_digest(path: str, *state: int) -> str:
    """Cached by what changes with the content, as a study asks once per cell."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_encoder(backbone: str, weights: str) -> nn.Module:
    """Build an encoder with its weights. Random weights are drawn from torch's global generator.

    Args:
        backbone: a name in BACKBONES.
        weights: `none` for random ones, `imagenet`, or the path of a state dict.

    Raises:
        WeightsError: the weights cannot be downloaded or read, or belong to another architecture.
    """
    check_weights(backbone, weights)
    entry = BACKBONES[backbone]
    encoder = entry.build()
    if weights == "imagenet":
        load_weights(encoder, _download(entry), f"torchvision {entry.imagenet}")
    elif weights != "none":
        load_weights(encoder, read_weights(Path(weights)), weights)
    return encoder


def load_weights(encoder: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load a state dict into an encoder and log which of its tensors were used.

    The state dict may contain heads that the encoder does not have. It must contain every tensor of the encoder, as a
    partly random network would give meaningless results.

    Args:
        encoder: changed in place.
        state: name -> tensor; the prefixes `module.` and `encoder.` are removed.
        origin: where the weights come from, for messages.

    Raises:
        WeightsError: tensors of the encoder are missing or have another shape, or a layer has more tensors than the
            encoder's.
    """
    state = {name.removeprefix("module.").removeprefix("encoder."): value for name, value in state.items()}
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    misfits = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    top_level = {name for name, _ in encoder.named_children()}
    left_over = [name for name in state if name not in wanted]
    foreign = [name for name in left_over if name.split(".")[0] in top_level]
    if missing or misfits or foreign:
        raise WeightsError(
            f"{origin}: weights of another architecture: {len(missing)} tensors missing{_examples(missing)}, "
            f"{len(misfits)} of another shape{_examples(misfits)}, {len(foreign)} too many{_examples(foreign)}: "
            "choose the file or the backbone that fits"
        )
    encoder.load_state_dict({name: state.get(name, value) for name, value in wanted.items()})
    heads = sorted({name.rsplit(".", 1)[0] for name in left_over})
    log.info("%s: %d tensors loaded; in the file but unused: %s", origin, len(wanted), ", ".join(heads) or "nothing")


def _examples(names: list[str]) -> str:
    return f" (such as {names[0]})" if names else ""


def reason(error: Exception) -> str:
    """The type and first sentence of an error; torch's messages continue with advice to switch safe loading off."""
    first = re.split(r"[.] |\n", str(error))[0]
    return f"{type(error).__name__}: {first}"


def _download(entry: Backbone) -> dict[str, Tensor]:
    assert entry.imagenet is not None
    try:
        return dict(entry.imagenet.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except Exception as error:  # a download fails with many types of error, and a copy on disk may be damaged
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"model.weights: cannot download {entry.imagenet.url} or read its copy ({reason(error)}): "
            f"put that file into {folder}, or give its path as model.weights"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file of torch.save or safetensors. No code in the file is run.

    Returns:
        name -> tensor, on the CPU. A state dict under the key `state_dict` of a checkpoint is found too.

    Raises:
        WeightsError: the file cannot be read, contains no state dict, or is a TorchScript archive.
    """
    refuse_torchscript(path)
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise any type of error: UnicodeDecodeError, KeyError, struct.error
        raise WeightsError(
            f"{path}: not a state dict that is safe to load ({reason(error)}): save model.state_dict() with torch.save"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(f"{path}: holds no state dict (name -> tensor): save model.state_dict()")
    return state
