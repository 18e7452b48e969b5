"""A study on the command line: options change the study that a command or an experiment starts from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from scale_ray.cli.configs import config_from
from scale_ray.cli.console import console
from scale_ray.cli.groups import command
from scale_ray.cli.images import usual_pairs
from scale_ray.cli.interrupt import GO_ON, on_ctrl_c
from scale_ray.cli.options import ExecutionOptions, GridOptions, StudyOptions, TrialOptions
from scale_ray.cli.read import command_line, read_axes, read_config, read_seeds, read_settings, split_list
from scale_ray.cli.report import Choose, report
from scale_ray.cli.stop_signal import stop_signal
from scale_ray.cli.track import show_report
from scale_ray.config import ConfigError, Execution, Resources, TrialConfig, check_name
from scale_ray.config.problems import parsed
from scale_ray.data.defaults import own_fields, usual_settings
from scale_ray.records import ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES
from scale_ray.store import Store
from scale_ray.study import Change, Study, Until, approaches, change_of, combinations, pairs

if TYPE_CHECKING:
    from scale_ray.sweep.plan import Plan
    from scale_ray.sweep.run import Outcome
    from scale_ray.track import Tracker

Axes = dict[str, list[Any]]

# The options that set the values of a field in each cell; of any other field, --axis does.
_OPTIONS = {
    "seed": "--seeds",
    "data.source": "--pairs",
    "data.target": "--pairs",
    "model.backbone": "--backbone",
}

# The option that sets a field of the base config.
_OPTION_OF = {
    "data.benchmark": "--benchmark",
    "model.weights": "--weights",
    "model.encoder": "--frozen",
    "model.backbone": "--backbone",
    "losses.terms": "--losses",
    "parallel.workers": "--workers-per-trial",
}


def study_command(
    start: Callable[[], Study], about: str, usual_methods: Callable[[Study], Study] = lambda study: study
) -> Callable[..., None]:
    """A command that runs a study.

    Args:
        start: the study without any option.
        about: its help.
        usual_methods: the study, which has its base by now, with the methods that it has where no option names them.
    """

    def run(
        grid: GridOptions, trial: TrialOptions, ray: StudyOptions, execution: ExecutionOptions, choose: Choose = None
    ) -> None:
        check_chooser(choose)
        study = with_options(start(), trial, grid, ray.fields)
        if grid.methods is None and grid.losses is None:
            study = usual_methods(study)
        run_and_report(study, execution.execution(trial.images), grid, ray, choose)

    run.__doc__ = about
    return command(run)


def check_chooser(choose: str | None) -> None:
    """Refuse a validator that does not exist.

    Raises:
        ConfigError: it does not; the message names the most similar one.
    """
    if choose is not None:
        check_name("validator", choose, [*VALIDATOR_NAMES, *SET_VALIDATOR_NAMES, ORACLE])


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
    benchmark = str((file | trial.fields | settings).get("data.benchmark", trial.benchmark_or(before)))
    axes = study.axes if benchmark == before else _axes_of(study, benchmark)
    axes = _changed_axes(axes, grid, benchmark)
    if axes.get("pair") == []:
        axes["pair"] = pairs(*map(":".join, usual_pairs(trial.images)))
    if grid.backbone is None and "model.backbone" in file | settings:
        axes = _put(axes, "model.backbone", None)
    elif grid.backbone is not None:
        backbones = split_list(grid.backbone)
        if len(backbones) == 1 and "model.backbone" not in axes:
            options = {**options, "model.backbone": backbones[0]}
        else:
            axes = _put(axes, "model.backbone", backbones)
    _refuse_decided(axes, {"--set": settings, f"--config {trial.config}": file})
    # Backbone and weights of a method of its own go over those of the options, which are for the others.
    others = {axis: values for axis, values in axes.items() if axis != "method"}
    _refuse_decided(others, _options_given(trial, options))
    if axes.get("pair") == []:
        raise ConfigError(f"{benchmark} has no usual domain pair: name one with --pairs")
    begun = Study(grid.name or _renamed(study.name, before, benchmark), study.base, axes)

    pair: Change = axes["pair"][0] if axes.get("pair") else {}
    if not pair and benchmark == before:
        pair = {path: study.base.value(path) for path in ("data.source", "data.target")}
    only = axes.get("model.backbone", [])
    encoder = {"model.backbone": only[0]} if len(only) == 1 else {}  # it brings its size
    base = config_from(trial, options, benchmark=before, own=own_fields(study.base) | pair | encoder)
    given = {*file, *settings, *trial.fields, *options}
    usual = {
        method: {path: value for path, value in fields.items() if path not in given}
        for method, fields in (usual_settings(base) if study.usual else {}).items()
    }
    until = _until(study.until, grid)
    return Study(begun.name, base, axes, usual, until).where(study.keep)


def _until(before: Until | None, grid: GridOptions) -> Until | None:
    """What the study is to decide."""
    given = {"half_width": grid.until, "most_seeds": grid.most_seeds}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return before
    if before is None and grid.until is None:
        raise ConfigError("--most-seeds bounds what --until may add: give --until POINTS too, or leave it out")
    if grid.limit is not None:
        raise ConfigError("--until, --limit: a study that is cut decides nothing: leave one of them out")
    return parsed(Until, (before.model_dump() if before else {}) | changes)


def run_and_report(
    study: Study, execution: Execution, grid: GridOptions, ray: StudyOptions, choose: str | None = None
) -> None:
    """Print the plan of a study; unless it is a dry run, run what is missing and write the report.

    Args:
        choose: the validator that names the method and setting to use, among the study's cells.
    """
    if study.until is None:
        outcome = run_planned(study, execution, grid, ray, choose)
    else:
        outcome = _run_until(study, execution, grid, ray, choose)
    if outcome is None:
        return
    store = Store(ray.store)
    if outcome.interrupted:
        console.print(
            f"interrupted with {outcome.interrupted} cells to do: run the same command again to go on; "
            f"`scale-ray report {store.location}` shows what is done"
        )
        raise typer.Exit(stop_signal.exit_status)
    on_ctrl_c(f"all records are kept; `scale-ray report {store.location}` makes the report")
    choose = choose if outcome.done else None  # of nothing there is no choice, and why is said below
    report(store.location, choose=choose, study=study.name if choose else None)
    show_report(ray.track or (), store, study.name)
    if outcome.failed:
        console.print(
            f"{outcome.failed} cells failed, their reasons are in the report: mend the causes, then run the same "
            "command again"
        )
        raise typer.Exit(1)


def run_planned(
    study: Study, execution: Execution, grid: GridOptions, ray: StudyOptions, choose: str | None = None
) -> "Outcome | None":
    """Print the plan of a study; unless it is a dry run, run what is missing.

    Args:
        choose: the validator that is to choose, whose predictions every cell must then have or get.

    Returns:
        How the cells ended; None for a dry run.
    """
    resources, trackers = ray.resources(study.base.parallel.workers), ray.trackers()
    plan = _plan(study, execution, grid, ray, choose)
    return None if ray.dry_run else _run(plan, Store(ray.store), execution, resources, trackers)


def _run_until(
    study: Study, execution: Execution, grid: GridOptions, ray: StudyOptions, choose: str | None
) -> "Outcome | None":
    """As `run_planned`, and then with more seeds for what is not decided."""
    from scale_ray.track import check_targets
    from scale_ray.until import Rounds, run_rounds

    rounds, resources = Rounds(study), ray.resources(study.base.parallel.workers)
    check_targets(ray.track or ())
    if ray.dry_run:
        _plan(study, execution, grid, ray, choose)
        console.print(f"then more seeds for what is not decided: {rounds.most_cells():,} cells at most")
        return None
    store = Store(ray.store, create=True)

    return run_rounds(
        rounds,
        store,
        lambda each: _plan(each, execution, grid, ray, choose),
        lambda plan: _run(plan, store, execution, resources, ray.trackers()),
        lambda rounds: rounds.tell(console),
    )


def _plan(study: Study, execution: Execution, grid: GridOptions, ray: StudyOptions, choose: str | None) -> "Plan":
    """The plan of a study, printed."""
    from scale_ray.cli.plans import print_methods, print_plan
    from scale_ray.sweep.plan import describe_leaving, plan_study

    stop_signal.heed()
    store = Store(ray.store, create=not ray.dry_run, missing_ok=ray.dry_run)
    plan = plan_study(
        study,
        store,
        execution.root,
        limit=grid.limit,
        beside=execution.beside,
        share=grid.sharing,
        command=command_line(),
    )
    if choose in SET_VALIDATOR_NAMES and not execution.keep_predictions:
        _refuse_lacking(plan, store, choose)
    if ray.dry_run and "method" in study.axes:
        print_methods(study)
    print_plan(plan, store, whole=ray.dry_run)
    if ray.dry_run and plan.leaving:
        console.print(f"warning: {describe_leaving(plan.study.name, plan.leaving)}")
    return plan


def _run(
    plan: "Plan", store: Store, execution: Execution, resources: Resources, trackers: "dict[str, Tracker]"
) -> "Outcome":
    from scale_ray.sweep.run import run_study
    from scale_ray.track import Tracking

    on_ctrl_c(GO_ON)
    with Tracking(trackers, plan.study.name, plan.study.cells, store, console.print) as tracking:
        outcome = run_study(plan, store, execution, resources, console, stop_signal, [tracking])
        if not outcome.interrupted:
            tracking.complete(plan.answered)
    stop_signal.progressed |= outcome.progressed
    return outcome


def _refuse_lacking(plan: "Plan", store: Store, choose: str) -> None:
    """Refuse a choice that reads predictions of cells that have none and will get none."""
    stored = set(store.predictions_ids())
    lacking = sum(cell.id not in stored for cell in plan.study.cells)
    if lacking:
        raise ConfigError(
            f"--choose {choose} reads stored predictions, which {lacking:,} of {len(plan.study.cells):,} cells lack: "
            "add --keep-predictions (cells that are done without them are trained again)"
        )


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
            canonical = [{path: canonical_domain(benchmark, name) for path, name in pair.items()} for pair in named]
            axes = _put(axes, "pair", canonical)
    if grid.seeds is not None:
        axes = _put(axes, "seed", read_seeds(grid.seeds))
    if grid.losses is not None and grid.methods is not None:
        raise ConfigError("--losses, --methods: both set the method of a cell: give one of them")
    if grid.losses is not None:
        axes = _put(axes, "losses", combinations(*split_list(grid.losses)), "method")
    if grid.methods is not None:
        with _named("--methods"):
            axes = _put(axes, "method", approaches(*split_list(grid.methods)), "losses")
    added = read_axes(grid.axes)
    for path, option, given in (("seed", "--seeds", grid.seeds), ("model.backbone", "--backbone", grid.backbone)):
        if path in added and given is not None:
            raise ConfigError(f"--axis {path}, {option}: both set the same axis: give one of them")
    for path, values in added.items():
        axes = _put(axes, path, values)
    return axes


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Put the option that was given before the message of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def _put(axes: Axes, name: str, values: list[Any] | None, *replaced: str) -> Axes:
    """The axes with this one in its position or in that of one that it replaces; None removes it.

    It replaces the named axes, and those that set none but its fields.
    """
    fields = {path for value in values or [] for path in change_of(name, value)}
    found: Axes = {}
    for axis, before in axes.items():
        of_axis = {path for value in before for path in change_of(axis, value)}
        if axis not in (name, *replaced) and not (of_axis and of_axis <= fields):
            found[axis] = before
        elif values is not None:
            found[name] = values
    return found if values is None or name in found else {**found, name: values}


def _options_given(trial: TrialOptions, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Option -> the fields that it sets, of those options that were given."""
    given = {_OPTION_OF[path]: {path: value} for path, value in {**trial.fields, **options}.items()}
    return given if trial.steps is None else {**given, "--steps": {"optim.steps": trial.steps}}


def _refuse_decided(axes: Axes, given: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse fields, by the option that gives them, that an axis decides in each cell."""
    decided = {path: axis for axis, values in axes.items() for path in _set_by_all(axis, values)}
    if "pair" in axes:  # which has no value yet where a benchmark has no usual pair
        decided |= {"data.source": "pair", "data.target": "pair"}
    for origin, fields in given.items():
        for path in fields:
            if path in decided:
                axis = decided[path]
                option = _OPTIONS.get(path, {"losses": "--losses", "method": "--methods"}.get(axis, f"--axis {path}=…"))
                raise ConfigError(f"{origin} {path}: the grid decides it: use {option}")


def _set_by_all(axis: str, values: list[Any]) -> set[str]:
    """The fields that every value of an axis sets."""
    return set.intersection(*(set(change_of(axis, value)) for value in values)) if values else set()


def _renamed(name: str, before: str, benchmark: str) -> str:
    """The study's name with another benchmark, where it ends with the benchmark's name."""
    return name.removesuffix(before) + benchmark if name.endswith(before) else name
