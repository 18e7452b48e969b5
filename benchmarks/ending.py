"""How soon a command ends after SIGTERM, which `ray job stop` follows with SIGKILL after 3 s, and after Ctrl-C.

    python benchmarks/ending.py [--repeats 5]

Each time a command on tiny images starts in a process group of its own and gets the signal when it has come to a
certain point: SIGTERM the process, Ctrl-C the whole group, as a terminal sends it. It is timed until it is gone. Then
no process of it must be left, and it must not be announced in the store any more, so that its leases are void.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from faults.study import command
from results import leave
from tiny_images import make_images

from scale_ray.store import Store


class Moment(NamedTuple):
    """A signal at a point of a command.

    Attributes:
        signal: what the command gets.
        line: the command line, by the images' root and the store.
        comes: whether the point has come, by the store and the names of the processes below.
    """

    signal: signal.Signals
    line: Callable[[Path, Path], list[str]]
    comes: Callable[[Path, list[str]], bool]


def _study(root: Path, store: Path) -> list[str]:
    return command(root, str(store), 24, "--local")


def _train(root: Path, store: Path) -> list[str]:
    of_study = _study(root, store)
    settings = of_study[of_study.index("--set") : -1]
    given = [text for pair in zip(settings[::2], settings[1::2], strict=True) for text in pair]
    return [
        *(sys.executable, "-m", "scale_ray.cli", "train", "--benchmark", "image_folder", "--root", str(root)),
        *("--source", "plain", "--target", "inverted", "--store", str(store), "--checkpoint-every", "20", *given),
        *("--set", "optim.steps=1000000", "--set", "evaluate_every=100000"),
    ]


def _trains(store: Path, below: list[str]) -> bool:
    return any(store.glob("checkpoints/*.pt"))


def _starts_ray(store: Path, below: list[str]) -> bool:
    return "gcs_server" in below


MOMENTS = {
    "SIGTERM, a study trains": Moment(signal.SIGTERM, _study, _trains),
    "Ctrl-C, a study trains": Moment(signal.SIGINT, _study, _trains),
    "Ctrl-C, Ray starts": Moment(signal.SIGINT, _study, _starts_ray),
    "Ctrl-C, train trains": Moment(signal.SIGINT, _train, _trains),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows, facts = list[dict[str, Any]](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        make_images(root, ["plain", "inverted"], [16, 16, 16])
        for name, moment in MOMENTS.items():
            for _ in range(options.repeats):
                rows.append({"moment": name, **_end(moment, root, Path(folder) / f"store{len(rows)}")})
                print(rows[-1], flush=True)
            seconds = [row["seconds"] for row in rows if row["moment"] == name]
            goal = 2 if moment.signal == signal.SIGTERM else 5
            facts.append(
                f"{name}: median {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s; goal {goal} s"
            )
    print(leave("ending", "From SIGTERM or Ctrl-C to the end of a command", rows, facts))
    wrong = [row for row in rows if row["status"] not in (128 + signal.SIGTERM, 128 + signal.SIGINT)]
    sys.exit(bool(wrong) or any(row["announcements"] or row["left"] for row in rows))


def _end(moment: Moment, root: Path, store: Path) -> dict[str, float | int]:
    """Seconds until a command is gone, its exit status, and how many announcements and processes it leaves."""
    started = subprocess.Popen(
        moment.line(root, store),
        stdout=subprocess.DEVNULL,
        cwd=root.parent,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process, below = psutil.Process(started.pid), list[psutil.Process]()
    while started.poll() is None and not moment.comes(store, [each.name() for each in below if each.is_running()]):
        time.sleep(0.02)
        below = process.children(recursive=True)
    began = time.monotonic()
    (os.kill if moment.signal == signal.SIGTERM else os.killpg)(started.pid, moment.signal)
    status = started.wait()
    seconds = time.monotonic() - began
    _, left = psutil.wait_procs(below, timeout=10)
    announced = Store(str(store)).files.names("drivers") if (store / "drivers").exists() else []
    return {"seconds": round(seconds, 2), "status": status, "announcements": len(announced), "left": len(left)}


if __name__ == "__main__":
    main()
