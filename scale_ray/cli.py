"""scale-ray: train | ablate | report | data | status. Commands import what they need, so `report` needs no torch."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from scale_ray import __version__
from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.store import Store, is_current

app = typer.Typer(
    help="Unsupervised domain adaptation studies on Ray.", no_args_is_help=True, pretty_exceptions_enable=False
)
data_app = typer.Typer(help="Look at, check and prepare benchmarks.", no_args_is_help=True)
app.add_typer(data_app, name="data")

console = Console()
INTERRUPTED = 130

# Options that several commands share.
Benchmark = Annotated[str, typer.Option(help="A name in BENCHMARKS; `scale-ray data list` shows them.")]
Root = Annotated[Path | None, typer.Option(help="Folder of an image benchmark: ROOT/domain/class/image.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps; the warm-up shrinks or grows in proportion.")]
Weights = Annotated[str | None, typer.Option(help="none, imagenet, or the path of a state dict.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Any config field by dotted path, as in losses.threshold=0.9; repeat it."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="JSON file of dotted paths or nested fields, applied before --set.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
CheckpointEvery = Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")]
KeepModel = Annotated[bool, typer.Option("--keep-model", help="Store trained models (safetensors) beside the records.")]


@app.command()
def train(
    source: Annotated[str | None, typer.Option(help="Labelled domain. Default: of the benchmark's first pair.")] = None,
    target: Annotated[str | None, typer.Option(help="Unlabelled domain. Default: of the benchmark's first pair.")] = None,
    benchmark: Benchmark = "digits",
    method: Annotated[str | None, typer.Option(help="scale or source_only. Default: source_only for ce, else scale.")] = None,
    losses: Annotated[str | None, typer.Option(help="Loss combination, as in ce+ssl+dist+reg.")] = None,
    backbone: Annotated[str | None, typer.Option(help="A name in BACKBONES.")] = None,
    weights: Weights = None,
    steps: Steps = None,
    seed: Annotated[int, typer.Option()] = 0,
    root: Root = None,
    store: Annotated[Path | None, typer.Option(help="Where record and checkpoints go; without it, nothing is kept.")] = None,
    settings: Settings = None,
    config: ConfigFile = None,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads. Another number may change the last bits of a result.")] = 1,
    checkpoint_every: CheckpointEvery = 500,
    keep_model: KeepModel = False,
) -> None:
    """Train one trial in this process, without Ray; the record is the one that a study would leave."""
    from scale_ray.training import loop
    from scale_ray.training.trial import run_trial

    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    base = _base_config(benchmark, backbone, weights, steps, config, settings)
    changes: dict[str, Any] = {"seed": seed}
    changes |= {key: value for key, value in {"data.source": source, "data.target": target}.items() if value}
    changes |= _method_and_losses(method, losses)
    trial = base.replace(changes)
    execution = Execution(
        root=root, device=device, threads=threads, checkpoint_every=checkpoint_every, keep_model=keep_model
    )
    opened = Store(store, create=True) if store else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("training", total=trial.optim.steps)
        record = run_trial(
            trial,
            execution,
            opened,
            loop.Progress(
                on_step=lambda step: bar.update(task, completed=step),
                on_point=lambda point: bar.console.print(_point_line(point), highlight=False),
            ),
        )
    result = record.result
    assert result is not None
    teacher = "" if result.teacher_accuracy is None else f", teacher {result.teacher_accuracy:.2f} %"
    console.print(
        f"{trial.pair} {trial.method} {trial.combination} {trial.model.backbone} seed {trial.seed}: "
        f"target {result.target_accuracy:.2f} %{teacher}, source_val {result.source_val_accuracy:.2f} %, "
        f"{result.steps:,} steps in {record.provenance.wall_seconds:.1f} s",
        highlight=False, soft_wrap=True,
    )
    if opened:
        console.print(f"record: {opened.record_path(record.id)}", highlight=False, soft_wrap=True)


@app.command()
def ablate(
    benchmark: Benchmark = "digits",
    pairs: Annotated[str | None, typer.Option(help="source:target,source:target… Default: the benchmark's.")] = None,
    losses: Annotated[str, typer.Option(help="Loss combinations, with commas between them.")] = "ce,ce+ssl,ce+ssl+dist,ce+ssl+dist+reg",
    backbones: Annotated[str | None, typer.Option(help="Backbones, with commas between them. Default: the benchmark's.")] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds (3 means 0, 1, 2), or the seeds themselves (7,8).")] = "3",
    weights: Weights = None,
    steps: Steps = None,
    root: Root = None,
    storage: Annotated[Path, typer.Option("--storage", "--store", help="The store: a folder that every node reaches.")] = Path("runs/ablation"),
    name: Annotated[str | None, typer.Option(help="The study's name in the store. Default: ablation-BENCHMARK.")] = None,
    settings: Settings = None,
    config: ConfigFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many cells.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show cells, what is done and the cost; run nothing.")] = False,
    device: Device = "auto",
    cpus_per_trial: Annotated[int, typer.Option(min=1, help="CPUs, and so torch threads, of one trial.")] = 1,
    gpus_per_trial: Annotated[float | None, typer.Option(min=0, help="GPUs of one trial. Default: 1 where there are any.")] = None,
    address: Annotated[str, typer.Option(envvar="RAY_ADDRESS", help="local, or auto to join the cluster of this machine.")] = "local",
    checkpoint_every: CheckpointEvery = 500,
    keep_model: KeepModel = False,
) -> None:
    """Train every domain pair x loss combination x backbone x seed on Ray, then write the report.

    Run the same command again after an interruption or with more axes: finished cells are not run again.
    """
    from scale_ray.data.benchmarks import check_benchmark
    from scale_ray.study import ablation
    from scale_ray.sweep.plan import plan_study

    base = _base_config(benchmark, None, weights, steps, config, settings)
    study = ablation(
        name or f"ablation-{benchmark}",
        base,
        pairs=_pairs(pairs) if pairs else check_benchmark(benchmark).pairs or [(base.data.source, base.data.target)],
        combinations=_list(losses),
        backbones=_list(backbones) if backbones else [base.model.backbone],
        seeds=_seeds(seeds),
    )
    opened = Store(storage, create=True)
    plan = plan_study(study, opened, root, limit)
    _print_plan(plan, opened, cells=dry_run)
    if dry_run:
        return
    from scale_ray.sweep.run import Resources, run_study

    execution = Execution(root=root, device=device, checkpoint_every=checkpoint_every, keep_model=keep_model)
    resources = Resources(cpus=cpus_per_trial, gpus=gpus_per_trial, address=address)
    outcome = run_study(plan, opened, execution, resources, console)
    report(opened.root)
    if outcome.missing:
        console.print(f"interrupted with {outcome.missing} cells to do: run the same command again to go on", highlight=False)
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        console.print(f"{outcome.failed} cells failed, their reasons are in the report: run the same command to try them again")
        raise typer.Exit(1)


@app.command()
def report(
    store: Annotated[Path, typer.Argument(help="The store of a study.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the report. Default: STORE/report.")] = None,
) -> None:
    """Collect a store's records into tables, figures and one HTML page. Needs neither torch nor ray."""
    from scale_ray.report.build import print_grids, write_report

    paths = write_report(store, out or store / "report")
    print_grids(store, console)
    console.print(f"report: {paths.page}", highlight=False, soft_wrap=True)


