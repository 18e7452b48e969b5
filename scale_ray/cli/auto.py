"""scale-ray auto: the candidates that fit, within a budget, and the one to use."""

from typing import Annotated

import typer

from scale_ray.cli import presets
from scale_ray.cli.console import console
from scale_ray.cli.options import EXECUTION, ExecutionOptions, GridOptions, StudyOptions, TrialOptions
from scale_ray.cli.report import Choose
from scale_ray.cli.running import run_and_report
from scale_ray.cli.study import check_chooser, with_options
from scale_ray.config import ConfigError
from scale_ray.records import DEFAULT_CHOOSER


def auto(
    grid: GridOptions,
    trial: TrialOptions,
    ray: StudyOptions,
    execution: ExecutionOptions,
    choose: Choose = DEFAULT_CHOOSER,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            help="Steps of source_only, for each pair and seed, that all candidates together may cost: the cheapest "
            "are taken first. Default: no limit.",
            rich_help_panel=EXECUTION,
        ),
    ] = None,
) -> None:
    """Train candidates that rely on different things, cheapest first, and name the one to use without target labels.

    The candidates: the nearest class mean on the encoder's features, no adaptation, class confusion, alignment,
    self-training. The same command goes on after an interruption or with a larger budget.
    """
    from scale_ray.training.candidates import affordable

    if grid.methods is not None or grid.losses is not None:
        raise ConfigError("--methods, --losses: scale-ray auto has its own candidates: use scale-ray compare")
    check_chooser(choose)
    begun = with_options(presets.automatic(), trial, grid, ray.fields)
    found = affordable(begun.base, begun.usual, budget)
    for text, reason in found.left_out.items():
        console.print(f"left out: {text}: {reason}", markup=False)
    if not found.changes:
        raise ConfigError("no candidate is left: raise --budget, or mend the settings that are named above")
    study = begun.with_axes({"method": found.changes})
    run_and_report(study, execution.execution(trial.images), grid, ray, choose)
