"""`export`: a trained model as a folder that needs no store."""

from pathlib import Path
from typing import Literal, NamedTuple

from scale_ray.bundle.card import model_card
from scale_ray.bundle.contents import MODEL, ONNX, TORCHSCRIPT, read_card, write_beside, write_model
from scale_ray.bundle.find import find_model
from scale_ray.bundle.graph import Input, check_onnx, write_onnx, write_torchscript

Format = Literal["safetensors", "onnx", "torchscript"]


class Exported(NamedTuple):
    """What `export` has done.

    Attributes:
        file: the model.
        difference: of a graph, the largest difference of its logits from PyTorch's on random images.
        removed: names of the files in the folder that were of another model.
    """

    file: Path
    difference: float | None
    removed: list[str]


def export(
    model: str | Path,
    out: str | Path,
    *,
    format: Format = "safetensors",
    given: Input = "float",
    weights: str | Path | None = None,
) -> Exported:
    """Write a trained model with its classes, preprocessing and card into a folder.

    Args:
        model, weights: as in `find_model`.
        out: the folder; it may hold other formats of this model already. Those of another one are removed.
        format: `safetensors` is the bundle; `onnx` and `torchscript` are graphs from images (N, 3, S, S) to logits.
        given: what a graph gets: `uint8`, or `float` in [0, 1].

    Raises:
        UserError: there is no such model, the format's packages are not installed, or the folder cannot be used.
    """
    if format == "onnx":
        check_onnx()
    folder = Path(out).expanduser()
    bundle, record = find_model(model, weights)
    card = read_card(Path(model).expanduser()) if record is None else model_card(bundle, record)
    removed = write_beside(bundle, card, folder)
    if format == "safetensors":
        write_model(bundle, folder)
        return Exported(folder / MODEL, None, removed)
    if format == "onnx":
        return Exported(folder / ONNX, write_onnx(bundle, given, folder), removed)
    return Exported(folder / TORCHSCRIPT, write_torchscript(bundle, given, folder), removed)
