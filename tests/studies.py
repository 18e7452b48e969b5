"""Studies and searches as a person runs them: through the command, in a process of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from tiny_trial import TINY

from scale_ray.cli import main
from scale_ray.store import Store

# Seconds after which a command, or the wait for something in it, is given up. It ends a test that hangs and is no
# measure of speed: a busy machine can be ten times slower than an idle one.
LIMIT = 1800

COMBINATIONS = "ce,ce+ssl+dist+reg"
STEPS = 120  # long enough to be killed in the middle

# Fields of the tiny trial that the commands below do not set by an option.
SETTINGS = [
    text
    for path, value in TINY.items()
    if path not in ("data.benchmark", "data.source", "data.target", "optim.steps")
    for text in ("--set", f"{path}={json.dumps(value)}")
]


def command(root: Path, store: Path | str, *more: str, address: str | None = "local") -> list[str]:
    """The command line of a study, which writes no report; with `address` None, it finds Ray by itself."""
    return [
        *(sys.executable, "-m", "scale_ray.cli", "ablate", "--benchmark", "image_folder", "--root", str(root)),
        *(() if address is None else ("--address", address)),
        *("--store", str(store), "--pairs", "plain:inverted", "--losses", COMBINATIONS, "--seeds", "2"),
        *("--checkpoint-every", "20", "--name", "study", "--no-report", *SETTINGS),
        *("--set", f"optim.steps={STEPS}", "--set", "evaluate_every=40", *more),
    ]


def run(root: Path, store: Path | str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return finish(command(root, store, *more), **environment)


def run_here(line: list[str]) -> str:
    """What a command line prints that needs no process of its own, because it starts no Ray. It must succeed."""
    printed = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(sys, "argv", line[2:])  # without `python -m`
        with pytest.raises(SystemExit) as exit_:
            main()
    assert not exit_.value.code, printed.getvalue()
    return printed.getvalue()


SPACE = ("losses.threshold=0.3|0.4|0.5", "losses.temperature=float:0.03:1:log")


def search_command(root: Path, store: Path, *more: str, trials: int = 4, steps: int = 12) -> list[str]:
    """The command line of a search."""
    settings = [text for text in SETTINGS[1::2] if not text.startswith("losses.threshold=")]
    return [
        *(sys.executable, "-m", "scale_ray.cli", "tune", "--benchmark", "image_folder", "--root", str(root), "--local"),
        *("--store", str(store), "--pairs", "plain:inverted", "--name", "search", "--trials", str(trials)),
        *(text for space in SPACE for text in ("--space", space)),
        *(text for setting in settings for text in ("--set", setting)),
        *("--set", f"optim.steps={steps}", *more),
    ]


def run_search(
    root: Path, store: Path, *more: str, trials: int = 4, steps: int = 12
) -> subprocess.CompletedProcess[str]:
    return finish(search_command(root, store, *more, trials=trials, steps=steps))


def finish(line: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    whole = os.environ | environment
    return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, check=False, env=whole)


def at_a_terminal(line: list[str]) -> subprocess.Popen[str]:
    """Start a command line as a terminal does: in a process group of its own, which Ctrl-C reaches."""
    return subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # What a shell starts in the background ignores Ctrl-C, and so would what a test starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def press_ctrl_c(process: subprocess.Popen[str], store: Path) -> str:
    """Press Ctrl-C, check how a command on Ray ends that works on this store, and return what it has printed."""
    below = [pid for pid, _ in descendants(process.pid)]
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, printed
    assert "\nstopping: what is done is kept, with the last checkpoints; run the same command again to go on" in printed
    assert "Traceback" not in printed
    assert not list(store.glob("drivers/*"))  # so the same command goes on at once
    wait_for_end(below)
    return printed


def results(store: Path | str) -> dict[str, str]:
    """Record id -> everything that two runs of a trial must have in common."""
    return {record.id: record.model_dump_json(exclude={"provenance"}) for record in Store(store).records()}


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, "the study ended before the moment to kill it came"
        assert time.monotonic() < deadline, "the moment to kill the study never came"
        time.sleep(0.02)


def wait_for_end(pids: list[int]) -> None:
    """Wait until trials have seen their driver die and have ended; nothing may write to the store after that."""
    deadline = time.monotonic() + LIMIT
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        assert time.monotonic() < deadline, "a trial outlived its driver"
        time.sleep(0.1)


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
