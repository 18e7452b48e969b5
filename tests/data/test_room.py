"""The bound of the cache: what was not used for longest goes."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from image_trees import open_all, write_tree

from scale_ray.data import room
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import cache_folder
from scale_ray.data.cached import cache_entries
from scale_ray.data.room import make_room
from scale_ray.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "root", {name: {"cat": 3, "dog": 2} for name in ("first", "second", "third")})


def decode(root: Path) -> dict[str, int]:
    """Decode three domains, used at the times 1, 2 and 3; their sizes in the cache by name."""
    open_all(root, "first", "second", "third")
    sizes = {}
    for entry in cache_entries():
        if entry.kind == "decoded images":
            name = entry.about.split()[1].rstrip(",")
            os.utime(entry.paths[0], (0, ["first", "second", "third"].index(name) + 1))
            sizes[name] = entry.size
    return sizes


def left() -> list[str]:
    return sorted(entry.about.split()[1].rstrip(",") for entry in cache_entries() if entry.kind == "decoded images")


def limit(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE_GB", str(size / 1e9))


def test_nothing_goes_where_there_is_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(root)
    limit(monkeypatch, sum(entry.size for entry in cache_entries()) + 100)
    make_room(100)
    assert left() == ["first", "second", "third"]


def test_the_least_recently_used_goes_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = decode(root)
    limit(monkeypatch, sum(entry.size for entry in cache_entries()))
    make_room(1)
    assert left() == ["second", "third"]
    make_room(sizes["first"] + 1)
    assert left() == ["third"]


def test_a_domain_that_is_opened_stays_longer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(root)
    open_all(root, "first")
    limit(monkeypatch, sum(entry.size for entry in cache_entries()))
    make_room(1)
    assert left() == ["first", "third"]


def test_what_cannot_fit_is_refused_and_nothing_deleted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(root)
    limit(monkeypatch, 2e9)
    with pytest.raises(DataError, match=r"2\.1 GB of decoded images do not fit, 0\.1 GB too many \(SCALE_RAY_CACHE_GB"):
        make_room(2_100_000_000)
    assert left() == ["first", "second", "third"]


@pytest.mark.parametrize("limit", ["much", "nan", "-1", "0", "inf"])
def test_a_limit_is_a_number_of_gigabytes(root: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    decode(root)
    monkeypatch.setenv("SCALE_RAY_CACHE_GB", limit)
    with pytest.raises(UserError, match=f"SCALE_RAY_CACHE_GB='{limit}': write how many GB the cache may take"):
        make_room(1)
    assert left() == ["first", "second", "third"]


def test_without_a_limit_the_disk_may_fill_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(root)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: Usage(1000, 900, 100))
    make_room(100)
    assert left() == ["first", "second", "third"]
    make_room(101)
    assert left() == ["second", "third"]


def test_decoding_makes_room_for_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_all(root, "first")
    os.utime(cache_entries()[0].paths[0], (0, 1))
    limit(monkeypatch, sum(entry.size for entry in cache_entries()) + 10)
    open_all(root, "second")
    assert left() == ["second"]
    shutil.rmtree(cache_folder())
    limit(monkeypatch, 10)
    with pytest.raises(DataError, match="do not fit"):
        open_all(root, "first")


def test_what_was_opened_just_now_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_all(root, "first", "second")
    limit(monkeypatch, sum(entry.size for entry in cache_entries()))
    with pytest.raises(DataError, match="do not fit"):
        open_all(root, "third")
    assert left() == ["first", "second"]
