"""Names of timm's encoders: `timm:vit_small_patch14_dinov2.lvd142m` (https://github.com/huggingface/pytorch-image-models).

timm belongs to the extra `timm`. It takes seconds to import and is imported only where a backbone of it is named.
"""

import difflib
import importlib.util
import math
from typing import Any

from scale_ray.config import ConfigError
from scale_ray.extras import how_to_install

_PREFIX = "timm:"


def is_timm(backbone: str) -> bool:
    """Whether a backbone is one of timm."""
    return backbone.startswith(_PREFIX)


def canonical_name(backbone: str) -> str:
    """The name with its tag: `timm:resnet50` is `timm:resnet50.a1_in1k` as long as that is timm's default.

    The tag says which weights `imagenet` are and how images are normalised. As the name is part of a trial's identity,
    another default in another version of timm is another trial.

    Raises:
        ConfigError: timm is not installed, or has no such architecture or tag.
    """
    if importlib.util.find_spec("timm") is None:
        raise ConfigError(f"model.backbone {backbone!r} needs timm: {how_to_install('timm')}")
    import timm

    architecture, _, tag = timm_name(backbone).partition(".")
    _check_one_of("architecture", architecture, timm.list_models(), backbone)
    if tag:
        tags = [config.tag for config in timm.models.get_arch_pretrained_cfgs(architecture).values()]
        _check_one_of(f"tag of {architecture!r}", tag, tags, backbone)
    tag = tag or timm.models.get_pretrained_cfg(architecture).tag or ""  # some architectures have no tag
    return f"{_PREFIX}{architecture}.{tag}".removesuffix(".")


def _check_one_of(what: str, name: str, known: list[str], backbone: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.4) or known[:4]
        raise ConfigError(
            f"model.backbone {backbone!r}: timm has no {what} {name!r}; the nearest are {', '.join(near)}"
        )


def timm_name(backbone: str) -> str:
    """The name that timm knows."""
    return backbone.removeprefix(_PREFIX)


def pretrained_config(backbone: str) -> Any:
    """timm's data config and addresses of the weights of this tag. The backbone must exist: see `canonical_name`."""
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(timm_name(backbone))


def native_size(backbone: str) -> int:
    """Side in pixels of the images of timm's data config."""
    return int(pretrained_config(backbone).input_size[-1])


def size_fields(backbone: str) -> dict[str, int]:
    """The size of images in timm's data config, by dotted path; none for an encoder that is not of timm.

    timm resizes images to the size divided by `crop_pct` and takes their centre. Here, too, evaluation takes the centre
    of a resized image.

    Raises:
        ConfigError: timm is not installed, or has no such encoder.
    """
    if not is_timm(backbone):
        return {}
    name = canonical_name(backbone)
    size = native_size(name)
    resize = math.floor(size / pretrained_config(name).crop_pct)
    return {"data.image_size": size, "data.resize": max(size, resize)}  # a few have a margin instead of a crop
