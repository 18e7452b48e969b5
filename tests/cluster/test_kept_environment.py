"""cluster/environment.sh: what one node has installed is unpacked on the next; its failures cost nothing but time."""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
from quick import slow_but
from s3_server import S3Server

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "cluster" / "environment.sh"
UV, PYTHON = ".local/bin/uv", ".local/share/uv/python/cpython-3.11"
pytestmark = pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd")


def home(folder: Path) -> Path:
    """A node's home with the files that say which versions it is to have."""
    (folder / "scale_ray").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder / "scale_ray")
    return folder


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A home after the installation."""
    folder = home(tmp_path / "head")
    for name in (UV, f"{PYTHON}/bin/python"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(name)
    (folder / UV).chmod(0o755)
    venv.create(folder / "scale_ray_venv", symlinks=True)
    (folder / "scale_ray_venv" / "lib" / "package.py").write_text("one = 1\n")
    return folder


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    return home(tmp_path / "worker")


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "nfs" / "environments")
    if shutil.which("aws") is None:
        pytest.skip("no AWS CLI")
    server: S3Server = request.getfixturevalue("s3")
    return f"{server.new_url()}/environments"


def run(what: str, place: str | Path, home: Path) -> str:
    """What it says; it never ends the setup of a node, and leaves nothing of its own."""
    done = subprocess.run(
        ["bash", SCRIPT, what, str(place)],
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(home)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert not list(home.glob(".environment*"))
    return done.stderr


def contents(home: Path) -> dict[str, str | int]:
    """Every file below the parts that are kept: its digest, link or mode."""
    found: dict[str, str | int] = {}
    for part in (".local", "scale_ray_venv"):
        for path in sorted((home / part).rglob("*")):
            name = str(path.relative_to(home))
            found[name] = os.readlink(path) if path.is_symlink() else path.stat().st_mode
            if path.is_file() and not path.is_symlink():
                found[f"{name}:"] = path.read_bytes().hex()
    return found


def test_a_worker_gets_what_the_head_has(head: Path, worker: Path, place: str) -> None:
    assert run("keep", place, head) == ""
    assert run("restore", place, worker) == ""
    assert contents(worker) == contents(head)
    assert list((worker / "scale_ray_venv" / "lib" / "__pycache__").glob("package.*.pyc"))  # compiled once for all


def test_one_that_is_there_is_neither_written_nor_unpacked_again(head: Path, worker: Path, tmp_path: Path) -> None:
    place = tmp_path / "environments"
    run("keep", place, head)
    (archive,) = place.iterdir()
    before = archive.stat()
    (head / "scale_ray_venv" / "later").touch()
    assert run("keep", place, head) == ""
    assert archive.stat() == before
    (worker / "scale_ray_venv").mkdir()
    assert run("restore", place, worker) == ""
    assert not list((worker / "scale_ray_venv").iterdir())


def test_what_a_node_has_already_stays(head: Path, worker: Path, tmp_path: Path) -> None:
    run("keep", tmp_path / "environments", head)
    (worker / UV).parent.mkdir(parents=True)
    (worker / UV).write_text("another")
    assert run("restore", tmp_path / "environments", worker) == ""
    assert (worker / UV).read_text() == "another"
    assert (worker / "scale_ray_venv" / "bin" / "python").exists()


def test_a_python_of_the_machine_is_not_packed(head: Path, worker: Path, tmp_path: Path) -> None:
    shutil.rmtree(head / ".local" / "share")
    assert run("keep", tmp_path / "environments", head) == ""
    assert run("restore", tmp_path / "environments", worker) == ""
    assert contents(worker) == contents(head)


def test_other_versions_have_another_archive(head: Path, worker: Path, tmp_path: Path) -> None:
    place = tmp_path / "environments"
    run("keep", place, head)
    for node in (head, worker):
        with (node / "scale_ray" / "constraints.txt").open("a") as pins:
            pins.write("further==1.0\n")
    assert "the packages are installed from the index" in run("restore", place, worker)
    assert not (worker / "scale_ray_venv").exists()
    run("keep", place, head)
    assert len(list(place.iterdir())) == 2
    assert run("restore", place, worker) == ""


def test_half_an_archive_is_not_used(head: Path, worker: Path, tmp_path: Path) -> None:
    place = tmp_path / "environments"
    run("keep", place, head)
    (archive,) = place.iterdir()
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert "cannot be unpacked: the packages are installed from the index" in run("restore", place, worker)
    assert sorted(path.name for path in worker.iterdir()) == ["scale_ray"]


NOWHERE = "/dev/null/none"


@pytest.mark.parametrize(
    "place", slow_but([NOWHERE], [NOWHERE, "s3://YOUR-BUCKET/environments", "gs://YOUR-BUCKET/environments"])
)
def test_a_place_out_of_reach_stops_nothing(
    head: Path, worker: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "the packages are installed from the index" in run("restore", place, worker)
    assert "install their packages from the index" in run("keep", place, head)
