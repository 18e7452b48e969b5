"""`scale-ray data check`: a complete list of the problems of a benchmark's images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scale_ray.data.benchmarks import DataError, check_benchmark
from scale_ray.data.cache import in_threads, read_bytes
from scale_ray.data.decoded import UnreadableImage, decode_image
from scale_ray.data.digits import open_digits
from scale_ray.data.image_folder import (
    Listing,
    differing_classes,
    differing_counts,
    domain_folders,
    empty_classes,
    image_names,
    list_ignored,
    list_images,
)


@dataclass(frozen=True)
class Problem:
    """One problem. A `count` that differs from the published one and an `ignored` file do not prevent training."""

    kind: Literal["missing", "classes", "empty", "unreadable", "count", "ignored"]
    message: str

    @property
    def stops_training(self) -> bool:
        return self.kind not in ("count", "ignored")


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
    listings = {domain: list_images(folder) for domain, folder in folders.items()}
    problems = [
        Problem("missing", f"{root}: no folder for domain {domain!r}")
        for domain in entry.domains
        if domain not in folders
    ]
    if not folders and not entry.domains:
        problems.append(Problem("missing", f"{root}: no domain folders in it: images must be in DOMAIN/CLASS/"))
    problems += [Problem("classes", line) for line in differing_classes(benchmark, listings)]
    for domain, folder in folders.items():
        problems += [Problem("empty", line) for line in empty_classes(folder, listings[domain])]
    for domain, folder in folders.items():
        problems += _unreadable_images(folder, listings[domain])
    for domain, folder in folders.items():
        problems += [Problem("count", line) for line in differing_counts(benchmark, domain, listings[domain])]
        problems += [
            Problem("ignored", f"{folder / name}: not used: not an image in a class folder")
            for name in list_ignored(folder)
        ]
    found = {domain: sum(map(len, listing.values())) for domain, listing in listings.items()}
    return DataReport(benchmark, found, problems)


def _unreadable_images(folder: Path, listing: Listing) -> list[Problem]:
    def reason(name: str) -> str | None:
        try:
            decode_image(read_bytes(folder / name), size=256)
        except (UnreadableImage, DataError) as error:
            return str(error)
        return None

    names = image_names(listing)
    reasons = in_threads(reason, names, f"checking {folder.name}")
    return [Problem("unreadable", f"{folder / name}: {why}") for name, why in zip(names, reasons, strict=True) if why]
