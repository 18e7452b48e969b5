"""Code for a model card: it opens a bundle with PyTorch, and torchvision or timm, and predicts an image's classes."""

from torch import nn

from scale_ray.bundle.contents import Bundle
from scale_ray.bundle.predictor import NearestPrototype, build_head, part_of
from scale_ray.bundle.preprocessing import normalisation
from scale_ray.models.prototypes import TEMPERATURE
from scale_ray.models.timm_encoders import facts
from scale_ray.timm_names import is_timm, native_size, pretrained_config, timm_name

_RESNET = """\
layers = OrderedDict(torchvision.models.{name}().named_children())
del layers["avgpool"], layers["fc"]
encoder = nn.Sequential(layers)"""

_MOBILENET = "encoder = nn.Sequential(OrderedDict(features=torchvision.models.mobilenet_v2().features))"

_LENET = """\
def block(inputs, outputs, *pool):
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, *pool, nn.BatchNorm2d(outputs), nn.ReLU())


half = nn.MaxPool2d(2)
encoder = nn.Sequential(block(3, 24, half), block(24, 48, half), block(48, 48), block(48, 96, half), block(96, 96))"""

# Builds each encoder without weights; their tensors have the names of these modules.
_ENCODERS = {
    "lenet": _LENET,
    "mobilenet_v2": _MOBILENET,
    **{name: _RESNET.format(name=name) for name in ("resnet18", "resnet50", "resnet101", "resnet152")},
}

_HEAD = """\
head = nn.Sequential({layers})
head.load_state_dict(part("head."))
head.eval()"""

_PROTOTYPES = f"""\
def head(features):
    features = features.sign() * features.abs().sqrt() - state["head.0.mean"]
    directions = nn.functional.normalize(features @ state["head.0.whitening"], dim=1)
    return directions @ state["head.0.prototypes"].T / {TEMPERATURE}

"""

_CODE = """\
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
{library}
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms.functional import center_crop, normalize, pil_to_tensor

state, classes = load_file("model.safetensors"), json.loads(Path("classes.json").read_text())


def part(prefix):
    return {{name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}}


{encoder}
encoder.load_state_dict(part("{prefix}"))
encoder.eval()
{head}


def rgb(image):
    tags = getattr(image, "tag_v2", {{}})  # of a TIFF
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # grey of 16 bits, in a TIFF also of 12: the upper 8 are taken
        grey = (np.asarray(image) >> tags.get(258, (16,))[0] - 8).astype(np.uint8)
        image = Image.fromarray(255 - grey if tags.get(262) == 0 else grey)  # 0: white is zero
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("RGB")


def logits(path):
    image = Image.open(path)
    image.draft(None, ({draft}, {draft}))  # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size
    image = rgb(image)
    pixels = center_crop(pil_to_tensor({resized}), {size}) / 255
    inputs = normalize(pixels, {mean}, {std})[None]
    with torch.inference_mode():
{forward}


def predict(path):
    return dict(zip(classes, logits(path).double().softmax(dim=1)[0].tolist()))
"""


def bare_code(bundle: Bundle) -> str:
    """Python that needs no scale_ray and runs in the bundle's folder."""
    config = bundle.config
    data, backbone = config.data, config.model.backbone
    mean, std = normalisation(config)
    square = f"({data.resize}, {data.resize})"
    resized = {
        "squeeze": f"image.resize({square}, Image.Resampling.BILINEAR)",
        "crop": f"ImageOps.fit(image, {square}, Image.Resampling.BICUBIC)",
    }
    return _CODE.format(
        library="import timm" if is_timm(backbone) else "import torchvision",
        encoder=_encoder(backbone, data.image_size),
        prefix="encoder.model." if is_timm(backbone) else "encoder.",
        head=_head(build_head(part_of(bundle.state, "head."))),
        draft=2 * data.resize,
        resized=resized[data.fit],
        size=f"[{data.image_size}, {data.image_size}]",
        mean=list(mean),
        std=list(std),
        forward="\n".join(f"        {line}" for line in _forward(bundle)),
    )


def _encoder(backbone: str, image_size: int) -> str:
    if is_timm(backbone):
        resized = pretrained_config(backbone).fixed_input_size and native_size(backbone) != image_size
        size = f", img_size={image_size}" if resized else ""
        return f'encoder = timm.create_model("{timm_name(backbone)}", num_classes=0{size})'
    return _ENCODERS.get(backbone, f"encoder = ...  # {backbone} is an encoder of your own: build it by your own code")


def _head(head: nn.Sequential) -> str:
    if isinstance(head[0], NearestPrototype):
        return f"\n\n{_PROTOTYPES}".rstrip()
    layers = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            layers.append(f"nn.Linear({layer.in_features}, {layer.out_features})")
        elif isinstance(layer, nn.BatchNorm1d):
            layers.append(f"nn.BatchNorm1d({layer.num_features})")
        else:
            layers.append("nn.ReLU()")
    return _HEAD.format(layers=", ".join(layers))


def _forward(bundle: Bundle) -> list[str]:
    """The lines from `inputs` to the logits of one image."""
    config = bundle.config
    backbone, spatial = config.model.backbone, config.model.contrast_level == "spatial"
    call, is_map = "encoder(inputs)", True
    if is_timm(backbone):
        call, is_map = "encoder.forward_features(inputs)", facts(backbone, config.data.image_size).is_map
        call = call if is_map else f"encoder.forward_head({call}, pre_logits=True)"
    if spatial:
        return [
            f"rows = {call}.flatten(2).transpose(1, 2).flatten(0, 1)",
            "return head(rows).mean(dim=0, keepdim=True)",
        ]
    return [f"return head({call}{'.mean(dim=(2, 3))' if is_map else ''})"]
