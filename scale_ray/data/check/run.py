"""From a benchmark and a folder to the list of what was found."""

from dataclasses import dataclass
from pathlib import Path

from scale_ray.data.benchmarks import DataError, check_benchmark
from scale_ray.data.check.classes import class_sizes
from scale_ray.data.check.duplicates import duplicates
from scale_ray.data.check.findings import Finding, by_reason, ordered
from scale_ray.data.check.images import read_images
from scale_ray.data.digits import open_digits
from scale_ray.data.image_folder import (
    Listing,
    differing_classes,
    differing_counts,
    domain_folders,
    empty_classes,
    list_images,
    single_class,
    system_folders,
    too_deep,
    unrecordable_names,
)
from scale_ray.data.unused import NO_CLASS, SUBFOLDER, stray_folders, unused_files, why_unused
from scale_ray.errors import shown


@dataclass(frozen=True)
class DataReport:
    """Result of a check.

    Attributes:
        benchmark: its name.
        images: domain -> number of images found.
        folders: domain -> its folder; empty for `digits`.
        problems: what must be mended, what prevents training first.
        notes: what is good to know.
    """

    benchmark: str
    images: dict[str, int]
    folders: dict[str, Path]
    problems: list[Finding]
    notes: list[Finding]


def check_data(benchmark: str, *, root: Path | None) -> DataReport:
    """Read every image of every domain and list all findings. Nothing is written to the cache, except for `digits`.

    Args:
        benchmark: a name in BENCHMARKS.
        root: the folder that contains the domains' folders; not used by `digits`.

    Raises:
        ConfigError: the benchmark is unknown, or `root` is missing.
    """
    entry = check_benchmark(benchmark)
    if benchmark == "digits":
        return DataReport(benchmark, {domain: len(open_digits(domain)[1]) for domain in entry.domains}, {}, [], [])
    folders = domain_folders(benchmark, root)
    assert root is not None
    found = [
        Finding("missing", f"{shown(root)}: no folder for domain {domain!r}")
        for domain in entry.domains
        if domain not in folders
    ]
    listings: dict[str, Listing] = {}
    for domain, folder in folders.items():
        try:
            listings[domain] = list_images(folder)
        except DataError as error:
            found.append(Finding("unreadable", str(error)))
    strays = [] if entry.domains else stray_folders(folders, listings)
    folders = {domain: folders[domain] for domain in listings if domain not in strays}
    listings = {domain: listings[domain] for domain in folders}
    if not folders and not entry.domains:
        found.append(Finding("missing", f"{shown(root)}: no domain folders in it: images must be in DOMAIN/CLASS/"))
    with_images = {domain: listing for domain, listing in listings.items() if any(listing.values())}
    differing = differing_classes(benchmark, with_images)
    single = [line for domain in with_images for line in single_class(folders[domain], listings[domain])]
    found += [Finding("classes", line) for line in differing or single]
    for domain, folder in folders.items():
        found += _of_a_folder(benchmark, domain, folder, listings[domain])
    images, of_images = read_images(folders, listings)
    found += of_images + duplicates(images, root) + class_sizes(folders, listings)
    ignored = [root / name for name in (*strays, *system_folders(root))]
    found += [
        Finding("ignored", f"{shown(path)}: not a domain: no images of classes in it") for path in sorted(ignored)
    ]
    found = ordered(found)
    return DataReport(
        benchmark,
        {domain: sum(map(len, listing.values())) for domain, listing in listings.items()},
        folders,
        [finding for finding in found if not finding.is_note],
        [finding for finding in found if finding.is_note],
    )


def _of_a_folder(benchmark: str, domain: str, folder: Path, listing: Listing) -> list[Finding]:
    """What the names of a domain's files and folders show."""
    deep = too_deep(folder, listing)
    lines = {
        "names": unrecordable_names(folder, listing),
        "empty": deep or empty_classes(folder, listing),
        "count": differing_counts(benchmark, domain, listing),
    }
    said = (SUBFOLDER,) * bool(deep) + (NO_CLASS,) * (not listing)
    unused = ((name, why_unused(name, why)) for name, why in unused_files(folder).items() if why not in said)
    return [Finding(kind, line) for kind in lines for line in lines[kind]] + by_reason("ignored", folder, unused)
