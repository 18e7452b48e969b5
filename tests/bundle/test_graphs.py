"""Graphs of models: onnxruntime and TorchScript give PyTorch's logits, for any number of images."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from quick import slow_but
from test_bundles import made_up

from scale_ray import UserError
from scale_ray.bundle import graph as module
from scale_ray.bundle.contents import Bundle, write_beside, write_model
from scale_ray.bundle.export import export
from scale_ray.bundle.graph import graph_of, write_onnx, write_torchscript
from scale_ray.bundle.model import Model

HEADS = ("linear", "prototypes")
CHANGES: dict[str, dict[str, str]] = {
    "lenet": {},
    "at every location": {"model.contrast_level": "spatial"},
    "bfloat16": {"optim.precision": "bf16"},
    **{head: {} for head in HEADS},
    "resnet18": {"model.backbone": "resnet18"},
    "transformer": {"model.backbone": "timm:test_vit.r160_in1k"},
}


@cache
def made(kind: str) -> Bundle:
    return made_up(CHANGES[kind], **({kind: 1} if kind in HEADS else {}))


def images(bundle: Bundle, given: str, count: int) -> torch.Tensor:
    size = bundle.config.data.image_size
    pixels = torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    return pixels if given == "uint8" else pixels / 255


@pytest.mark.parametrize("kind", slow_but(("lenet", "at every location"), CHANGES))
def test_onnxruntime_gives_pytorchs_logits(kind: str, tmp_path: Path) -> None:
    assert_alike(made(kind), "float", tmp_path)


def test_onnxruntime_takes_images_as_they_are_stored(tmp_path: Path) -> None:
    assert_alike(made("lenet"), "uint8", tmp_path)


def assert_alike(bundle: Bundle, given: str, folder: Path) -> None:
    """The ONNX graph gives the logits of the bundle's network, for any number of images."""
    assert write_onnx(bundle, given, folder) < 1e-4  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        batch = images(bundle, given, count)
        (found,) = session.run(["logits"], {"images": batch.numpy()})
        with torch.inference_mode():
            expected = graph_of(bundle, given)(batch).numpy()  # type: ignore[arg-type]
        assert found.shape == (count, 4)
        assert np.abs(found - expected).max() < 1e-4
        assert np.ptp(expected, axis=1).min() > 0.01


@pytest.mark.parametrize("kind", CHANGES)
def test_torchscript_gives_pytorchs_logits(kind: str, tmp_path: Path) -> None:
    bundle = made(kind)
    assert write_torchscript(bundle, "uint8", tmp_path) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.load(tmp_path / "model.pt")
    batch = images(bundle, "uint8", 5)
    with torch.inference_mode():
        torch.testing.assert_close(scripted(batch), graph_of(bundle, "uint8")(batch))


def test_a_graph_classifies_as_the_model_does(tmp_path: Path) -> None:
    """Its input is what a model sees of an image that needs no resize: the middle of the pixels."""
    bundle = made_up({"data.resize": 32})
    write_onnx(bundle, "uint8", tmp_path)
    batch = images(bundle, "uint8", 3)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": batch.numpy()})
    found = torch.from_numpy(logits).double().softmax(dim=1).numpy()
    assert np.abs(Model(bundle, "cpu").probabilities(batch) - found).max() < 1e-5


def test_formats_share_a_folder(tmp_path: Path) -> None:
    write_beside(made("lenet"), "card", tmp_path / "model")
    write_model(made("lenet"), tmp_path / "model")
    for name in ("onnx", "torchscript", "safetensors"):
        export(tmp_path / "model", tmp_path / "model", format=name)  # type: ignore[arg-type]
    files = {"model.safetensors", "model.onnx", "model.pt", "config.json", "classes.json", "preprocessing.json"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == files | {"README.md"}


def test_a_graph_that_computes_something_else_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.run_onnx
    monkeypatch.setattr(module, "run_onnx", lambda *arguments: right(*arguments) + 0.5)
    with pytest.raises(UserError, match=r"model\.onnx: its logits differ from PyTorch's by 0\.5"):
        write_onnx(made("lenet"), "float", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = module.importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else there(name)
    )
    with pytest.raises(UserError, match=r"needs onnx, onnxscript, onnxruntime: pip install .*\[onnx\]"):
        export(tmp_path, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()
