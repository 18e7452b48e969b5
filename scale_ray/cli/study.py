"""A study on the command line: options change the study that a command or an experiment starts from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from scale_ray.budget import read_budget
from scale_ray.cli.configs import config_from
from scale_ray.cli.groups import command
from scale_ray.cli.images import usual_pairs
from scale_ray.cli.options import EXECUTION, ExecutionOptions, GridOptions, StudyOptions, TrialOptions
from scale_ray.cli.read import read_axes, read_config, read_seeds, read_settings, split_list
from scale_ray.cli.report import Choose
from scale_ray.cli.running import run_and_report
from scale_ray.config import DEFAULTS, ConfigError, check_name
from scale_ray.config.problems import parsed
from scale_ray.data.defaults import own_fields, usual_settings
from scale_ray.records import ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES
from scale_ray.study import Change, Study, Until, approaches, change_of, combinations, pairs
from scale_ray.sweep.meter import Meter

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
        grid: GridOptions,
        trial: TrialOptions,
        ray: StudyOptions,
        execution: ExecutionOptions,
        choose: Choose = None,
        budget: Annotated[
            str | None,
            typer.Option(
                metavar="AMOUNT",
                help="Stop after 40m, 20gpu-hours or 30usd; seeds are trained one after the other.",
                rich_help_panel=EXECUTION,
            ),
        ] = None,
        with_report: Annotated[
            bool,
            typer.Option(
                "--report/--no-report",
                help="Write the report at the end; `scale-ray report` writes it at any time.",
                rich_help_panel=EXECUTION,
            ),
        ] = True,
    ) -> None:
        check_chooser(choose)
        if choose is not None and not with_report:
            raise ConfigError("--choose: the report makes the choice: leave out --no-report")
        meter = None if budget is None else Meter(read_budget(budget))
        study = with_options(start(), trial, grid, ray.fields)
        if grid.methods is None and grid.losses is None:
            study = usual_methods(study)
        run_and_report(study, execution.execution(trial.images), grid, ray, choose, meter, with_report=with_report)

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
    if grid.until is not None and not 0 < grid.until <= 100:
        raise ConfigError(f"--until {grid.until:g}: write points of accuracy above 0, as in 1.0")
    if grid.limit is not None:
        raise ConfigError("--until, --limit: a study that is cut decides nothing: leave one of them out")
    return parsed(Until, (before.model_dump() if before else {}) | changes)


def _axes_of(study: Study, benchmark: str) -> Axes:
    """The study's axes with the usual domain pairs and backbones of another benchmark."""
    from scale_ray.data.benchmarks import check_benchmark

    entry, axes = check_benchmark(benchmark), dict(study.axes)
    if "pair" in axes:
        axes["pair"] = pairs(*map(":".join, entry.pairs))
    if "model.backbone" in axes:
        usual = entry.defaults.get("model.backbone", DEFAULTS.model.backbone)
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
