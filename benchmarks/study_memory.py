"""Memory of each process in a study on one machine, while more and more of its cells are done.

    python benchmarks/study_memory.py [--seeds 20] [--steps 60] [-- OPTIONS OF ablate]

The study trains LeNets on digits, as many at once as there are cores, and evaluates each at its end. A process trains
one cell after the other. What is counted is private: it would be free if the process ended.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from processes import descendants, name_of, private_mb
from results import leave

METHODS = "source_only,mcc"
_EVERY = 1.0  # seconds between two looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="of every method")
    parser.add_argument("--steps", type=int, default=60, help="of every cell")
    parser.add_argument("--name", default="study_memory", help="of the result")
    parser.add_argument("options", nargs="*", help="further options of ablate, after --")
    asked = parser.parse_args()
    cells = asked.seeds * len(METHODS.split(","))
    peaks = _measure(cells, asked.seeds, asked.steps, asked.options)
    kinds = sorted({kind for found in peaks.values() for kind in found})
    quarter = cells // 4
    rows: list[dict[str, Any]] = [
        {"cells done": f"{first} to {first + quarter - 1}"} | {kind: round(found.get(kind, 0.0)) for kind in kinds}
        for first, found in sorted(peaks.items())
    ]
    notes = [
        "private MB, the most that one process of the kind had meanwhile; Ray: the sum of all its own processes",
        f"{cells} cells of {asked.steps} steps, {os.cpu_count()} at once; options: {' '.join(asked.options) or 'none'}",
    ]
    print(leave(asked.name, "Memory of the processes of a study", rows, notes))


def _measure(cells: int, seeds: int, steps: int, options: list[str]) -> dict[int, dict[str, float]]:
    """First of a quarter of the cells -> kind of process -> MB, at most while these were trained."""
    peaks: dict[int, dict[str, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as store:
        study = subprocess.Popen(
            [
                *(sys.executable, "-m", "scale_ray.cli", "ablate", "--store", store, "--local", "--no-report"),
                *("--methods", METHODS, "--pairs", "mnist:mnistm", "--seeds", str(seeds), "--steps", str(steps)),
                *("--set", f"evaluate_every={steps}"),
                *options,
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            while study.poll() is None:
                done = len(list(Path(store, "records").glob("*.json")))
                first = min(done, cells - 1) // (cells // 4) * (cells // 4)
                for kind, megabytes in _by_kind(study.pid).items():
                    peaks[first][kind] = max(megabytes, peaks[first].get(kind, 0.0))
                time.sleep(_EVERY)
        finally:
            if study.poll() is None:
                study.send_signal(signal.SIGINT)
                study.wait()
    assert study.returncode == 0, f"the study ended with {study.returncode}"
    return peaks


def _by_kind(driver: int) -> dict[str, float]:
    """Kind of process -> private MB now."""
    found = {"driver": private_mb(driver), "trial": 0.0, "Ray": 0.0}
    for pid in descendants(driver):
        megabytes = private_mb(pid)
        if name_of(pid).startswith("ray::ImplicitFunc"):
            found["trial"] = max(found["trial"], megabytes)
        else:
            found["Ray"] += megabytes
    return found


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
