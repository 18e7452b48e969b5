"""Studies run as a person would run them: through the command, in a process of their own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tiny_trial import TINY

from scale_ray.store import Store

COMBINATIONS = "ce,ce+ssl+dist+reg"
STEPS = 160  # seconds a cell: long enough to be killed in the middle

# What the study does not choose by options of their own.
SETTINGS = [
    text
    for path, value in TINY.items()
    if path not in ("data.benchmark", "data.source", "data.target", "optim.steps")
    for text in ("--set", f"{path}={json.dumps(value)}")
]


def command(root: Path, store: Path | str, *more: str, address: str | None = "local") -> list[str]:
    """What a person types; `address` None leaves it to the study where Ray is."""
    return [
        *(sys.executable, "-m", "scale_ray.cli", "ablate", "--benchmark", "image_folder", "--root", str(root)),
        *(() if address is None else ("--address", address)),
        *("--store", str(store), "--pairs", "plain:inverted", "--losses", COMBINATIONS, "--seeds", "2"),
        *("--checkpoint-every", "20", "--name", "study", *SETTINGS),
        *("--set", f"optim.steps={STEPS}", "--set", "evaluate_every=40", *more),
    ]


def run(root: Path, store: Path | str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(root, store, *more), capture_output=True, text=True, timeout=240, check=False)


def results(store: Path | str) -> dict[str, str]:
    """Record id -> all that must be the same in two runs of a trial."""
    return {record.id: record.model_dump_json(exclude={"provenance"}) for record in Store(store).records()}


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, "the study ended before the moment to kill it came"
        assert time.monotonic() < deadline, "the moment to kill the study never came"
        time.sleep(0.02)


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """(pid, command line) of every living process below `pid`."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        parents.setdefault(parent, []).append(int(entry.name))
    waiting = parents.get(pid, [])
    while waiting:
        child = waiting.pop()
        waiting += parents.get(child, [])
        try:
            yield child, (Path("/proc") / str(child) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
