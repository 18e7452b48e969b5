"""scale-ray ablate: a grid of trials on Ray, then its report."""

from typing import Annotated

import typer

from scale_ray.cli.grid import GRID, Limit, Pairs, Seeds, Sharing, base_of_grid, run_grid
from scale_ray.cli.options import (
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
    read_config,
    read_seeds,
    read_settings,
    split_list,
)
from scale_ray.config import Execution
from scale_ray.study import ablation


def ablate(
    pairs: Pairs = None,
    losses: Annotated[
        str, typer.Option(metavar="TERMS,…", help="Loss combinations.", rich_help_panel=GRID)
    ] = "ce,ce+ssl,ce+ssl+dist,ce+ssl+dist+reg",
    backbones: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Encoders. Default: the benchmark's.", rich_help_panel=GRID)
    ] = None,
    seeds: Seeds = "3",
    limit: Limit = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The study's. Default: ablation-BENCHMARK.", rich_help_panel=GRID),
    ] = None,
    benchmark: Benchmark = None,
    root: Root = None,
    weights: Weights = None,
    frozen: Frozen = False,
    steps: Steps = None,
    config: ConfigFile = None,
    settings: Settings = None,
    storage: Storage = "runs/ablation",
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
    """Train every domain pair x loss combination x backbone x seed on Ray, then write the report.

    Run the same command again after an interruption or with more values: finished cells are not run again.
    """
    from scale_ray.data.benchmarks import check_benchmark

    decided = {"method": "--losses", "losses.terms": "--losses"} | (
        {"model.backbone": "--backbones"} if backbones else {}
    )
    options = {
        "data.benchmark": benchmark,
        "model.weights": weights,
        "model.encoder": "frozen" if frozen else None,
        "parallel.workers": workers_per_trial,
    }
    base, domain_pairs = base_of_grid(options, decided, pairs=pairs, steps=steps, config=config, settings=settings)
    known = base.data.benchmark
    chosen = "model.backbone" in read_settings(settings) | read_config(config)
    usual = [base.model.backbone] if chosen else check_benchmark(known).backbones or [base.model.backbone]
    study = ablation(
        name or f"ablation-{known}",
        base,
        pairs=domain_pairs,
        combinations=split_list(losses),
        backbones=split_list(backbones or "") or usual,
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
