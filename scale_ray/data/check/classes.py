"""How many images classes and domains have: too few to split, or very different numbers."""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations

from scale_ray.data.check.findings import Finding
from scale_ray.data.domain_files import DomainFiles
from scale_ray.data.names import quoted
from scale_ray.errors import shown

_RATIO = 5  # from here on, a difference of sizes is worth a line
_NAMED = 3


def class_sizes(domains: Mapping[str, DomainFiles]) -> list[Finding]:
    """Findings about numbers of images; classes without any are another finding."""
    counts = {
        domain: dict(sorted(Counter(files.classes[label] for label in files.labels).items()))
        for domain, files in domains.items()
        if files.labels
    }
    found = [line for domain, sizes in counts.items() for line in _of_a_domain(domains[domain].where, sizes)]
    totals = {domain: len(files.names) for domain, files in domains.items() if files.names}
    if totals and max(totals.values()) >= _RATIO * min(totals.values()):
        found.append(Finding("balance", f"domains differ in size: {_extremes(totals)}"))
    for first, second in combinations(counts, 2):
        found += _of_two_domains(first, counts[first], second, counts[second])
    return found


def _of_a_domain(folder: str, sizes: Mapping[str, int]) -> list[Finding]:
    found = []
    if single := [name for name, size in sizes.items() if size < 2]:
        some = f"{quoted(single[:_NAMED])}{' …' if len(single) > _NAMED else ''}"
        classes = "1 class has" if len(single) == 1 else f"{len(single):,} classes have"
        found.append(
            Finding(
                "small",
                f"{shown(folder)}: {classes} one image only ({some}): as a source, none can be held out: add images",
            )
        )
    if max(sizes.values()) >= _RATIO * min(sizes.values()):
        found.append(Finding("balance", f"{shown(folder)}: classes differ in size: {_extremes(sizes)}"))
    return found


def _of_two_domains(first: str, ours: Mapping[str, int], second: str, theirs: Mapping[str, int]) -> list[Finding]:
    """The class whose share differs most between two domains."""
    shares = {
        name: (ours[name] / sum(ours.values()), theirs[name] / sum(theirs.values())) for name in ours.keys() & theirs
    }
    ratios = {name: max(pair) / min(pair) for name, pair in sorted(shares.items())}
    most = max(ratios, key=ratios.__getitem__, default=None)
    if most is None or ratios[most] < _RATIO:
        return []
    more = sum(ratio >= _RATIO for ratio in ratios.values()) - 1
    return [
        Finding(
            "balance",
            f"class '{shown(most)}' is {shares[most][0]:.1%} of {shown(first)} and {shares[most][1]:.1%} of "
            f"{shown(second)}{f' (and so for {more:,} more)' if more else ''}",
        )
    ]


def _extremes(sizes: Mapping[str, int]) -> str:
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    return (
        f"'{shown(largest)}' has {sizes[largest]:,} images and '{shown(smallest)}' {sizes[smallest]:,}, "
        f"{sizes[largest] / sizes[smallest]:.0f} times fewer"
    )
