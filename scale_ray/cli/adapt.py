"""scale-ray adapt: from images with and without labels to predictions."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from scale_ray.cli import complete
from scale_ray.cli.console import INTERRUPTED, console
from scale_ray.cli.interrupt import GO_ON, on_ctrl_c
from scale_ray.cli.options import EXECUTION, ExecutionOptions, RayOptions
from scale_ray.cli.read import read_seeds, read_settings
from scale_ray.cli.report import Choose
from scale_ray.config import ConfigError
from scale_ray.records import DEFAULT_CHOOSER

IMAGES = "The images"


@dataclasses.dataclass(frozen=True)
class AdaptExecution(ExecutionOptions):
    """Predictions are the result, and so is the model."""

    keep_model: bool | None = dataclasses.field(init=False, default=True)
    keep_predictions: bool = dataclasses.field(init=False, default=True)


def adapt(
    source: Annotated[
        str,
        typer.Option(
            metavar="IMAGES",
            help="With labels: a folder of class folders, a list (.csv, .parquet, .txt), or hf:NAME.",
            rich_help_panel=IMAGES,
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(
            metavar="IMAGES",
            help="Without labels: a folder of images at any depth, a list, or hf:NAME. Repeat it.",
            rich_help_panel=IMAGES,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where predictions and report go.", rich_help_panel=IMAGES)
    ],
    ray: RayOptions,
    execution: AdaptExecution,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Labels of some target images, for checking only: a list with path and label, or class folders. "
            "Default: the check.csv that --out has, once it is filled in.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    label_map: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="A class name that is replaced. Repeat it.", rich_help_panel=IMAGES),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="What the trainings may take, as in 90s, 30m or 2h: some steps of each candidate are measured first. "
            "Default: no limit.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
    choose: Choose = DEFAULT_CHOOSER,
    backbone: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.backbone,
            help="The encoder: mobilenet_v2, resnet50, timm:NAME …",
            rich_help_panel=EXECUTION,
        ),
    ] = "mobilenet_v2",
    weights: Annotated[
        str,
        typer.Option(metavar="WEIGHTS", help="imagenet, or the path of a state dict.", rich_help_panel=EXECUTION),
    ] = "imagenet",
    fine_tune: Annotated[
        bool,
        typer.Option("--fine-tune", help="Train the encoder too; hours without a GPU.", rich_help_panel=EXECUTION),
    ] = False,
    seeds: Annotated[
        str, typer.Option(metavar="N", help="Trainings of each candidate.", rich_help_panel=EXECUTION)
    ] = "1",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            autocompletion=complete.field,
            help="Any config field of all candidates. Repeat it.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
) -> None:
    """Predict images without labels, from images with labels that look different.

    Candidates that rely on different things are trained on Ray, cheapest first; one is chosen without a label of the
    target. FOLDER gets predictions.csv, report.html, and check.csv: images to label if you want to know how good the
    predictions are. The same command goes on after an interruption.
    """
    from scale_ray.adaptation.asked import ask
    from scale_ray.adaptation.run import adapt as run
    from scale_ray.track import check_targets

    asked = ask(
        source,
        target,
        label_map=_label_map(label_map or []),
        backbone=backbone,
        weights=weights,
        fine_tune=fine_tune,
        seeds=read_seeds(seeds),
        choose=choose or DEFAULT_CHOOSER,
        budget=budget,
        check=check,
        changes=read_settings(settings) | ray.fields,
    )
    on_ctrl_c(GO_ON)
    resources = ray.resources(asked.base.parallel.workers)
    execute = execution.execution(asked.catalogue)
    found = run(asked, out, execute, resources, console, dry_run=ray.dry_run, track=check_targets(ray.track or ()))
    if ray.dry_run:
        return
    console.print(str(found))
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)
    if found.failed:
        raise typer.Exit(1)


def _label_map(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (old, sign, new) in zip(given, pairs, strict=True) if not (old and sign and new)]:
        raise ConfigError(f"--label-map {wrong[0]}: write OLD=NEW")
    return {old: new for old, _, new in pairs}
