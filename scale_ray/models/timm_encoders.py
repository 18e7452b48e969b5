"""Encoders of timm, built for images of one size; their names are in `timm_names`.

timm takes seconds to import and is imported only where a backbone of it is named.
"""

import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scale_ray.config import ConfigError
from scale_ray.models.student import Student
from scale_ray.models.weights import WeightsError, read_weights, reason
from scale_ray.timm_names import native_size, pretrained_config, timm_name

log = logging.getLogger(__name__)

# Prefixes of names in state dicts: of DistributedDataParallel, of a student, and of TimmEncoder.
_WRAPPED = re.compile(r"^(module\.)?(encoder\.)?(model\.)?")

# Characters of another library's message that a message shows.
_MOST_SHOWN = 300


@dataclass(frozen=True)
class Facts:
    """What is known of an encoder before it is built.

    Attributes:
        feature_dim: D, the width of its features.
        is_map: whether it gives maps (B, D, H', W'), to be averaged; if not, it gives pooled features (B, D).
        has_layers: whether timm knows the order of its layers.
    """

    feature_dim: int
    is_map: bool
    has_layers: bool


@cache
def facts(backbone: str, image_size: int) -> Facts:
    """Build an encoder without numbers, and find out what it makes of images of this size.

    Raises:
        ConfigError: it cannot take images of this size, or gives no features.
    """
    # Some architectures draw numbers that are not on the meta device.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            with torch.device("meta"):
                model = _create(backbone, image_size).eval()
                features = model.forward_features(torch.empty(1, 3, image_size, image_size))
                pooled = model.forward_head(features, pre_logits=True)
        except Exception as error:  # every architecture refuses in its own way
            native = native_size(backbone)
            remedy = f"set data.image_size to {native}" if image_size != native else "choose another one"
            raise ConfigError(
                f"model.backbone {backbone!r} cannot encode images of {image_size} px ({reason(error)}): {remedy}"
            ) from error
        _check_patches(backbone, model, image_size)
        return Facts(pooled.shape[1], _is_averaged(model, features, pooled.shape[1]), hasattr(model, "group_matcher"))


def _check_patches(backbone: str, model: Any, image_size: int) -> None:
    """Refuse a size of which a transformer would leave out the last pixels."""
    from timm.layers import PatchEmbed

    embedding = getattr(model, "patch_embed", None)
    if isinstance(embedding, PatchEmbed) and image_size % (side := embedding.patch_size[0]):
        below = image_size // side * side
        nearest = " or ".join(str(size) for size in (below, below + side) if size)
        raise ConfigError(
            f"model.backbone {backbone!r} divides images into patches of {side} px: set data.image_size to {nearest}, "
            f"not {image_size}"
        )


def _is_averaged(model: Any, features: Any, width: int) -> bool:
    """Whether timm pools a map (B, D, H, W) by its mean and does no more, so that its locations have meaning alone."""
    if not isinstance(features, Tensor) or features.ndim != 4 or features.shape[1] != width:
        return False
    numbers = torch.arange(width * 6.0).view(1, width, 2, 3)
    try:
        pooled = model.forward_head(numbers, pre_logits=True)
        return torch.allclose(pooled, numbers.mean(dim=(2, 3)))
    except (RuntimeError, NotImplementedError):  # layers of the head, which are without numbers here
        return False


def check_pretrained(backbone: str) -> None:
    """Check that timm has pretrained weights of this name.

    Raises:
        WeightsError: it has none.
    """
    if not pretrained_config(backbone).has_weights:
        raise WeightsError(f"model.weights: timm has no weights of {backbone!r}: write 'none' or a file's path")


