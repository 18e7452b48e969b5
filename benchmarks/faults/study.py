"""The study that is disturbed: tiny images, cells of a second or two, warm-ups that cells share."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tiny_trial import TINY

from faults.processes import heads, kill

COMBINATIONS = ("ce+ssl", "ce+ssl+dist", "ce+ssl+reg", "ce+ssl+dist+reg")  # they share a warm-up
_STEPS, _WARM_UP = 160, 60

_GIVEN = ("data.benchmark", "data.source", "data.target", "optim.steps", "optim.warmup_steps")


def command(root: Path, store: str, cells: int, *more: str) -> list[str]:
    """The command line of a study of so many cells, a multiple of four."""
    seeds, rest = divmod(cells, len(COMBINATIONS))
    assert not rest, "cells come in fours"
    settings = {path: value for path, value in TINY.items() if path not in _GIVEN}
    settings |= {"optim.steps": _STEPS, "optim.warmup_steps": _WARM_UP, "evaluate_every": 40}
    return [
        *(sys.executable, "-m", "scale_ray.cli", "ablate", "--benchmark", "image_folder", "--root", str(root)),
        *("--store", store, "--pairs", "plain:inverted", "--losses", ",".join(COMBINATIONS), "--seeds", str(seeds)),
        *("--name", "study", "--checkpoint-every", "20", "--device", "cpu"),
        *(text for path, value in settings.items() for text in ("--set", f"{path}={json.dumps(value)}")),
        *more,
    ]


def workers_option(workers: int) -> tuple[str, ...]:
    """Only where there are several: one worker is a study's default."""
    return ("--workers-per-trial", str(workers)) if workers > 1 else ()


# What the command prints below a traceback.
_FAULT = "This is a fault of scale-ray"


class Driver:
    """One person at one terminal: the same command, again and again until it ends well.

    Attributes:
        ends: exit status and last line of every end that nobody caused.
        astray: what it did wrong after it had lost its head: went on for too long, or ended with a traceback.
        starts: how often it was started.
    """

    def __init__(self, name: str, folder: Path):
        self.name, self._folder = name, folder
        self.starts, self.ends, self.astray = 0, list[str](), list[str]()
        self._process: subprocess.Popen[bytes] | None = None
        self._file: IO[bytes] | None = None
        self._killed = False

    @property
    def pid(self) -> int | None:
        """Of the running command; None where it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def well(self) -> bool:
        """Whether the last command ended with exit status 0."""
        return self._process is not None and self._process.poll() == 0

    def start(self, line: list[str]) -> None:
        self.note_end()
        self.starts, self._killed = self.starts + 1, False
        self._file = (self._folder / f"{self.name}-{self.starts}.log").open("wb")
        self._process = subprocess.Popen(line, stdout=self._file, stderr=subprocess.STDOUT, cwd=self._folder)

    def note_end(self) -> None:
        """Keep how the last command ended, where nobody ended it."""
        if self._process is None or self._file is None:
            return
        status = self._process.wait()
        self._file.close()
        if status and not self._killed:
            self.ends.append(f"exit {status}: {self._printed().rpartition(chr(10))[2][:300]}")
        self._process = None

    def kill(self) -> None:
        self._killed = True
        if self.pid is not None:
            kill(self.pid)
            assert self._process is not None
            self._process.wait()

    def kill_head(self, patience: float) -> None:
        """Kill the head processes of the Ray that this driver has started, and wait for its own end."""
        for pid in heads(self.pid) if self.pid is not None else ():
            kill(pid)
        self.outlive_head(patience)

    def outlive_head(self, patience: float) -> None:
        """Wait for the end of a driver that has lost its head, and note one that is no good end."""
        if self._process is None or self.pid is None:
            return
        self._killed = True
        try:
            status = self._process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.kill()
            self.astray.append(f"{self.name} has not ended within {patience:.0f} s without its head")
        else:
            if _FAULT in (printed := self._printed()):
                self.astray.append(f"{self.name} ended with {status} without its head: {printed[-300:]}")

    def _printed(self) -> str:
        return (self._folder / f"{self.name}-{self.starts}.log").read_text(errors="replace").strip()


def tables(store: str, out: Path) -> dict[str, str]:
    """The text of every table of the store's report; why there is none, where it fails."""
    line = [sys.executable, "-m", "scale_ray.cli", "report", store, "--out", str(out), "--figures", "0"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    if done.returncode != 0:
        return {f"report failed: {done.stderr[-500:]}": ""}
    kinds = (".md", ".csv", ".tex")
    # records.csv says when and where each cell was trained.
    return {
        path.name: path.read_text() for path in out.iterdir() if path.suffix in kinds and path.name != "records.csv"
    }


def undisturbed(root: Path, folder: Path, cells: int, workers: int) -> tuple[str, Path]:
    """The same study on this machine's own Ray, which nobody disturbs: its store, and the folder of its report."""
    store = folder / f"undisturbed-{cells}-{workers}"
    if not (store / "report" / "report.html").exists():  # the last that a study writes
        line = command(root, str(store), cells, "--local", *workers_option(workers))
        began = time.monotonic()
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode != 0:
            raise RuntimeError(f"the undisturbed study ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        print(f"the undisturbed study of {cells} cells took {time.monotonic() - began:.0f} s", flush=True)
    return str(store), folder / f"report-{cells}-{workers}"
