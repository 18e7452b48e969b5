"""scale-ray run: the experiments that come with the package, each a file with a study and its own options."""

import runpy
import sys
from typing import Annotated

import typer

from scale_ray.cli.shipped import shipped
from scale_ray.config import check_name

# What the file of each is about, as its first line says.
EXPERIMENTS = {
    "demo": "a real ablation grid on handwritten digits, in minutes",
    "ablation": "the paper's ablation: every domain pair x loss combination x backbone x seed",
    "comparison": "the paper's Table 2 with measured rows, on digits by default",
    "comparison_pacs": "six methods on photographs and drawings, with a small encoder",
    "frozen_pacs": "the paper's grid on PACS with a frozen encoder, in minutes",
    "leaderboard": "every method and variant on digits, PACS and EmojiPhoto-22",
    "tuning": "threshold and temperature without target labels",
    "batch_norm": "BatchNorm of both domains together and of each alone",
}


def run(
    context: typer.Context,
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help=f"One of {', '.join(EXPERIMENTS)}.", show_default=False)
    ],
) -> None:
    """Run an experiment that comes with the package. What follows its name are its own options; --help lists them.

    The file of an experiment is a few lines of Python: `scale-ray init` writes one of your own.
    """
    check_name("experiment", experiment, EXPERIMENTS)
    path = shipped("experiments") / f"{experiment}.py"
    sys.argv = [str(path), *context.args]
    runpy.run_path(str(path), run_name="__main__")
