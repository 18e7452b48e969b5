"""A model as one graph, from images to logits: ONNX and TorchScript, each checked against PyTorch before it is left."""

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from scale_ray.bundle.contents import ONNX, TORCHSCRIPT, Bundle
from scale_ray.bundle.predictor import Predictor, build_predictor
from scale_ray.config import ConfigError
from scale_ray.data.views import IMAGENET_MEAN, IMAGENET_STD
from scale_ray.extras import how_to_install
from scale_ray.store.files import replace_file

Input = Literal["uint8", "float"]

# Images of the checks: another number than the one that the graph was made with.
_CHECKED = 3

# Largest difference of logits, relative to the largest logit, that rounding explains.
_TOLERANCE = 1e-3


class Graph(nn.Module):
    """From images (N, 3, S, S) to logits (N, K), float32; normalisation is a part of it.

    Args:
        predictor: gets normalised images.
        given: `uint8`, or `float` in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor, given: Input):
        super().__init__()
        self.predictor, self.scale = predictor, 255.0 if given == "uint8" else 1.0
        predictor.bf16 = False  # graphs run in float32 everywhere
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.predictor((images.float() / self.scale - self.mean) / self.std)
        return logits


def graph_of(bundle: Bundle, given: Input) -> Graph:
    return Graph(build_predictor(bundle.config, bundle.state), given)


def example_images(bundle: Bundle, given: Input, count: int = 2) -> Tensor:
    """Random images (count, 3, S, S) as the graph takes them."""
    size = bundle.config.data.image_size
    pixels = torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(count))
    return pixels.to(torch.uint8) if given == "uint8" else pixels / 255


def check_onnx() -> None:
    """Refuse, before any work, what ONNX needs and is not there.

    Raises:
        ConfigError: a package of the extra `onnx` is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format onnx needs {', '.join(missing)}: {how_to_install('onnx')}")


def write_onnx(bundle: Bundle, given: Input, folder: Path) -> float:
    """Write model.onnx: input `images` (N, 3, S, S) for any N, output `logits` (N, K).

    Returns:
        The largest difference of logits between onnxruntime and PyTorch on random images.

    Raises:
        ConfigError: the extra `onnx` is not installed, or the graph computes something else.
    """
    check_onnx()
    graph, images = graph_of(bundle, given), example_images(bundle, given)
    file = io.BytesIO()
    with _quietly():
        program = torch.onnx.export(
            graph,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        file.write(program.model_proto.SerializeToString())
    content = file.getvalue()
    difference = _checked(graph, example_images(bundle, given, _CHECKED), run_onnx(content, bundle, given), ONNX)
    replace_file(folder / ONNX, content)
    return difference


def run_onnx(content: bytes, bundle: Bundle, given: Input) -> Tensor:
    """Logits of the check's images by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": example_images(bundle, given, _CHECKED).numpy()})
    return torch.from_numpy(np.asarray(logits))


def write_torchscript(bundle: Bundle, given: Input, folder: Path) -> float:
    """Write model.pt, which `torch.jit.load` opens; what goes in and comes out is that of `write_onnx`.

    Returns: as `write_onnx`.
    """
    graph, images = graph_of(bundle, given), example_images(bundle, given)
    file = io.BytesIO()
    with _quietly(), torch.no_grad():
        traced = torch.jit.trace(graph, (images,), check_trace=False)
        torch.jit.save(traced, file)
        images = example_images(bundle, given, _CHECKED)
        difference = _checked(graph, images, traced(images), TORCHSCRIPT)
    replace_file(folder / TORCHSCRIPT, file.getvalue())
    return difference


def _checked(graph: Graph, images: Tensor, found: Tensor, name: str) -> float:
    with torch.inference_mode():
        expected = graph(images)
    difference = float((expected - found).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ConfigError(
            f"{name}: its logits differ from PyTorch's by {difference:g}: this encoder cannot be exported so: choose "
            "another --format"
        )
    return difference


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' messages to their developers, that torch.jit is deprecated among them."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
