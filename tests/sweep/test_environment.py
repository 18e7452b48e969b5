"""What Ray lacks on a machine is one line before anything starts; what it does not need is not asked for."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import LIMIT

from scale_ray.sweep import environment

PACKAGE = Path(__file__).parents[2]
STARTS = """
import sys
import psutil
import ray
from scale_ray.config import ConfigError
from scale_ray.sweep.environment import starting_ray

try:
    with starting_ray():
        small = {"num_cpus": 1, "object_store_memory": 256 * 2**20}
        ray.init(address="local", include_dashboard=False, logging_level="CRITICAL", **small)
except ConfigError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
(raylet,) = [each for each in psutil.Process().children() if each.name() == "raylet"]
any_port = any("--listen-port=0" in word for word in raylet.cmdline())
print("started with", ray.cluster_resources()["CPU"], "CPU and an agent at", "any port" if any_port else "Ray's port")
"""
STARTED = "started with 1.0 CPU and an agent at any port\n"  # one port for all would be waited for


def start(*before: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start Ray in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    whole = {**kept, "PYTHONPATH": str(PACKAGE), **variables}
    line = [*before, sys.executable, "-c", STARTS]
    return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, env=whole)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the names of Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def refused(done: subprocess.CompletedProcess[str], *words: str | Path) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    for word in words:
        assert str(word) in line


def on(mounts: str) -> list[str]:
    """The beginning of a command line that sees other file systems than this process."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("mounting a disk needs root and unshare")
    return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


def test_a_temporary_folder_with_a_long_path_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60) / ("y" * 40)
    long.mkdir(parents=True)
    refused(start(TMPDIR=str(long)), "Ray's sockets", long / "ray", "107 is the most", "set RAY_TMPDIR")
    assert list(long.iterdir()) == []


@pytest.mark.slow
def test_ray_tmpdir_is_the_way_out_of_a_long_path(tmp_path: Path) -> None:
    done = start(TMPDIR=str(tmp_path / ("x" * 60) / ("y" * 40)), RAY_TMPDIR="/tmp")
    assert done.stdout == STARTED, done.stderr


def test_a_temporary_folder_that_cannot_be_written_to_is_refused(short: Path) -> None:
    (short / "file").write_text("")
    refused(start(RAY_TMPDIR=str(short / "file")), short / "file" / "ray", "cannot be written to", "RAY_TMPDIR")
    refused(start(RAY_TMPDIR="/proc/nowhere"), "/proc/nowhere/ray", "cannot be written to", "set RAY_TMPDIR")


def test_a_read_only_temporary_folder_is_refused(short: Path) -> None:
    done = start(*on(f"mount -t tmpfs -o ro tmpfs '{short}'"), RAY_TMPDIR=str(short))
    refused(done, short / "ray", "Read-only file system", "set RAY_TMPDIR")


def test_a_full_temporary_folder_is_refused(short: Path) -> None:
    done = start(*on(f"mount -t tmpfs -o size=64k tmpfs '{short}'"), RAY_TMPDIR=str(short))
    refused(done, short / "ray", "No space left on device", "set RAY_TMPDIR")


def test_read_only_shared_memory_is_refused() -> None:
    refused(start(*on("mount -t tmpfs -o ro tmpfs /dev/shm")), "/dev/shm", "Read-only file system", "mount it")


@pytest.mark.slow
def test_little_shared_memory_is_enough() -> None:
    done = start(*on("mount -t tmpfs -o size=64m tmpfs /dev/shm"))
    assert done.stdout == STARTED, done.stderr


@pytest.mark.parametrize("kept", ["", pytest.param("token", marks=pytest.mark.slow)])
def test_a_read_only_home_is_no_obstacle(tmp_path: Path, kept: str) -> None:
    """Ray keeps a token in it, which this run can have for itself."""
    if kept:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("ab" * 32)
    mount = f"mount --bind '{tmp_path}' '{tmp_path}' && mount -o remount,bind,ro '{tmp_path}'"
    done = start(*on(mount), HOME=str(tmp_path))
    assert done.stdout == STARTED, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ([".ray"] if kept else [])


@pytest.mark.slow
def test_a_home_that_is_no_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = start(HOME=str(tmp_path / "home"))
    assert done.stdout == STARTED, done.stderr


def test_a_user_without_a_home_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that has no name."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(Path, "home", home)
    environment._ensure_token()
    assert len(bytes.fromhex(os.environ["RAY_AUTH_TOKEN"])) == 32


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("4", "4")])
def test_rays_processes_serve_threads_from_one_arena(
    given: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is None:
        monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    else:
        monkeypatch.setenv("MALLOC_ARENA_MAX", given)
    with environment.starting_ray():
        assert os.environ["MALLOC_ARENA_MAX"] == found
    assert os.environ.get("MALLOC_ARENA_MAX") == given


@pytest.mark.slow
def test_what_ray_cannot_do_is_one_line() -> None:
    """Any other obstacle, here too few open files for one of its processes."""
    done = start("sh", "-c", 'ulimit -n 24 && exec "$@"', "sh")
    refused(done, "Ray cannot start on this machine (", "session_latest/logs")
