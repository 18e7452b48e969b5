"""scale-ray export: a trained model as a folder that needs no store."""

from pathlib import Path
from typing import Annotated

import typer

from scale_ray.cli import complete
from scale_ray.cli.console import console
from scale_ray.cli.groups import command
from scale_ray.config import check_name
from scale_ray.errors import shown

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="STORE/ID (the first digits do), STORE/records/ID.json, a store with one record, or a bundle's folder.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Weights of a frozen encoder, where they are not where the record says."),
]

FORMATS = ("safetensors", "onnx", "torchscript")
INPUTS = ("float", "uint8")


@command
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="It is made; other formats of this model may lie there.")],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.of(*FORMATS),
            help="safetensors: the bundle, which `scale-ray predict` and plain PyTorch open. onnx, torchscript: one "
            "graph from images to logits; torch has deprecated TorchScript.",
        ),
    ] = "safetensors",
    input: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            autocompletion=complete.of(*INPUTS),
            help="Images of a graph, (N, 3, S, S) for any N: float in [0, 1], or uint8. It normalises them itself.",
        ),
    ] = "float",
    weights: Weights = None,
) -> None:
    """Write a trained model with its classes, its preprocessing and a model card into a folder.

    The model must be stored: that of a frozen encoder is by default, any other with --keep-model.
    """
    check_name("--format", format, FORMATS)
    check_name("--input", input, INPUTS)

    from scale_ray.bundle.export import export as write

    found = write(model, out, format=format, given=input, weights=weights)  # type: ignore[arg-type]
    if found.removed:
        console.print(f"removed from {shown(out)}: {', '.join(found.removed)}, of another model")
    checked = "" if found.difference is None else f": logits differ from PyTorch's by {found.difference:.1e} at most"
    console.print(f"model: {shown(found.file)}{checked}")