class TimmEncoder(nn.Module):
    """An encoder of timm without its classifier.

    It maps images (B, 3, S, S) in ImageNet's normalisation, which all views have, to maps (B, D, H', W'), or to
    features (B, D) that are pooled as this family does it: class token, norm after pooling, layers of the head.

    Args:
        model: of `timm.create_model` with `num_classes=0`.
        is_map: see Facts.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Any, is_map: bool):
        import timm.data

        super().__init__()
        self.model = model
        self.is_map = is_map
        wanted = timm.data.resolve_model_data_config(model)
        ours = (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
        self.renormalises = (tuple(wanted["mean"]), tuple(wanted["std"])) != ours
        # One affine map replaces ImageNet's mean and deviation by those that the weights were trained with.
        mean, std = torch.tensor(wanted["mean"]), torch.tensor(wanted["std"])
        our_mean, our_std = map(torch.tensor, ours)
        self.register_buffer("scale", (our_std / std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((our_mean - mean) / std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.renormalises:
            images = images * self.scale + self.shift
        features = self.model.forward_features(images)
        if self.is_map:
            return features
        return self.model.forward_head(features, pre_logits=True)

    def layers(self) -> dict[str, int]:
        """Name of every parameter -> number of its layer, from 0 at the image to the last, which the heads follow."""
        from timm.models import group_parameters

        numbers = group_parameters(self.model, self.model.group_matcher(coarse=False), reverse=True)
        return {f"model.{name}": number for name, number in numbers.items()}


def build(backbone: str, weights: str, image_size: int) -> TimmEncoder:
    """Build an encoder for images of one size, with its weights; arguments and errors are those of `build_encoder`."""
    is_map = facts(backbone, image_size).is_map
    if weights == "none":
        model = _create(backbone, image_size)
    elif weights == "imagenet":
        model = _with_pretrained(backbone, image_size)
    else:
        model = _with_file(backbone, image_size, weights)
    return TimmEncoder(model, is_map)


def synchronise_batch_norm(student: Student) -> Student:
    """As torch's conversion, and it keeps the activations that end a BatchNorm of timm."""
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(student)


def _create(backbone: str, image_size: int, **weights: Any) -> Any:
    """A model without classifier. timm interpolates position embeddings of its weights to the size of the images."""
    import timm

    name, config = timm_name(backbone), pretrained_config(backbone)
    resized = config.fixed_input_size and native_size(backbone) != image_size
    size = {"img_size": image_size} if resized else {}
    return timm.create_model(name, num_classes=0, **size, **weights)


def _with_pretrained(backbone: str, image_size: int) -> Any:
    try:
        _ask_hub(pretrained_config(backbone).hf_hub_id)
        return _create(backbone, image_size, pretrained=True)
    except Exception as error:  # a download fails with many types of error, and a copy on disk may be damaged
        config = pretrained_config(backbone)
        url = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        raise WeightsError(
            f"model.weights: cannot download the weights of {backbone!r} from {url} or read their copy "
            f"({reason(error)}): download model.safetensors from there on another machine, and set model.weights to "
            "its path"
        ) from error


def _ask_hub(repository: str | None) -> None:
    """Fail at once where the hub is out of reach: a download would try again for a minute."""
    from huggingface_hub import file_exists, try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")  # timm takes the first that there is
    if repository and not any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        file_exists(repository, files[0])


def _with_file(backbone: str, image_size: int, weights: str) -> Any:
    """A model with a state dict that has timm's names; heads in it are left out, and all else must fit."""
    state = {_WRAPPED.sub("", name): value for name, value in read_weights(Path(weights)).items()}
    wanted = {name.split(".")[0] for name in _create_names(backbone, image_size)}
    classifiers = pretrained_config(backbone).classifier or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    kept = {
        name: value
        for name, value in state.items()
        if name.split(".")[0] in wanted and not name.startswith(tuple(f"{head}." for head in heads))
    }
    try:
        if not kept:
            raise KeyError("it has none of the encoder's layers")
        # With a `num_classes` that is the model's own, timm wants every name to fit.
        model = _create(
            backbone, image_size, pretrained=True, pretrained_cfg_overlay={"state_dict": kept, "num_classes": 0}
        )
    except Exception as error:  # filters of timm fail with any type of error on another architecture's names
        why = " ".join(str(error).split())[:_MOST_SHOWN]
        raise WeightsError(
            f"{weights}: weights of another architecture than {backbone!r} ({why}): choose the file or the backbone "
            "that fits"
        ) from error
    del model.pretrained_cfg["state_dict"]
    left = sorted({name.split(".")[0] for name in state.keys() - kept.keys()})
    log.info("%s: %d tensors loaded; in the file but unused: %s", weights, len(kept), ", ".join(left) or "nothing")
    return model


@cache
def _create_names(backbone: str, image_size: int) -> tuple[str, ...]:
    """Names of the tensors of an encoder."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return tuple(_create(backbone, image_size).state_dict())
