"""`scale-ray data check`: a complete list of the problems of a benchmark's images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scale_ray.data.benchmarks import DataError, check_benchmark
from scale_ray.data.cache import in_threads, read_bytes
from scale_ray.data.digits import open_digits
from scale_ray.data.image_folder import (
    Listing,
    differing_classes,
    differing_counts,
    domain_folders,
    empty_classes,
    image_names,
    list_images,
    single_class,
    system_folders,
    unrecordable_names,
)
from scale_ray.data.pixels import DARK, UnreadableImage, decode_image, is_dark
from scale_ray.data.unused import stray_folders, unused_files
from scale_ray.errors import shown


@dataclass(frozen=True)
class Problem:
    """One problem. A `count` that differs from the published one, a `dark` image and what is `ignored` stop nothing."""

    kind: Literal["missing", "classes", "names", "empty", "unreadable", "dark", "count", "ignored"]
    message: str

    @property
    def stops_training(self) -> bool:
        return self.kind not in ("dark", "count", "ignored")


@dataclass(frozen=True)
class DataReport:
    """Result of a check.

    Attributes:
        benchmark: its name.
        images: domain -> number of images found.
        problems: all problems, those that prevent training first.
    """

    benchmark: str
    images: dict[str, int]
    problems: list[Problem]


def check_data(benchmark: str, *, root: Path | None) -> DataReport:
    """Read every image of every domain and list all problems. Nothing is written to the cache, except for `digits`.

    Args:
        benchmark: a name in BENCHMARKS.
        root: the folder that contains the domains' folders; not used by `digits`.

    Raises:
        ConfigError: the benchmark is unknown, or `root` is missing.
    """
    entry = check_benchmark(benchmark)
    if benchmark == "digits":
        return DataReport(benchmark, {domain: len(open_digits(domain)[1]) for domain in entry.domains}, [])
    folders = domain_folders(benchmark, root)
    assert root is not None
    problems = [
        Problem("missing", f"{shown(root)}: no folder for domain {domain!r}")
        for domain in entry.domains
        if domain not in folders
    ]
    listings: dict[str, Listing] = {}
    for domain, folder in folders.items():
        try:
            listings[domain] = list_images(folder)
        except DataError as error:
            problems.append(Problem("unreadable", str(error)))
    strays = [] if entry.domains else stray_folders(folders, listings)
    folders = {domain: folders[domain] for domain in listings if domain not in strays}
    listings = {domain: listings[domain] for domain in folders}
    if not folders and not entry.domains:
        problems.append(Problem("missing", f"{shown(root)}: no domain folders in it: images must be in DOMAIN/CLASS/"))
    with_images = {domain: listing for domain, listing in listings.items() if any(listing.values())}
    problems += [Problem("classes", line) for line in differing_classes(benchmark, with_images)]
    for domain, folder in folders.items():
        listing = listings[domain]
        problems += [Problem("names", line) for line in unrecordable_names(folder, listing)]
        problems += [Problem("empty", line) for line in empty_classes(folder, listing)]
        problems += [Problem("classes", line) for line in single_class(folder, listing)]
    for domain, folder in folders.items():
        problems += _wrong_images(folder, listings[domain])
    for domain, folder in folders.items():
        problems += [Problem("count", line) for line in differing_counts(benchmark, domain, listings[domain])]
        problems += [
            Problem("ignored", f"{shown(folder / name)}: not used: {reason}")
            for name, (reason, _) in unused_files(folder).items()
        ]
    ignored = [root / name for name in (*strays, *system_folders(root))]
    problems += [
        Problem("ignored", f"{shown(path)}: not a domain: no images of classes in it") for path in sorted(ignored)
    ]
    found = {domain: sum(map(len, listing.values())) for domain, listing in listings.items()}
    return DataReport(benchmark, found, sorted(problems, key=lambda problem: not problem.stops_training))


def _wrong_images(folder: Path, listing: Listing) -> list[Problem]:
    def look(name: str) -> Problem | None:
        path = shown(folder / name)
        try:
            data = read_bytes(folder / name)
            decode_image(data, size=256)
        except UnreadableImage as error:
            return Problem("unreadable", f"{path}: {error}")
        except DataError as error:
            return Problem("unreadable", str(error))
        return Problem("dark", f"{path}: nearly black: {DARK}") if is_dark(data) else None

    return list(filter(None, in_threads(look, image_names(listing), f"checking {shown(folder.name)}")))
