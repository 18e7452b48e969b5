"""scale-ray data: list, check and prepare benchmarks."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from scale_ray.cli.console import console

app = typer.Typer(help="List, check and prepare benchmarks.", no_args_is_help=True)

Root = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Images of a benchmark: FOLDER/domain/class/image.")]
BenchmarkName = Annotated[str, typer.Argument(metavar="BENCHMARK", help="A name that `scale-ray data list` shows.")]


@app.command("list")
def list_benchmarks() -> None:
    """Show the benchmarks, their domains and where they come from."""
    from scale_ray.data.benchmarks import BENCHMARKS

    table = Table("benchmark", "domains", "classes", "source", box=None, pad_edge=False)
    for name, benchmark in BENCHMARKS.items():
        classes = str(len(benchmark.classes)) if benchmark.classes else "by folder"
        table.add_row(name, ", ".join(benchmark.domains) or "by folder", classes, benchmark.source)
    console.print(table)


@app.command()
def check(benchmark: BenchmarkName, root: Root = None) -> None:
    """Read every image and list all that is wrong; exit status 1 where there is anything."""
    from scale_ray.data.check import check_data

    found = check_data(benchmark, root=root)
    for problem in found.problems:
        console.print(f"{problem.kind}: {problem.message}")
    stopping = sum(problem.stops_training for problem in found.problems)
    images = ", ".join(f"{domain} {count:,}" for domain, count in found.images.items())
    console.print(f"{benchmark}: {sum(found.images.values()):,} images ({images or 'no domains'})")
    console.print(f"{len(found.problems)} problems, {stopping} of them stop training")
    if found.problems:
        raise typer.Exit(1)


@app.command()
def prepare(
    benchmark: BenchmarkName,
    root: Root = None,
    resize: Annotated[
        int | None,
        typer.Option(min=8, max=2048, metavar="N", help="Side in pixels, as data.resize. Default: the benchmark's."),
    ] = None,
) -> None:
    """Decode (or, for digits, draw) every image once into the cache, so that no training has to."""
    from scale_ray.data import decoded
    from scale_ray.data.cache import cache_folder

    domains = decoded.prepare(benchmark, root=root, resize=resize)
    for domain in domains:
        count, _, height, width = domain.images.shape
        console.print(f"{domain.name}: {count:,} images of {width} x {height} px, {_mebibytes(domain.images.nbytes)}")
    total = sum(domain.images.nbytes for domain in domains)
    console.print(f"{benchmark}: {len(domains)} domains, {_mebibytes(total)}, in {cache_folder()}")


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
