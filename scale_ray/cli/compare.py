"""scale-ray compare: methods side by side, on the same batches, budget and seeds."""

from pathlib import Path
from typing import Annotated, Any

import typer

from scale_ray.cli.console import console
from scale_ray.cli.grid import GRID, Limit, Pairs, Seeds, Sharing, base_of_grid, run_grid
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
    read_values,
    split_list,
)
from scale_ray.config import (
    VARIANTS,
    BaselineConfig,
    ConfigError,
    Execution,
    LossesConfig,
    TrialConfig,
    check_name,
    suggest,
)
from scale_ray.study import comparison

# scale:ce+ssl is FixMatch with a mean teacher.
METHODS = "source_only,dan,dann,cdan,mcc,mean_teacher,scale:ce+ssl,scale"


def compare(
    methods: Annotated[
        str,
        typer.Option(
            metavar="METHOD,…",
            help="METHOD[:TERMS]\\[/FIELD=VALUE…][@BACKBONE[=WEIGHTS]]: scale:ce+ssl, scale/losses.contrast=bank, "
            "cdan/baseline.entropy_conditioning=true, clip_zero_shot@clip_rn50=openai.",
            rich_help_panel=GRID,
        ),
    ] = METHODS,
    pairs: Pairs = None,
    seeds: Seeds = "3",
    limit: Limit = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The study's. Default: comparison-BENCHMARK.", rich_help_panel=GRID),
    ] = None,
    benchmark: Benchmark = None,
    root: Root = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoder of the methods that name none. Default: the benchmark's.",
            rich_help_panel=TRAINED,
        ),
    ] = None,
    weights: Weights = None,
    frozen: Frozen = False,
    steps: Steps = None,
    config: ConfigFile = None,
    settings: Settings = None,
    storage: Storage = "runs/comparison",
    dry_run: DryRun = False,
    device: Device = "auto",
    cpus_per_trial: CpusPerTrial = 1,
    gpus_per_trial: GpusPerTrial = None,
    workers_per_trial: WorkersPerTrial = None,
    local: Local = False,
    address: Address = None,
    sharing: Sharing = True,
    checkpoint_every: CheckpointEvery = 500,
    keep_model: KeepModel = False,
    compile: Compile = False,
    channels_last: ChannelsLast = True,
) -> None:
    """Train every method x domain pair x seed on Ray with one budget, then write the report.

    A setting of the baselines (--set baseline.weight=…) goes to the methods that read it. Run the same command again
    after an interruption or with more values: finished cells are not run again.
    """
    decided = {"method": "--methods", "losses.terms": "--methods"}
    options = {
        "data.benchmark": benchmark,
        "model.backbone": backbone,
        "model.weights": weights,
        "model.encoder": "frozen" if frozen else None,
        "parallel.workers": workers_per_trial,
    }
    base, domain_pairs = base_of_grid(options, decided, pairs=pairs, steps=steps, config=config, settings=settings)
    approaches = [_approach(text) for text in split_list(methods)]
    study = comparison(
        name or f"comparison-{base.data.benchmark}",
        base,
        pairs=domain_pairs,
        approaches=approaches,
        seeds=read_seeds(seeds),
    )
    execution = Execution(
        root=root,
        device=device,
        checkpoint_every=checkpoint_every,
        keep_model=keep_model,
        compile=compile,
        channels_last=channels_last,
    )
    if dry_run:
        _print_methods([base.replace(changes) for changes in approaches])
    run_grid(
        study,
        storage,
        execution,
        limit=limit,
        sharing=sharing,
        dry_run=dry_run,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        workers_per_trial=workers_per_trial,
        address="local" if local else address,
    )


def _approach(text: str) -> dict[str, Any]:
    """METHOD[:TERMS][/FIELD=VALUE…][@BACKBONE[=WEIGHTS]] as the fields that it sets.

    Settings of the baselines that the method does not read get their defaults, whatever the others are given.

    Raises:
        ConfigError: no such method, or a field that makes no variant of it.
    """
    from scale_ray import methods

    approach, _, network = (part.strip() for part in text.partition("@"))
    kind, *chosen = (part.strip() for part in approach.split("/"))
    method, _, terms = (part.strip() for part in kind.partition(":"))
    backbone, _, weights = (part.strip() for part in network.partition("="))
    check_name("method", method, methods.METHODS)
    usual, unread = BaselineConfig(), BaselineConfig.model_fields.keys() - methods.METHODS[method].reads
    changes: dict[str, Any] = {f"baseline.{field}": getattr(usual, field) for field in unread}
    changes |= {"method": method, "losses.terms": terms or (LossesConfig().terms if method == "scale" else "ce")}
    variants = read_values("--methods", chosen, example="losses.contrast=bank")
    changes |= variants
    for field in variants:
        _check_variant(text, field, TrialConfig().replace(changes))
    if backbone:
        changes["model.backbone"] = backbone
    if weights:
        path = Path(weights).expanduser()
        changes["model.weights"] = str(path.absolute()) if path.is_file() else weights
    return changes


def _check_variant(text: str, path: str, config: TrialConfig) -> None:
    """Refuse a field that makes no row of its own, or that what is trained would silently pass over."""
    from scale_ray.methods import METHODS

    if path not in VARIANTS:
        raise ConfigError(
            f"--methods {text!r}: {path} makes no variant of a method: {suggest(path, VARIANTS)}choose from "
            f"{', '.join(VARIANTS)}, or set it for all methods with --set"
        )
    term = VARIANTS[path].term
    if term is None and path.removeprefix("baseline.") not in METHODS[config.method].reads:
        raise ConfigError(f"--methods {text!r}: method {config.method!r} does not read {path}: leave it out")
    if term is not None and term not in config.losses.terms:
        raise ConfigError(
            f"--methods {text!r}: {path} is a setting of loss term {term!r}, and {config.combination} is trained: add "
            "the term, or leave the setting out"
        )


def _print_methods(configs: list[TrialConfig]) -> None:
    """Whose each method is, where its settings come from, and what a step of it costs."""
    from scale_ray.methods import METHODS

    for config in configs:
        method = METHODS[config.method]
        cost = method.passes(config).cost
        terms = f" {config.combination}" if config.method == "scale" else ""
        console.print(f"{config.variant}{terms}: {cost:.1f} x the passes of source_only")
        console.print(f"  {method.paper}")
        console.print(f"  defaults: {method.defaults}")
