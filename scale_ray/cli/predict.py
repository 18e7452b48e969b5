"""scale-ray predict: a trained model on new images. Rows go to stdout where no file is named; all else to stderr."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scale_ray.cli import complete
from scale_ray.cli.console import stderr
from scale_ray.cli.export import ModelArgument, Weights
from scale_ray.cli.groups import command
from scale_ray.cli.interrupt import on_ctrl_c
from scale_ray.cli.options import EXECUTION
from scale_ray.config import ConfigError, Resources
from scale_ray.errors import shown
from scale_ray.urls import is_url

if TYPE_CHECKING:
    from scale_ray.bundle.contents import Bundle

T = TypeVar("T")

ON_RAY = "On Ray"
_LINE_SECONDS = 10


@command
def predict(
    model: ModelArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES", help="Files, folders of images at any depth, patterns in quotes, or s3://… URLs."
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A name that ends with .csv, .parquet or .jsonl. Default: CSV on standard output."
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images that the network sees together.", rich_help_panel=EXECUTION)
    ] = 64,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME", autocompletion=complete.device, help="auto, cpu, cuda, cuda:1.", rich_help_panel=EXECUTION
        ),
    ] = "auto",
    weights: Weights = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Predict shards of the images on Ray; --out is then a folder or s3://…, with one file a shard. The "
            "same command again goes on.",
            rich_help_panel=ON_RAY,
        ),
    ] = False,
    shard: Annotated[int, typer.Option(min=1, metavar="N", help="Images of a shard.", rich_help_panel=ON_RAY)] = 1000,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.of("csv", "parquet", "jsonl"),
            help="Of the shards' files: csv, parquet, jsonl.",
            rich_help_panel=ON_RAY,
        ),
    ] = "parquet",
    cpus_per_worker: Annotated[
        int, typer.Option(min=1, metavar="N", help="CPUs of one worker.", rich_help_panel=ON_RAY)
    ] = 1,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="N", help="GPUs of one worker. Default: 1 where there are any.", rich_help_panel=ON_RAY
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            metavar="ADDRESS",
            help="Ray cluster to join, or `local`. Default: this machine's if it belongs to one, else local.",
            rich_help_panel=ON_RAY,
        ),
    ] = None,
) -> None:
    """Predict the classes of images: path, class, probability, second_class, second_probability, problem.

    The row of an image that cannot be read has the reason in its last column. If there are any, the exit status is 1,
    after all rows are written.
    """
    from scale_ray.bundle.find import find_model
    from scale_ray.bundle.images import images_named

    _check_out(out, format, ray=ray)
    listed = images_named(images)
    if listed.others:
        stderr.print(f"{listed.others:,} files in the folders are no images and are left out")
    bundle = find_model(model, weights).bundle
    began = time.monotonic()
    on_ctrl_c("the same command goes on" if ray else "nothing is written")
    if ray:
        resources = Resources.parse({"cpus": cpus_per_worker, "gpus": gpus_per_worker, "address": address})
        done, unreadable = _on_ray(
            bundle, listed.paths, str(out), shard, f".{format}", resources, device=device, batch=batch
        )
    else:
        done = len(listed.paths)
        unreadable = _here(bundle, listed.paths, out, device=device, batch=batch)
    seconds = time.monotonic() - began
    pace = f", {done / seconds:,.0f} a second" if done else ""
    stderr.print(
        f"{done:,} images predicted{pace}"
        + (f", {unreadable:,} of them unreadable" if unreadable else "")
        + ("" if out is None else f": {shown(out)}")
    )
    if unreadable:
        raise typer.Exit(1)


def _check_out(out: str | None, format: str, *, ray: bool) -> None:
    from scale_ray.bundle.table import TABLES, check_table

    if not ray:
        if out is not None:
            check_table(Path(out).expanduser())
        return
    if out is None:
        raise ConfigError("--ray needs a place for its files: add --out FOLDER|URL")
    if f".{format}" not in TABLES:
        raise ConfigError(f"--format {format!r}: write one of {', '.join(suffix[1:] for suffix in TABLES)}")


def _here(bundle: "Bundle", paths: list[str], out: str | None, *, device: str, batch: int) -> int:
    """Predict in this process; return how many images cannot be read."""
    from scale_ray.bundle.model import Model
    from scale_ray.bundle.table import table_of
    from scale_ray.store.files import replace_file

    rows = list(_shown(Model(bundle, device).rows(paths, batch), len(paths), "images"))
    suffix = ".csv" if out is None else Path(out).suffix
    content = table_of(rows, suffix)
    if out is None:
        sys.stdout.write(content.decode())
    else:
        replace_file(Path(out).expanduser(), content)
    return sum(row.problem is not None for row in rows)


def _on_ray(
    bundle: "Bundle",
    paths: list[str],
    out: str,
    size: int,
    suffix: str,
    resources: Resources,
    *,
    device: str,
    batch: int,
) -> tuple[int, int]:
    """Predict on Ray what has no file yet; return how many images that were, and how many of them are unreadable."""
    from scale_ray.store.files import Files
    from scale_ray.sweep.predict import Sharded, predict_shards, shards_to_do

    everywhere = [path if is_url(path) else str(Path(path).absolute()) for path in paths]
    work, files = Sharded(bundle, everywhere, size, suffix), Files(out)
    todo = shards_to_do(work, files)
    stderr.print(f"{len(work):,} shards, {len(work) - len(todo):,} done, {len(todo):,} to do")
    if not todo:
        return 0, 0
    ended = predict_shards(work, todo, files, resources, stderr, device=device, batch=batch)
    counts = list(_shown(ended, len(todo), "shards"))
    return sum(images for images, _ in counts), sum(unreadable for _, unreadable in counts)


def _shown(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items and show progress and time left: a bar on a terminal, else a line every ten seconds."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = last = time.monotonic()
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        for done, item in enumerate(items, 1):
            yield item
            bar.update(task, completed=done)
            now = time.monotonic()
            if not stderr.is_terminal and now - last > _LINE_SECONDS:
                left = (now - began) / done * (total - done)
                stderr.print(f"{done:,} of {total:,} {what}, about {left:.0f} s left")
                last = now
