"""scale-ray tune: a search for settings by a label-free validator, on Ray with Optuna."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scale_ray.cli import complete
from scale_ray.cli.console import console
from scale_ray.cli.found import print_search, write_results
from scale_ray.cli.groups import command
from scale_ray.cli.interrupt import GO_ON, on_ctrl_c
from scale_ray.cli.options import GRID, Backbone, ExecutionOptions, GridOptions, Losses, StudyOptions, TrialOptions
from scale_ray.cli.read import read_study_url
from scale_ray.cli.stop_signal import stop_signal
from scale_ray.cli.study import with_options
from scale_ray.cli.track import show_report
from scale_ray.config import ConfigError, check_name
from scale_ray.records import ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES, WITHIN_ONE_METHOD
from scale_ray.store import Store
from scale_ray.study import Study

if TYPE_CHECKING:
    from scale_ray.tuning.search import Search

SEARCH = "The search"

# The two that the paper chose "by cross-validation". With steps, so that settings of one threshold share their warm-up.
SPACE = ("losses.threshold=float:0.5:0.95:0.05", "losses.temperature=float:0.03:1:log")


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What is searched, and how."""

    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=RANGE",
            autocompletion=complete.field,
            help="A tuned field: float:LOW:HIGH[:STEP|:log], int:LOW:HIGH[:STEP|:log] or a|b|c. Repeat it. "
            "Default: losses.threshold and losses.temperature.",
            rich_help_panel=SEARCH,
        ),
    ] = None
    trials: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of distinct settings.", rich_help_panel=SEARCH)
    ] = 24
    validator: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.validator,
            help="What chooses: im, bnm, transfer_score or another of docs/method.md; oracle reads target labels.",
            rich_help_panel=SEARCH,
        ),
    ] = "im"
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="tpe, random, grid or cmaes.", rich_help_panel=SEARCH)
    ] = "tpe"
    sampler_seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the sampler.", rich_help_panel=SEARCH)
    ] = 0
    early_stop: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="none, asha, hyperband or median: stops first repeats at a point of their curve.",
            rich_help_panel=SEARCH,
        ),
    ] = "none"
    compare_repeats: Annotated[
        bool,
        typer.Option(
            "--compare-repeats/--all-repeats",
            help="End a setting that Wilcoxon's test puts below the best over its repeats so far (at least 4).",
            rich_help_panel=SEARCH,
        ),
    ] = True
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Largest number of trials at a time. Default: as many as Ray can hold.",
            rich_help_panel=SEARCH,
        ),
    ] = None
    study_url: Annotated[
        str | None,
        typer.Option(
            envvar="SCALE_RAY_STUDY_URL",
            metavar="URL|@FILE",
            help="Database of the Optuna study: sqlite:///FILE, postgresql://…, or the file that holds the URL, where "
            "it has a password. Default: a journal file in the store.",
            rich_help_panel=SEARCH,
        ),
    ] = None
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The search's name in the store.", rich_help_panel=SEARCH),
    ] = None


@dataclasses.dataclass(frozen=True)
class RepeatOptions:
    """What every setting is trained on."""

    pairs: Annotated[
        str | None,
        typer.Option(metavar="S:T,…", help="Domain pairs. Default: all of the benchmark's.", rich_help_panel=GRID),
    ] = None
    seeds: Annotated[
        str,
        typer.Option(metavar="N", help="How many: 3 means 0, 1, 2. Or the seeds: 7,8.", rich_help_panel=GRID),
    ] = "1"
    losses: Losses = None
    backbone: Backbone = None

    @property
    def fields(self) -> dict[str, Any]:
        given = {"losses.terms": self.losses, "model.backbone": self.backbone}
        return {path: value for path, value in given.items() if value is not None}


