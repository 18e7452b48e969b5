"""A cache that somebody else has filled, in which nothing can be written here; and one that was copied."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from image_trees import TWO_DOMAINS, open_all, write_tree

from scale_ray.data import manifest
from scale_ray.data.cache import cache_folder
from scale_ray.data.decoded import domain_digest
from scale_ray.data.warn import forget_warnings

OPEN = """
import logging, pathlib, sys
logging.basicConfig(format="%(levelname)s %(message)s")
from scale_ray.data.decoded import domain_digest, open_domains
root = pathlib.Path(sys.argv[1])
for _ in range(2):
    domains = open_domains("image_folder", ["photo", "sketch"], root=root, resize=8, corrupt="error")
    print(*(int(domain.images.sum()) for domain in domains), domain_digest("image_folder", "photo", root=root))
"""


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that other users can read, unlike pytest's, with a root and a cache that this user fills."""
    forget_warnings()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        monkeypatch.setenv("SCALE_RAY_CACHE", str(folder / "cache"))
        write_tree(folder / "root", TWO_DOMAINS)
        yield folder
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)


def open_as_another_user(folder: Path) -> subprocess.CompletedProcess[str]:
    """Open both domains twice, in a process that may write nowhere in the cache; root gives up what lets it."""
    for path in (folder / "cache").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (folder / "cache").chmod(0o555)
    command = [sys.executable, "-c", OPEN, str(folder / "root")]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root needs setpriv to give up its rights")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def wanted(folder: Path) -> str:
    images = open_all(folder / "root")
    digest = domain_digest("image_folder", "photo", root=folder / "root")
    return f"{images[0].images.sum()} {images[1].images.sum()} {digest}\n" * 2


def test_a_full_cache_that_cannot_be_written_is_used_without_a_word(shared: Path) -> None:
    found = wanted(shared)
    done = open_as_another_user(shared)
    assert (done.stdout, done.stderr) == (found, "")


@pytest.mark.parametrize("lacking", ["digests", "folder"])
def test_digests_that_cannot_be_written_are_said_once(shared: Path, lacking: str) -> None:
    found = wanted(shared)
    shutil.rmtree(cache_folder() / "file_digests")
    if lacking == "digests":
        (cache_folder() / "file_digests").mkdir()
    done = open_as_another_user(shared)
    assert done.stdout == found
    said = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert said == [
        f"WARNING {cache_folder()}/file_digests: digests of files cannot be written (Permission denied): every process "
        "computes them; to keep them, name another folder in SCALE_RAY_CACHE"
    ]
    assert "decoding" not in done.stderr


# Manifests


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed to check them."""
    names: list[str] = []
    sha256 = manifest._sha256
    monkeypatch.setattr(manifest, "_sha256", lambda path: names.append(path.name) or sha256(path))
    manifest._digest.cache_clear()
    return names


FILES = ["dark.json", "images.npy", "labels.npy", "names.json", "skipped.json"]


def copy_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder / "cache", folder / "copy")  # with times of modification, and new inodes
    monkeypatch.setenv("SCALE_RAY_CACHE", str(folder / "copy"))


def test_a_copied_cache_is_hashed_once_and_not_built_again(
    shared: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (photo,) = open_all(shared / "root", "photo")
    copy_cache(shared, monkeypatch)
    hashed.clear()
    capsys.readouterr()
    for _ in range(2):
        (copied,) = open_all(shared / "root", "photo")
        assert np.array_equal(copied.images, photo.images)
        manifest._digest.cache_clear()  # as another process has none
    assert sorted(hashed) == FILES
    assert capsys.readouterr().err == ""


def test_a_copied_cache_that_cannot_be_written_is_hashed_once_a_process(
    shared: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str]
) -> None:
    open_all(shared / "root", "photo")
    copy_cache(shared, monkeypatch)
    hashed.clear()

    def refuse(path: Path, content: bytes) -> None:
        raise manifest.StoreError("it cannot be written")

    monkeypatch.setattr(manifest, "replace_file", refuse)
    for _ in range(3):
        open_all(shared / "root", "photo")
    assert sorted(hashed) == FILES


def test_a_manifest_of_an_older_version_is_completed(shared: Path, hashed: list[str]) -> None:
    open_all(shared / "root", "photo")
    (path,) = cache_folder().glob("decoded/*/manifest.json")
    older = json.loads(path.read_bytes())
    for recorded in older["files"].values():
        del recorded["inode"], recorded["status_changed_ns"]
    path.write_text(json.dumps(older))
    hashed.clear()
    for _ in range(2):
        open_all(shared / "root", "photo")
    assert sorted(hashed) == FILES
    assert all("inode" in recorded for recorded in json.loads(path.read_bytes())["files"].values())


def test_an_array_with_other_bytes_of_the_same_size_and_time_is_made_anew(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photo,) = open_all(shared / "root", "photo")
    kept = np.array(photo.images)
    (path,) = cache_folder().glob("decoded/*/images.npy")
    content, before = bytearray(path.read_bytes()), path.stat()
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with caplog.at_level(logging.WARNING):
        (again,) = open_all(shared / "root", "photo")
    assert np.array_equal(again.images, kept)
    assert "is damaged" in caplog.text
