"""The evaluation view in numbers: what turns an image file into the network's input, for whoever has no scale_ray."""

from typing import Any

from scale_ray.config import TrialConfig
from scale_ray.data.pixels import DECODER_VERSION
from scale_ray.data.views import IMAGENET_MEAN, IMAGENET_STD
from scale_ray.timm_names import is_timm, pretrained_config


def preprocessing(config: TrialConfig) -> dict[str, Any]:
    """The steps of `decode_image` and `evaluation_view`, in order: the content of preprocessing.json."""
    data = config.data
    mean, std = normalisation(config)
    fits = {
        "squeeze": {"how": "both sides to `size`, the aspect ratio is not kept", "interpolation": "bilinear"},
        "crop": {"how": "the middle square to `size`", "interpolation": "bicubic"},
    }
    return {
        "decode": {
            "library": "Pillow",
            "version": DECODER_VERSION,
            "jpeg_draft": [2 * data.resize, 2 * data.resize],
            "exif_orientation": "applied",
            "frame": "first",
            "transparency": "over white",
            "16_bit": "upper 8 bits",
            "mode": "RGB",
        },
        "resize": {"fit": data.fit, **fits[data.fit], "antialias": True, "size": data.resize},
        "centre_crop": data.image_size,
        "scale": "divide by 255",
        "normalise": {"mean": list(mean), "std": list(std)},
        "input": f"float32 (N, 3, {data.image_size}, {data.image_size})",
    }


def normalisation(config: TrialConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation by channel that the encoder was trained with.

    Views have ImageNet's. `TimmEncoder` replaces them, where its weights have others, by an affine map inside.
    """
    if is_timm(config.model.backbone):
        known = pretrained_config(config.model.backbone)
        return tuple(known.mean), tuple(known.std)
    return IMAGENET_MEAN, IMAGENET_STD
