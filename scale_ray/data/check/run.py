"""From a benchmark and where its images are to the list of what was found."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from scale_ray.config import Catalogue, ConfigError, Root
from scale_ray.data.benchmarks import DataError, check_benchmark
from scale_ray.data.check.classes import class_sizes
from scale_ray.data.check.duplicates import duplicates
from scale_ray.data.check.findings import Finding, by_reason, ordered
from scale_ray.data.check.images import read_images
from scale_ray.data.digits import open_digits
from scale_ray.data.domain_files import DomainFiles, class_folders, domain_files, images_by_class, wrong_names
from scale_ray.data.image_folder import (
    differing_classes,
    differing_counts,
    domain_folders,
    empty_classes,
    single_class,
    system_folders,
    too_deep,
)
from scale_ray.data.unused import NO_CLASS, SUBFOLDER, stray_folders, why_unused
from scale_ray.errors import shown
from scale_ray.urls import is_url

Found = tuple[dict[str, DomainFiles], list[Finding]]


@dataclass(frozen=True)
class DataReport:
    """Result of a check.

    Attributes:
        benchmark: its name.
        images: domain -> number of images found.
        domains: domain -> its images; empty for `digits`.
        problems: what must be mended, what prevents training first.
        notes: what is good to know.
    """

    benchmark: str
    images: dict[str, int]
    domains: dict[str, DomainFiles]
    problems: list[Finding]
    notes: list[Finding]


def check_data(benchmark: str, *, root: Root | None) -> DataReport:
    """Read every image of every domain and list all findings. Nothing is written to the cache, except for `digits`.

    Args:
        benchmark: a name in BENCHMARKS.
        root: the folder that contains the domains' folders, or a catalogue; not used by `digits`.

    Raises:
        ConfigError: the benchmark is unknown, or `root` is missing.
    """
    entry = check_benchmark(benchmark)
    if benchmark == "digits":
        return DataReport(benchmark, {domain: len(open_digits(domain)[1]) for domain in entry.domains}, {}, [], [])
    domains, found = _in_catalogue(benchmark, root) if isinstance(root, Catalogue) else _in_folder(benchmark, root)
    labelled = {name: images_by_class(files) for name, files in domains.items() if files.labels}
    single = [
        line
        for files in domains.values()
        if files.listing is not None and files.labels
        for line in single_class(files.where, files.listing)
    ]
    found += [Finding("classes", line) for line in differing_classes(benchmark, labelled) or single]
    images, of_images = read_images(domains)
    found += of_images + duplicates(images, None if isinstance(root, Catalogue) else root) + class_sizes(domains)
    found = ordered(found)
    return DataReport(
        benchmark,
        {domain: len(files.names) for domain, files in domains.items()},
        domains,
        [finding for finding in found if not finding.is_note],
        [finding for finding in found if finding.is_note],
    )


def _in_folder(benchmark: str, root: Path | None) -> Found:
    """The domains that are folders of one folder, and what their names show."""
    folders = domain_folders(benchmark, root)
    assert root is not None
    published = check_benchmark(benchmark).domains
    found = [
        Finding("missing", f"{shown(root)}: no folder for domain {domain!r}")
        for domain in published
        if domain not in folders
    ]
    domains = {}
    for domain, folder in folders.items():
        try:
            domains[domain] = class_folders(domain, folder)
        except DataError as error:
            found.append(Finding("unreadable", str(error)))
    strays = [] if published else stray_folders(folders, {name: files.listing or {} for name, files in domains.items()})
    domains = {domain: files for domain, files in domains.items() if domain not in strays}
    if not domains and not published:
        found.append(Finding("missing", f"{shown(root)}: no domain folders in it: images must be in DOMAIN/CLASS/"))
    for files in domains.values():
        found += _of_class_folders(benchmark, files)
    ignored = [root / name for name in (*strays, *system_folders(root))]
    return domains, found + [
        Finding("ignored", f"{shown(path)}: not a domain: no images of classes in it") for path in sorted(ignored)
    ]


def _in_catalogue(benchmark: str, catalogue: Catalogue) -> Found:
    """The domains of a catalogue, and what their names show."""
    domains, found = {}, []
    for domain in catalogue.names:
        try:
            files = domains[domain] = domain_files(benchmark, domain, catalogue)
        except (ConfigError, DataError) as error:
            found.append(Finding("missing", str(error)))
            continue
        if files.listing is not None:
            found += _of_class_folders(benchmark, files)
            continue
        found += [Finding("names", line) for line in wrong_names(files)] + _ignored(files)
    return domains, found


def _of_class_folders(benchmark: str, files: DomainFiles) -> list[Finding]:
    """What the names of a domain's files and folders show."""
    listing, deep, empty = files.listing or {}, [], []
    if not is_url(files.where):  # where a folder without files cannot be
        folder = Path(files.where)
        deep = too_deep(folder, listing)
        empty = deep or empty_classes(folder, listing)
    lines = {
        "names": wrong_names(files),
        "empty": empty,
        "count": differing_counts(benchmark, files.name, listing),
    }
    said = (SUBFOLDER,) * bool(deep) + (NO_CLASS,) * (not listing)
    return [Finding(kind, line) for kind in lines for line in lines[kind]] + _ignored(files, said)


def _ignored(files: DomainFiles, said: Collection[tuple[str, str]] = ()) -> list[Finding]:
    """What in the domain's folders is not used, without reasons for which there is a line already."""
    found = []
    for folder, unused in files.unused().items():
        reasons = ((name, why_unused(name, why)) for name, why in unused.items() if why not in said)
        found += by_reason("ignored", folder, reasons)
    return found
