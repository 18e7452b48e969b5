"""A study on the command line: options change the study that a command or an experiment starts from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from scale_ray.cli.configs import config_from, own_fields
from scale_ray.cli.console import INTERRUPTED, console
from scale_ray.cli.groups import ExecutionOptions, GridOptions, RayOptions, TrialOptions, command
from scale_ray.cli.read import command_line, read_axes, read_config, read_seeds, read_settings, split_list
from scale_ray.cli.report import report
from scale_ray.config import BaselineConfig, ConfigError, Execution, TrialConfig, check_name
from scale_ray.store import Store
from scale_ray.study import Change, Study, approaches, change_of, combinations, describe, pairs

if TYPE_CHECKING:
    from scale_ray.sweep.plan import Plan
    from scale_ray.training.stages import Stage

Axes = dict[str, list[Any]]

# The options that set the values of a field in each cell; of any other field, --axis does.
_OPTIONS = {
    "seed": "--seeds",
    "data.source": "--pairs",
    "data.target": "--pairs",
    "model.backbone": "--backbones",
}


def study_command(start: Callable[[], Study], about: str) -> Callable[..., None]:
    """A command that runs a study.

    Args:
        start: the study without any option.
        about: its help.
    """

    def run(grid: GridOptions, trial: TrialOptions, ray: RayOptions, execution: ExecutionOptions) -> None:
        study = with_options(start(), trial, grid, ray.fields)
        if ray.dry_run and "method" in study.axes:
            _print_methods([study.base.replace(change) for change in study.axes["method"]])
        run_and_report(study, execution.execution(trial.root), grid, ray)

    run.__doc__ = about
    return command(run)


def with_options(study: Study, trial: TrialOptions, grid: GridOptions, options: Mapping[str, Any]) -> Study:
    """The study with what the options change.

    Another benchmark than the study's brings its own usual domain pairs and backbones.

    Args:
        study: what the command starts from.
        trial: change the base config.
        grid: change axes.
        options: further fields of the base config, dotted path -> value.

    Raises:
        ConfigError: an option cannot be read, or a field is set that an axis decides.
    """
    file, settings = read_config(trial.config), read_settings(trial.settings)
    before = study.base.data.benchmark
    benchmark = str((file | trial.fields | settings).get("data.benchmark", before))
    axes = study.axes if benchmark == before else _axes_of(study, benchmark)
    axes = _changed_axes(axes, grid, benchmark)
    if grid.backbones is None and "model.backbone" in file | settings:
        axes = _put(axes, "model.backbone", None)
    elif grid.backbones is not None:
        backbones = split_list(grid.backbones)
        if len(backbones) == 1 and "model.backbone" not in axes:
            options = {**options, "model.backbone": backbones[0]}
        else:
            axes = _put(axes, "model.backbone", backbones)
    _refuse_decided(axes, {"--set": settings, f"--config {trial.config}": file})

    pair: Change = axes["pair"][0] if axes.get("pair") else {}
    if not pair and benchmark == before:
        pair = {path: study.base.value(path) for path in ("data.source", "data.target")}
    base = config_from(trial, options, benchmark=before, own=own_fields(study.base) | pair)
    if "method" in axes:
        base, approached = _share_out(base, axes["method"])
        axes = axes | {"method": approached}
    return Study(grid.name or _renamed(study.name, before, benchmark), base, axes).where(study.keep)


def run_and_report(study: Study, execution: Execution, grid: GridOptions, ray: RayOptions) -> None:
    """Print the plan of a study; unless it is a dry run, run what is missing and write the report."""
    store = Store(ray.storage, create=True)

    from scale_ray.sweep.plan import plan_study

    plan = plan_study(
        study,
        store,
        execution.root,
        limit=grid.limit,
        with_models=execution.keep_model,
        share=grid.sharing,
        command=command_line(),
    )
    _print_plan(plan, store, whole=ray.dry_run)
    if ray.dry_run:
        return

    from scale_ray.sweep.run import run_study

    outcome = run_study(plan, store, execution, ray.resources(study.base.parallel.workers), console)
    report(store.location)
    if outcome.interrupted:
        console.print(f"interrupted with {outcome.interrupted} cells to do: run the same command again to go on")
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        console.print(
            f"{outcome.failed} cells failed, their reasons are in the report: run the same command to try them again"
        )
        raise typer.Exit(1)


def _axes_of(study: Study, benchmark: str) -> Axes:
    """The study's axes with the usual domain pairs and backbones of another benchmark."""
    from scale_ray.data.benchmarks import check_benchmark

    entry, axes = check_benchmark(benchmark), dict(study.axes)
    if "pair" in axes:
        axes["pair"] = pairs(*map(":".join, entry.pairs))
    if "model.backbone" in axes:
        usual = entry.defaults.get("model.backbone", TrialConfig().model.backbone)
        axes["model.backbone"] = list(entry.backbones) or [usual]
    return axes