def tune_command(start: Callable[[], Study], about: str = "") -> Callable[..., None]:
    """A command that searches, on top of the base config of a study and on its domain pairs.

    Args:
        start: the study without any option; of its axes, `pair` is used.
        about: its help; by default that of `scale-ray tune`.
    """

    def tune(
        options: SearchOptions,
        repeats: RepeatOptions,
        trial: TrialOptions,
        ray: StudyOptions,
        execution: ExecutionOptions,
    ) -> None:
        """Search values of config fields on Ray with Optuna, by a validator that sees no target label.

        Each setting is trained on every pair and seed, and its score is the mean. Run the same command again after an
        interruption, or with more --trials: it goes on. The result is a config file for `ablate` and `train`: the
        default setting, unless another one is reliably better over the repeats.
        """
        if options.validator in SET_VALIDATOR_NAMES:
            raise ConfigError(
                f"--validator {options.validator}: it scores finished trainings among each other, and a search asks "
                "for the score of each: search by another one; with --keep-predictions the results show what "
                f"{options.validator} chooses"
            )
        check_name("validator", options.validator, [*VALIDATOR_NAMES, ORACLE])
        begun = start()
        # Seeds vary slowest, so that the first repeats are of all pairs.
        repeated = {"seed": [0]} | {axis: values for axis, values in begun.axes.items() if axis == "pair"}
        of_repeats = Study(begun.name, begun.base, repeated).where(begun.keep)
        grid = GridOptions(pairs=repeats.pairs, seeds=repeats.seeds, name=options.name)
        study = with_options(of_repeats, trial, grid, {**repeats.fields, **ray.fields})
        resources, url = ray.resources(study.base.parallel.workers), read_study_url(options.study_url)
        search = _search(study, options, trial)
        search.check()
        print_search(search)
        trackers = ray.trackers()
        if ray.dry_run:
            return

        from scale_ray.track import Tracking, study_cells
        from scale_ray.tuning.run import Interrupted, run_search

        store = Store(ray.store, create=True)
        on_ctrl_c(GO_ON)
        stop_signal.heed()
        with Tracking(trackers, search.name, [], store, console.print, list(search.space)) as tracking:
            running = execution.execution(trial.images)
            found = run_search(search, store, url, running, resources, console, stop_signal, [tracking])
            if not isinstance(found, Interrupted) and trackers:
                tracking.complete(cells=dict(study_cells(store, search.name))[search.name])
        if isinstance(found, Interrupted):
            stop_signal.progressed |= found.progressed
            shown = f"`scale-ray report {store.location}` shows what is done"
            console.print(f"interrupted: run the same command again to go on; {shown}")
            raise typer.Exit(stop_signal.exit_status)
        is_chosen = write_results(search, found, store)
        show_report(ray.track or (), store, search.name)
        if not is_chosen:
            console.print("no setting is done, so none is chosen: the table has the reasons")
            raise typer.Exit(1)

    tune.__doc__ = about or tune.__doc__
    return command(tune)


def _search(study: Study, options: SearchOptions, trial: TrialOptions) -> "Search":
    """The search on the cells of a study."""
    from scale_ray.tuning.search import Repeat, Search
    from scale_ray.tuning.space import MANY_FIELDS, read_space

    base = study.base.replace({"tuning": None})
    searched = read_space(options.space or SPACE, base)
    if len(searched) > MANY_FIELDS:
        console.print(
            f"warning: {len(searched)} fields are tuned at once: {options.trials} settings say little about so many; "
            "tune the few that matter first"
        )
    across = [path for path in ("method", "losses.terms") if path in searched]
    if across and options.validator in WITHIN_ONE_METHOD:
        console.print(
            f"warning: {options.validator} ranks trainings of one method and loss combination only, and --space varies "
            f"{' and '.join(across)}: it prefers those that train for certainty"
        )
    return Search(
        name=study.name,
        base=base,
        space=searched,
        repeats=[Repeat(config.data.source, config.data.target, config.seed) for config in study.cells()],
        validator=options.validator,
        settings=options.trials,
        sampler=options.sampler,
        seed=options.sampler_seed,
        early_stop=options.early_stop,
        compare_repeats=options.compare_repeats,
        parallel=options.parallel,
        root=trial.images,
    )
