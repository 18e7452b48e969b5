"""What commands that run a grid of trials share: its options, its base config, its plan and the run itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scale_ray.cli.collect import report
from scale_ray.cli.console import INTERRUPTED, console
from scale_ray.cli.options import EXECUTION, base_config, read_config, read_pairs, read_settings, typed
from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.store import Store
from scale_ray.study import Study, describe

if TYPE_CHECKING:
    from scale_ray.sweep.cluster import Resources
    from scale_ray.sweep.plan import Plan
    from scale_ray.training.stages import Stage

GRID = "The grid"

Pairs = Annotated[
    str | None,
    typer.Option(metavar="S:T,…", help="Domain pairs. Default: all of the benchmark's.", rich_help_panel=GRID),
]
Seeds = Annotated[
    str, typer.Option(metavar="N", help="How many: 3 means 0, 1, 2. Or the seeds: 7,8.", rich_help_panel=GRID)
]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Run only the first N cells.", rich_help_panel=GRID)
]
Sharing = Annotated[
    bool,
    typer.Option(
        "--sharing/--no-sharing",
        metavar="",
        help="Train once what cells have in common; records are the same either way.",
        rich_help_panel=EXECUTION,
    ),
]

# What the grid's options decide in each cell of any grid.
_OF_EVERY_GRID = {"seed": "--seeds", "data.source": "--pairs", "data.target": "--pairs"}


def base_of_grid(
    options: Mapping[str, Any],
    decided: Mapping[str, str],
    *,
    pairs: str | None,
    steps: int | None,
    config: Path | None,
    settings: list[str] | None,
) -> tuple[TrialConfig, list[tuple[str, str]]]:
    """What all cells share, and the domain pairs: those named, else the benchmark's usual ones.

    Args:
        options: dotted path -> value, or None where the option was not given.
        decided: dotted path -> the option that decides it in each cell, beside seeds and pairs.
        pairs, steps, config, settings: as the options of the same names.

    Raises:
        ConfigError: a file or setting names what the grid decides, or a field or value cannot be.
    """
    from scale_ray.data.benchmarks import canonical_domain, check_benchmark

    fixed = read_settings(settings)
    of_the_grid = _OF_EVERY_GRID | dict(decided)
    for origin, fields in (("--set", fixed), (f"--config {config}", read_config(config))):
        for path in fields:
            if path in of_the_grid:
                raise ConfigError(f"{origin} {path}: the grid decides it: use {of_the_grid[path]}")
    named = read_pairs(pairs) if pairs else []
    source, target = named[0] if named else (None, None)
    given = {**options, "data.source": source, "data.target": target}
    base = base_config(given, steps=steps, file=config, settings=fixed)
    known = base.data.benchmark
    canonical = [(canonical_domain(known, one), canonical_domain(known, other)) for one, other in named]
    return base, canonical or list(check_benchmark(known).pairs) or [(base.data.source, base.data.target)]


def run_grid(
    study: Study,
    storage: str,
    execution: Execution,
    *,
    limit: int | None,
    sharing: bool,
    dry_run: bool,
    cpus_per_trial: int,
    gpus_per_trial: float | None,
    workers_per_trial: int | None,
    address: str | None,
) -> None:
    """Print the plan of a study; unless it is a dry run, run what is missing and write the report."""
    opened = Store(storage, create=True)

    from scale_ray.sweep.plan import plan_study

    plan = plan_study(
        study,
        opened,
        execution.root,
        limit=limit,
        with_models=execution.keep_model,
        share=sharing,
        command=typed(),
    )
    _print_plan(plan, opened, whole=dry_run)
    if dry_run:
        return

    from scale_ray.sweep.run import run_study

    resources = resources_of(study.base, cpus_per_trial, gpus_per_trial, workers_per_trial, address)
    outcome = run_study(plan, opened, execution, resources, console)
    report(opened.location)
    if outcome.interrupted:
        console.print(f"interrupted with {outcome.interrupted} cells to do: run the same command again to go on")
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        console.print(
            f"{outcome.failed} cells failed, their reasons are in the report: run the same command to try them again"
        )
        raise typer.Exit(1)


def resources_of(
    base: TrialConfig, cpus: int, gpus: float | None, workers: int | None, address: str | None
) -> "Resources":
    """What a trial asks Ray for. Workers that the config has, and not the option, train through Ray Train too."""
    from scale_ray.sweep.cluster import Resources

    trained_by = base.parallel.workers if workers or base.parallel.workers > 1 else None
    return Resources(cpus=cpus, gpus=gpus, workers=trained_by, address=address)


def _print_plan(plan: "Plan", store: Store, *, whole: bool) -> None:
    from scale_ray.sweep.progress import duration

    if whole:
        _print_cells(plan)
        _print_stages(plan)
    seconds = plan.estimated_seconds(store) if plan.todo else None
    cost = f", about {duration(seconds)} of one trial slot" if seconds else ""
    unknown = "; time is known once cells have finished" if plan.todo and seconds is None else ""
    saving = plan.steps_alone - plan.steps_to_do
    shared = f" ({plan.steps_alone:,} if none shared: {saving / plan.steps_alone:.0%} saved)" if saving else ""
    console.print(
        f"{plan.study.name}: {len(plan.study.cells)} cells, {len(plan.answered)} done, {len(plan.todo)} to do "
        f"({len(plan.failed_before)} failed before), {plan.steps_to_do:,} steps{shared}{cost}{unknown}"
    )


def _print_cells(plan: "Plan") -> None:
    todo = {cell.id for cell in plan.todo}
    for cell in plan.study.cells:
        answer = "done" if cell.id in plan.answered else "not in this run"
        state = answer if cell.id not in todo else "failed before" if cell.id in plan.failed_before else "to do"
        console.print(f"{cell.id[:12]}  {describe(cell.config):<60} {state}")


def _print_stages(plan: "Plan") -> None:
    """What will be trained, each stage below the one that it goes on from."""
    console.print(f"{len(plan.stages)} stages to train:")
    trained = {stage.key for stage in plan.stages}
    for root in plan.stages:
        if root.parent in trained:
            continue
        stored = "" if root.parent is None else ", from a stored state"
        console.print(f"  {_stage_line(root)}{stored}")
        for stage in plan.stages:
            if stage.parent == root.key:
                console.print(f"    {_stage_line(stage)}")


def _stage_line(stage: "Stage") -> str:
    records = f", {len(stage.ends)} records" if len(stage.ends) > 1 else ""
    steps = f"steps {stage.first:,} to {stage.last:,}" if stage.steps else "no step, measured as it is"
    return f"{stage.title}: {steps}{records}"