@app.command()
def status(store: Annotated[Path, typer.Argument(help="The store of a study.")]) -> None:
    """Say how far each study in a store is."""
    opened = Store(store)
    table = Table(box=None, pad_edge=False)
    for heading in ("study", "cells", "done", "failed", "to do", "unfinished with a checkpoint"):
        table.add_column(heading, justify="left" if heading == "study" else "right")
    for plan in opened.plans():
        records = {cell.id: opened.read_record(cell.id) for cell in plan.cells}
        done = sum(is_current(record) for record in records.values())
        failed = sum(record is not None and record.status == "failed" for record in records.values())
        begun = sum(opened.checkpoint_path(key).exists() for key, record in records.items() if not is_current(record))
        row = (len(records), done, failed, len(records) - done - failed, begun)
        table.add_row(plan.name, *map(str, row))
    console.print(table)


@data_app.command("list")
def data_list() -> None:
    """Show the benchmarks, their domains and where they come from."""
    from scale_ray.data.benchmarks import BENCHMARKS

    table = Table("benchmark", "domains", "classes", "source", box=None, pad_edge=False)
    for name, benchmark in BENCHMARKS.items():
        classes = str(len(benchmark.classes)) if benchmark.classes else "by folder"
        table.add_row(name, ", ".join(benchmark.domains) or "by folder", classes, benchmark.source)
    console.print(table)


