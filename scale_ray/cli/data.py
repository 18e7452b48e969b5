"""scale-ray data: list, download, check and prepare benchmarks; see and empty the cache."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from scale_ray.cli import complete
from scale_ray.cli.console import console, plain_table
from scale_ray.cli.examples import EXAMPLES
from scale_ray.cli.groups import command
from scale_ray.cli.help import Command, Group
from scale_ray.config import ConfigError
from scale_ray.data.roots import read_root

app = typer.Typer(
    cls=Group,
    help="List, download, check and prepare benchmarks; see and empty the cache.",
    epilog=EXAMPLES["data"],
    no_args_is_help=True,
    rich_markup_mode=None,
)

# As `data.pixels` and `data.shards` have them, which are slow to import.
Fit = Literal["squeeze", "crop"]
Kind = Literal["pixels", "files"]

Root = Annotated[
    Path | None,
    typer.Option(
        metavar="PLACE",
        help="Images: folder or URL of domain/class/image, catalogue (.toml), list (.csv, .parquet) or hf:NAME.",
    ),
]
TargetImages = Annotated[
    list[Path] | None,
    typer.Option(metavar="FOLDER", help="Images without labels, at any depth of this folder or URL. Repeat it."),
]
BenchmarkName = Annotated[
    str,
    typer.Argument(
        metavar="BENCHMARK", autocompletion=complete.benchmark, help="A name that `scale-ray data list` shows."
    ),
]


@app.command("list", cls=Command, epilog=EXAMPLES["data list"])
def list_benchmarks() -> None:
    """Show the benchmarks, their domains and where they come from."""
    from scale_ray.data.benchmarks import BENCHMARKS

    table = plain_table("benchmark", "domains", "classes", "source")
    for name, benchmark in BENCHMARKS.items():
        classes = str(len(benchmark.classes)) if benchmark.classes else "by folder"
        table.add_row(name, ", ".join(benchmark.domains) or "by folder", classes, benchmark.source)
    console.print(table)


@app.command(cls=Command, epilog=EXAMPLES["data get"])
@command
def get(
    benchmark: BenchmarkName,
    root: Annotated[
        Path,
        typer.Argument(metavar="ROOT", help="Folder for the images, which --root then names.", resolve_path=True),
    ],
    domain: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this domain. Repeat it. Default: all.")
    ] = None,
) -> None:
    """Download digits_standard, and store it as ROOT/domain/class/image. The other benchmarks are made or brought.

    Published files go to ROOT/downloads, are checked by their digests, and are used where they lie there already.
    """
    from scale_ray.data.digits_standard import get as get_domains

    for stored in get_domains(benchmark, root, domain or ()):
        console.print(f"{stored.domain}: {stored.images:,} images{'' if stored.new else ', there already'}")


@app.command(cls=Command, epilog=EXAMPLES["data check"])
@command
def check(
    benchmark: BenchmarkName,
    root: Root = None,
    target_images: TargetImages = None,
    every: Annotated[bool, typer.Option("--all", help="Name every file, one a line, instead of some.")] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write images of each class and their views into FILE.html (one file) or FILE.png."
        ),
    ] = None,
) -> None:
    """Read every image and list all that is wrong or odd; exit status 1 where something is wrong.

    Of each kind there is one line: unreadable and unused files, images that are in two domains or two classes, copies
    and near duplicates, sizes of classes, and what is done with odd images (turned, 16 bits, transparent, animated, …).
    """
    from scale_ray.data.check import check_data
    from scale_ray.errors import shown

    if sheet is not None:  # views need torch, and nothing else here does
        from scale_ray.data.check.sheet import check_sheet_name, write_sheet

        check_sheet_name(sheet)
    found = check_data(benchmark, root=read_root(root, target_images or ()))
    for finding in (*found.problems, *found.notes):
        for line in finding.lines if every else [finding.message]:
            console.print(f"{finding.kind}: {line}")
    stopping = sum(problem.stops_training for problem in found.problems)
    images = ", ".join(f"{shown(domain)} {count:,}" for domain, count in found.images.items())
    console.print(f"{benchmark}: {sum(found.images.values()):,} images ({images or 'no domains'})")
    if sheet is not None:
        console.print(f"sheet of {write_sheet(benchmark, found.domains, sheet):,} images: {shown(sheet)}")
    plural = "" if len(found.problems) == 1 else "s"
    console.print(f"{len(found.problems)} problem{plural}, {stopping} of them stop training")
    if found.problems:
        raise typer.Exit(1)


@app.command(cls=Command, epilog=EXAMPLES["data prepare"])
def prepare(
    benchmark: BenchmarkName,
    root: Root = None,
    target_images: TargetImages = None,
    resize: Annotated[
        int | None,
        typer.Option(min=8, max=2048, metavar="N", help="Side in pixels, as data.resize. Default: the benchmark's."),
    ] = None,
) -> None:
    """Decode (or, for digits, draw) every image once into the cache, so that no training has to."""
    from scale_ray.data import decoded
    from scale_ray.data.cache import cache_folder
    from scale_ray.errors import shown

    domains = decoded.prepare(benchmark, root=read_root(root, target_images or ()), resize=resize)
    for domain in domains:
        count, _, height, width = domain.images.shape
        console.print(
            f"{shown(domain.name)}: {count:,} images of {width} x {height} px, {_mebibytes(domain.images.nbytes)}"
        )
    total = sum(domain.images.nbytes for domain in domains)
    console.print(f"{benchmark}: {len(domains)} domains, {_mebibytes(total)}, in {cache_folder()}")


@app.command(cls=Command, epilog=EXAMPLES["data push"])
@command
def push(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.")],
    benchmark: Annotated[
        str, typer.Option(metavar="NAME", autocompletion=complete.benchmark, help="What the images are.")
    ] = "image_folder",
    root: Root = None,
    target_images: TargetImages = None,
    resize: Annotated[
        int | None,
        typer.Option(min=8, max=2048, metavar="N", help="Side in pixels, as data.resize. Default: the benchmark's."),
    ] = None,
    fit: Annotated[Fit, typer.Option(help="How an image becomes a square, as data.fit.")] = "squeeze",
    corrupt: Annotated[
        Literal["error", "skip"], typer.Option(help="What to do with an unreadable image, as data.corrupt.")
    ] = "error",
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--as",
            help="What travels: decoded pixels, or the files, which every node decodes. Default: pixels, unless these "
            "take over 50 GB a domain and the files less.",
        ),
    ] = None,
) -> None:
    """Put every domain into a store, decoded once, so that nodes of a cluster fetch it from there.

    A study on a cluster does this by itself for what it reads. An interrupted push goes on where it was.
    """
    from scale_ray.data import decoded
    from scale_ray.data.decoding import Decoding
    from scale_ray.errors import shown
    from scale_ray.store import Store
    from scale_ray.sweep.push import push_domains

    images = read_root(root, target_images or ())
    names = decoded.domain_names(benchmark, root=images)
    if benchmark == "digits":
        raise ConfigError("digits: every machine draws them for itself: nothing to push")
    decoding = Decoding(resize or decoded.usual_size(benchmark), corrupt, fit)
    opened = Store(store, create=True)
    for name, done in push_domains(benchmark, names, images, decoding, opened, console, kind=kind):
        told = f"{_mebibytes(done.written)} written" if done.written else "was there already"
        console.print(f"{shown(name)}: {done.images:,} images in {done.shards:,} shards of {done.kind}, {told}")
    console.print(f"{benchmark}: {len(names)} domains in {opened.location}/data")


@app.command("cache", cls=Command, epilog=EXAMPLES["data cache"])
def show_cache() -> None:
    """Show what lies in the cache folder: decoded images, drawn digits, features, digests of files."""
    from scale_ray.data.cache import cache_folder
    from scale_ray.data.cached import cache_entries

    entries = cache_entries()
    if entries:
        table = plain_table("kind", "holds", "size", "last used")
        table.columns[2].justify = "right"
        for entry in entries:
            used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
            table.add_row(entry.kind, entry.about, _mebibytes(entry.size), used)
        console.print(table)
    console.print(f"{_mebibytes(sum(entry.size for entry in entries))} in {cache_folder()}")


@app.command("clear", cls=Command, epilog=EXAMPLES["data clear"])
def clear_cache(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
) -> None:
    """Delete what `scale-ray data cache` shows; it is made anew when it is needed.

    Trials that run are not disturbed: what they have opened stays mapped until they end, and what a process is just
    making is left.
    """
    from scale_ray.data import cached
    from scale_ray.data.cache import cache_folder

    entries = cached.cache_entries()
    idle = [entry for entry in entries if not entry.busy]
    size = _mebibytes(sum(entry.size for entry in idle))
    if idle and not yes and not typer.confirm(f"delete {size} in {cache_folder()}?"):
        console.print("nothing deleted")
        raise typer.Exit(1)
    cached.clear_cache(idle)
    console.print(f"deleted {size} in {cache_folder()}")
    if len(idle) < len(entries):
        console.print(f"left: {len(entries) - len(idle)} that a running process may be making")


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
