"""A disk that turns read-only in the middle of a study: a clear end, nothing lost, and the same command goes on."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import LIMIT, command, results, run, wait_until

pytestmark = pytest.mark.slow

LONG = ("--seeds", "1", "--set", "optim.steps=400")


class Disk:
    """A file system in memory that only the processes which `enter` starts see."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._holder = subprocess.Popen(["unshare", "--mount", "sleep", "infinity"])
        self.seen_from_here = Path(f"/proc/{self._holder.pid}/root{folder}")
        comm = Path(f"/proc/{self._holder.pid}/comm")
        while comm.read_text() != "sleep\n":  # until unshare has made the namespace
            time.sleep(0.02)
        self._mount("-t", "tmpfs", "tmpfs", str(folder))

    def enter(self, command: list[str]) -> list[str]:
        return ["nsenter", f"--target={self._holder.pid}", "--mount", f"--wd={os.getcwd()}", *command]

    def make_read_only(self) -> None:
        deadline = time.monotonic() + LIMIT
        while not self._mount("-o", "remount,ro", str(self.folder), check=False):  # busy while a file is being written
            assert time.monotonic() < deadline, "the disk stayed busy"

    def make_writable(self) -> None:
        self._mount("-o", "remount,rw", str(self.folder))

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()

    def _mount(self, *arguments: str, check: bool = True) -> bool:
        done = subprocess.run(self.enter(["mount", *arguments]), check=check, capture_output=True, text=True)
        return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("mounting a disk needs root, unshare and nsenter")
    (tmp_path / "disk").mkdir()
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


def test_a_disk_that_turns_read_only_ends_the_study_and_loses_nothing(
    disk: Disk, tiny_root: Path, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    assert run(tiny_root, undisturbed, *LONG).returncode == 0

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            disk.enter(command(tiny_root, disk.folder / "store", *LONG)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    store = disk.seen_from_here / "store"
    study = start()
    wait_until(lambda: bool(list(store.glob("checkpoints/*.pt"))), study)
    disk.make_read_only()
    _, errors = study.communicate(timeout=LIMIT)
    assert study.returncode == 2, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert str(disk.folder / "store") in line
    assert "Read-only file system" in line
    assert "its permissions" in line

    disk.make_writable()
    again = start()
    _, errors = again.communicate(timeout=LIMIT)
    assert again.returncode == 0, errors
    assert results(store) == results(undisturbed)
