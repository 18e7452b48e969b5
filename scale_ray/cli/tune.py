"""scale-ray tune: a search for settings by a label-free validator, on Ray with Optuna."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from scale_ray.cli.console import INTERRUPTED, console
from scale_ray.cli.found import print_search, write_results
from scale_ray.cli.grid import Pairs, Seeds, base_of_grid, resources_of
from scale_ray.cli.options import (
    TRAINED,
    Address,
    Benchmark,
    ChannelsLast,
    CheckpointEvery,
    Compile,
    ConfigFile,
    CpusPerTrial,
    Device,
    DryRun,
    Frozen,
    GpusPerTrial,
    KeepModel,
    Local,
    Root,
    Settings,
    Steps,
    Storage,
    Weights,
    WorkersPerTrial,
    read_seeds,
)
from scale_ray.config import ConfigError, Execution, check_name
from scale_ray.records import ORACLE, VALIDATOR_NAMES
from scale_ray.store import Store

if TYPE_CHECKING:
    from scale_ray.tuning.search import Repeat

SEARCH = "The search"

# The two that the paper chose "by cross-validation". In steps, so that settings with one threshold share their warm-up.
SPACE = ("losses.threshold=float:0.5:0.95:0.05", "losses.temperature=float:0.03:1:log")


def tune(
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=RANGE",
            help="A tuned field: float:LOW:HIGH[:STEP|:log], int:LOW:HIGH[:STEP|:log] or a|b|c. Repeat it. "
            f"Default: {' and '.join(SPACE)}.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, metavar="N", help="Distinct settings, in all.", rich_help_panel=SEARCH)
    ] = 24,
    validator: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"What chooses: {', '.join(VALIDATOR_NAMES)}; oracle reads target labels, to measure the others.",
            rich_help_panel=SEARCH,
        ),
    ] = "im",
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="tpe, random, grid or cmaes.", rich_help_panel=SEARCH)
    ] = "tpe",
    sampler_seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the sampler.", rich_help_panel=SEARCH)] = 0,
    early_stop: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="none, asha, hyperband or median: ends first repeats at a point of their curve.",
            rich_help_panel=SEARCH,
        ),
    ] = "none",
    compare_repeats: Annotated[
        bool,
        typer.Option(
            "--compare-repeats/--all-repeats",
            metavar="",
            help="End a setting that Wilcoxon's test puts below the best over its repeats so far (4 at least).",
            rich_help_panel=SEARCH,
        ),
    ] = True,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Trials at once at most. Default: as many as Ray holds.", rich_help_panel=SEARCH
        ),
    ] = None,
    study_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keeps the Optuna study: sqlite:///FILE, postgresql://…. Default: a journal file in the store.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The search's. Default: tuning-BENCHMARK.", rich_help_panel=SEARCH),
    ] = None,
    pairs: Pairs = None,
    seeds: Seeds = "1",
    losses: Annotated[
        str | None, typer.Option(metavar="TERMS", help="Loss combination.", rich_help_panel=TRAINED)
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoder. Default: the benchmark's.", rich_help_panel=TRAINED)
    ] = None,
    benchmark: Benchmark = None,
    root: Root = None,
    weights: Weights = None,
    frozen: Frozen = False,
    steps: Steps = None,
    config: ConfigFile = None,
    settings: Settings = None,
    storage: Storage = "runs/tuning",
    dry_run: DryRun = False,
    device: Device = "auto",
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    workers_per_trial: WorkersPerTrial = None,
    local: Local = False,
    address: Address = None,
    checkpoint_every: CheckpointEvery = 500,
    keep_model: KeepModel = False,
    compile: Compile = False,
    channels_last: ChannelsLast = True,
) -> None:
    """Search values of config fields on Ray with Optuna, by a validator that sees no target label.

    Each setting is trained on every pair and seed, and its score is the mean. Run the same command again after an
    interruption, or with more --trials: it goes on. What was chosen is a config file for `ablate` and `train`.
    """
    check_name("validator", validator, [*VALIDATOR_NAMES, ORACLE])
    options = {
        "data.benchmark": benchmark,
        "losses.terms": losses,
        "model.backbone": backbone,
        "model.weights": weights,
        "model.encoder": "frozen" if frozen else None,
        "parallel.workers": workers_per_trial,
    }
    base, domain_pairs = base_of_grid(options, {}, pairs=pairs, steps=steps, config=config, settings=settings)
    base = base.replace({"tuning": None})

    from scale_ray.tuning.search import Search
    from scale_ray.tuning.space import MANY_FIELDS, read_space

    searched = read_space(space or SPACE, base)
    if len(searched) > MANY_FIELDS:
        console.print(
            f"warning: {len(searched)} fields are tuned at once: {trials} settings tell little about so many; "
            "tune the few that matter first"
        )
    search = Search(
        name=name or f"tuning-{base.data.benchmark}",
        base=base,
        space=searched,
        repeats=_repeats(domain_pairs, read_seeds(seeds)),
        validator=validator,
        settings=trials,
        sampler=sampler,
        seed=sampler_seed,
        early_stop=early_stop,
        compare_repeats=compare_repeats,
        parallel=parallel,
        root=root,
    )
    search.check()
    print_search(search)
    if dry_run:
        return

    from scale_ray.tuning.run import run_search

    execution = Execution(
        root=root,
        device=device,
        checkpoint_every=checkpoint_every,
        keep_model=keep_model,
        compile=compile,
        channels_last=channels_last,
    )
    resources = resources_of(base, cpus_per_trial, gpus_per_trial, workers_per_trial, "local" if local else address)
    store = Store(storage, create=True)
    found = run_search(search, store, study_url, execution, resources, console)
    is_chosen = write_results(search, found, store)
    if found.left:
        console.print(f"interrupted with {found.left} settings to go: run the same command again to go on")
        raise typer.Exit(INTERRUPTED)
    if not is_chosen:
        console.print("no setting is done, so none is chosen: the reasons are in the table")
        raise typer.Exit(1)


def _repeats(pairs: Sequence[tuple[str, str]], seeds: Sequence[int]) -> "list[Repeat]":
    """Seeds vary slowest, so that the first repeats are of all pairs."""
    from scale_ray.tuning.search import Repeat

    repeats = [Repeat(source, target, seed) for seed in seeds for source, target in pairs]
    if not repeats:
        raise ConfigError("--seeds 0: there is no repeat to train a setting on: write 1 or more")
    if len(set(repeats)) < len(repeats):
        raise ConfigError("--pairs, --seeds: a pair or a seed is given twice: name each once")
    return repeats
