"""Every entry of BENCHMARKS keeps the promises that the rest of the package builds on."""

import subprocess
import sys

import pytest

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.benchmarks import BENCHMARKS, canonical_domain, check_benchmark

NAMES = list(BENCHMARKS)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_pairs_make_a_valid_config(name: str) -> None:
    entry = BENCHMARKS[name]
    for source, target in entry.pairs or [("a", "b")]:
        changes = {**entry.defaults, "data.benchmark": name, "data.source": source, "data.target": target}
        config = TrialConfig().replace(changes)
        assert (config.data.benchmark, config.data.source, config.data.target) == (name, source, target)


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_complete_and_consistent(name: str) -> None:
    entry = BENCHMARKS[name]
    assert entry.title
    assert entry.source
    assert set(entry.images) == set(entry.domains)
    assert set(entry.aliases.values()) <= set(entry.domains)
    assert {domain for pair in entry.pairs for domain in pair} <= set(entry.domains)
    assert len(set(entry.pairs)) == len(entry.pairs)
    if entry.classes is not None:
        assert list(entry.classes) == sorted(set(entry.classes))
    for domain, counts in entry.class_counts.items():
        assert tuple(counts) == entry.classes
        assert sum(counts.values()) == entry.images[domain]


def test_published_figures() -> None:
    office_home, pacs = BENCHMARKS["office_home"], BENCHMARKS["pacs"]
    assert office_home.images == {"Art": 2427, "Clipart": 4365, "Product": 4439, "Real_World": 4357}
    assert sum(office_home.images.values()) == 15_588
    assert office_home.class_counts["Art"]["Bottle"] == 99
    assert office_home.class_counts["Real_World"]["Marker"] == 23
    assert (len(office_home.classes or ()), len(pacs.classes or ())) == (65, 7)
    assert (len(office_home.pairs), len(pacs.pairs)) == (12, 12)
    assert sum(pacs.images.values()) == 9_991
    digits = BENCHMARKS["digits_standard"]
    assert digits.images == {"mnist": 60_000, "mnistm": 59_001, "usps": 7_291, "svhn": 73_257}
    assert digits.pairs == (("mnist", "mnistm"), ("mnist", "usps"), ("usps", "mnist"), ("svhn", "mnist"))


def test_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown benchmark 'office-home': did you mean 'office_home'"):
        check_benchmark("office-home")


@pytest.mark.parametrize("spelling", ["Real_World", "Real World", "RealWorld", "real_world", "realworld", "real"])
def test_every_spelling_of_real_world(spelling: str) -> None:
    assert canonical_domain("office_home", spelling) == "Real_World"


def test_unknown_domain_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="office_home has no domain 'Clip_art': did you mean 'Clipart'"):
        canonical_domain("office_home", "Clip_art")


def test_image_folder_takes_any_folder_name_but_no_path() -> None:
    assert canonical_domain("image_folder", "my photos") == "my photos"
    for name in ("a/b", "..", "", ".git", "/"):
        with pytest.raises(ConfigError, match="is not a domain"):
            canonical_domain("image_folder", name)


def test_knowing_what_exists_needs_neither_torch_nor_pillow() -> None:
    code = "import sys, scale_ray.data.benchmarks; print([m for m in ('torch', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