def _changed_axes(axes: Axes, grid: GridOptions, benchmark: str) -> Axes:
    """The axes with the values that options name, each in its position."""
    from scale_ray.data.benchmarks import canonical_domain

    axes = dict(axes)
    if grid.pairs is not None:
        with _named("--pairs"):
            named = pairs(*split_list(grid.pairs))
            axes["pair"] = [{path: canonical_domain(benchmark, name) for path, name in pair.items()} for pair in named]
    if grid.seeds is not None:
        axes["seed"] = read_seeds(grid.seeds)
    if grid.losses is not None and grid.methods is not None:
        raise ConfigError("--losses, --methods: both set the method of a cell: give one of them")
    if grid.losses is not None:
        axes = _put(axes, "losses", combinations(*split_list(grid.losses)), instead_of="method")
    if grid.methods is not None:
        with _named("--methods"):
            axes = _put(axes, "method", approaches(*split_list(grid.methods)), instead_of="losses")
    return axes | read_axes(grid.axes)


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Put the option that was given before the message of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def _put(axes: Axes, name: str, values: list[Any] | None, instead_of: str | None = None) -> Axes:
    """The axes with this one in its position or in that of another; None removes it."""
    found: Axes = {}
    for axis, before in axes.items():
        if axis not in (name, instead_of):
            found[axis] = before
        elif values is not None:
            found[name] = values
    return found if values is None or name in found else {**found, name: values}


def _refuse_decided(axes: Axes, given: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse fields, by the option that gives them, that an axis decides in each cell."""
    decided = {path: axis for axis, values in axes.items() for value in values for path in change_of(axis, value)}
    for origin, fields in given.items():
        for path in fields:
            if path in decided:
                axis = decided[path]
                option = _OPTIONS.get(path, {"losses": "--losses", "method": "--methods"}.get(axis, f"--axis {path}=…"))
                raise ConfigError(f"{origin} {path}: the grid decides it: use {option}")


def _share_out(base: TrialConfig, approaches: list[Change]) -> tuple[TrialConfig, list[Change]]:
    """Give the settings of the baselines in `base` to the methods that read them, and to no other."""
    from scale_ray.methods import METHODS

    usual = BaselineConfig()
    given = {
        f"baseline.{field}": getattr(base.baseline, field)
        for field in BaselineConfig.model_fields
        if getattr(base.baseline, field) != getattr(usual, field)
    }
    shared = []
    for change in approaches:
        method = change.get("method", base.method)
        check_name("method", method, METHODS)
        read = {path: value for path, value in given.items() if path.removeprefix("baseline.") in METHODS[method].reads}
        shared.append({**read, **change})
    return base.replace({path: getattr(usual, path.removeprefix("baseline.")) for path in given}), shared


def _renamed(name: str, before: str, benchmark: str) -> str:
    """The study's name with another benchmark, where it ends with the benchmark's name."""
    return name.removesuffix(before) + benchmark if name.endswith(before) else name


def _print_methods(configs: list[TrialConfig]) -> None:
    """The source of each method, the origin of its settings, and the cost of a step."""
    from scale_ray.methods import METHODS

    for config in configs:
        check_name("method", config.method, METHODS)
        method = METHODS[config.method]
        cost = method.passes(config).cost
        terms = f" {config.combination}" if config.method == "scale" else ""
        console.print(f"{config.variant}{terms}: {cost:.1f} x the passes of source_only")
        console.print(f"  {method.paper}")
        console.print(f"  defaults: {method.defaults}")


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
    """The stages to train, each below the one that it goes on from."""
    console.print(f"{len(plan.stages)} stages to train:")
    trained = {stage.key for stage in plan.stages}
    children: dict[str | None, list[Stage]] = {}
    for stage in plan.stages:
        children.setdefault(stage.parent, []).append(stage)
    for stage in plan.stages:
        if stage.parent in trained:
            continue
        stored = "" if stage.parent is None else ", from a stored state"
        console.print(f"  {_stage_line(stage)}{stored}")
        for child in children.get(stage.key, ()):
            console.print(f"    {_stage_line(child)}")


def _stage_line(stage: "Stage") -> str:
    records = f", {len(stage.ends)} records" if len(stage.ends) > 1 else ""
    steps = f"steps {stage.first:,} to {stage.last:,}" if stage.steps else "no step, measured as it is"
    return f"{stage.title}: {steps}{records}"