def _base_config(
    benchmark: str,
    backbone: str | None,
    weights: str | None,
    steps: int | None,
    config: Path | None,
    settings: list[str] | None,
) -> TrialConfig:
    """Defaults, then the benchmark's, then the file's, then the options'."""
    from scale_ray.data.benchmarks import check_benchmark

    entry = check_benchmark(benchmark)
    changes: dict[str, Any] = {"data.benchmark": benchmark, **entry.defaults}
    if entry.pairs:
        changes["data.source"], changes["data.target"] = entry.pairs[0]
    if config is not None:
        changes |= _read_config(config)
    options = {"model.backbone": backbone, "model.weights": weights}
    changes |= {path: value for path, value in options.items() if value is not None}
    if steps is not None:
        usual = TrialConfig().replace(changes).optim
        changes |= {"optim.steps": steps, "optim.warmup_steps": usual.warmup_steps * steps // usual.steps}
    changes |= dict(_setting(text) for text in settings or [])
    return TrialConfig().replace(changes)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"--config {path}: cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path}: must hold an object of fields, not a {type(values).__name__}")
    return _flatten(values)


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects to dotted paths; losses.terms is a value, not a part."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = prefix + key
        if isinstance(value, dict) and path != "losses.terms":
            flat |= _flatten(value, path + ".")
        else:
            flat[path] = value
    return flat


def _setting(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text!r}: write PATH=VALUE, as in losses.threshold=0.9")
    try:
        return path, json.loads(value)
    except json.JSONDecodeError:
        return path, value


def _method_and_losses(method: str | None, losses: str | None) -> dict[str, Any]:
    """Either says enough: source_only is ce, ce is source_only."""
    if method == "source_only" and losses is None:
        losses = "ce"
    if losses is not None and method is None:
        method = "source_only" if losses == "ce" else "scale"
    return {key: value for key, value in {"method": method, "losses.terms": losses}.items() if value}


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in _list(text):
        source, separator, target = part.replace(">", ":").partition(":")
        if not (source and separator and target):
            raise ConfigError(f"--pairs: {part!r} is no domain pair: write source:target, as in mnist:mnistm")
        pairs.append((source.strip(), target.strip()))
    return pairs


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in _list(text)]
    except ValueError:
        raise ConfigError(f"--seeds {text!r}: write a number of seeds (3) or the seeds themselves (7,8)") from None
    return numbers if "," in text else list(range(numbers[0]))


def _point_line(point: Any) -> str:
    losses = " ".join(f"{name} {value:.3f}" for name, value in point.losses.items())
    kept = "" if point.kept_fraction is None else f", kept {100 * point.kept_fraction:.0f} %"
    teacher = "" if point.teacher_accuracy is None else f", teacher {point.teacher_accuracy:.2f} %"
    return (
        f"step {point.step:,}: target {point.target_accuracy:.2f} %{teacher}, "
        f"source_val {point.source_val_accuracy:.2f} %{kept}, losses {losses}"
    )


def _print_plan(plan: Any, store: Store, *, cells: bool) -> None:
    from scale_ray.study import describe
    from scale_ray.sweep.progress import duration

    if cells:
        todo = {cell.id for cell in plan.todo}
        for cell in plan.study.cells:
            state = "failed before" if cell.id in plan.failed_before else "to do" if cell.id in todo else "done"
            console.print(f"{cell.id[:12]}  {describe(cell.config):<60} {state}", highlight=False, soft_wrap=True)
    seconds = plan.estimated_seconds(store) if plan.todo else None
    cost = f", about {duration(seconds)} of one trial slot" if seconds else ""
    unknown = "; time is known once cells have finished" if plan.todo and seconds is None else ""
    console.print(
        f"{plan.study.name}: {len(plan.study.cells)} cells, {plan.done} done, {len(plan.todo)} to do "
        f"({len(plan.failed_before)} failed before), {plan.steps_to_do:,} steps{cost}{unknown}",
        highlight=False, soft_wrap=True,
    )


def experiment(**defaults: Any) -> None:
    """Run `ablate` as a script with other defaults: what experiments/*.py are made of."""
    script = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    script.command(context_settings={"default_map": defaults})(ablate)
    _without_tracebacks(script)


def main() -> None:
    """The `scale-ray` command."""
    _without_tracebacks(app)


def _without_tracebacks(command: Callable[[], Any]) -> None:
    """A user's error is one line and exit status 2; SCALE_RAY_DEBUG=1 shows where it was raised."""
    try:
        command()
    except ValueError as error:
        if os.environ.get("SCALE_RAY_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"scale-ray {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    main()
