"""Seconds from a command to its first step, to its first line and to its end.

    python benchmarks/start.py [--before CHECKOUT] [--repeats 3]

Each command runs in a process of its own, one after the other; with --before, each in this package and in that of the
other checkout, in turn. A study on a Ray of its own is measured alone and while another Ray is on the machine.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import ray
from faults.study import command
from report_scale import fill_store
from results import leave
from tiny_images import make_images

from scale_ray.store import Store

CELLS = 96  # of the report
FIRST_STEP = re.compile(r"step 1(?: of 2\b|:)")
_SHORT = ("optim.steps=2", "evaluate_every=1", "optim.warmup_steps=0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.before is not None and not (options.before / "scale_ray").is_dir():
        parser.error(f"--before {options.before}: no checkout of scale_ray")  # Python would take the installed one
    here = Path(__file__).parents[1]
    versions = {"now": here} if options.before is None else {"before": options.before.resolve(), "now": here}
    with tempfile.TemporaryDirectory() as folder:
        lines = commands(Path(folder))
        rows = [row for name, line in lines.items() for row in measured(name, line, versions, options.repeats)]
        with another_ray():
            name = "a local study beside another Ray"
            rows += measured(name, lines["a local study"], versions, options.repeats)
    notes = [f"Medians of {options.repeats}. `first step`: until its line is printed, with an evaluation."]
    print(leave("start", "From a command to its first step and its end", rows, notes))


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured: name -> arguments of `scale-ray`; `{new}` is a store that does not exist yet."""
    images, records = folder / "images", folder / "records"
    make_images(images, ["plain", "inverted"], [16, 16, 16])
    fill_store(Store(records, create=True), CELLS, classes=10)
    short = [text for setting in _SHORT for text in ("--set", setting)]
    one_cell = [*command(images, "{new}", 4, "--address", "local", "--no-report"), "--losses", "ce", "--seeds", "1"]
    study = [*one_cell[one_cell.index("ablate") :], *short]
    settings = [text for name, text in pairwise(study) if name == "--set"]
    train = ["train", "--benchmark", "image_folder", "--root", str(images), "--source", "plain", "--target", "inverted"]
    return {
        "--help": ["--help"],
        f"report of {CELLS} records": ["report", str(records), "--out", "{new}"],
        "a dry run of one cell": [*study, "--dry-run"],
        "train": [*train, "--losses", "ce", "--store", "{new}", *(text for s in settings for text in ("--set", s))],
        "a local study": study,
    }


def measured(name: str, line: list[str], versions: Mapping[str, Path], repeats: int) -> Iterator[dict[str, Any]]:
    """One row for each version. A run before them is not counted: it leaves compiled files."""
    for checkout in versions.values():
        timed(line, checkout)
    times: dict[str, list[tuple[float, float | None, float]]] = {version: [] for version in versions}
    for _ in range(repeats):
        for version, checkout in versions.items():
            times[version].append(timed(line, checkout))
    for version, found in times.items():
        firsts, steps, ends = zip(*found, strict=True)
        known = [step for step in steps if step is not None]
        row = {
            "command": name,
            "version": version,
            "first line": round(median(firsts), 2),
            "first step": round(median(known), 2) if known else "",
            "end": round(median(ends), 2),
        }
        print(row, flush=True)
        yield row


def timed(line: list[str], checkout: Path) -> tuple[float, float | None, float]:
    """Seconds to the first line, to the first step, which not every command has, and to the end."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word.replace("{new}", f"{folder}/new") for word in line]
        first = step = None
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "scale_ray.cli", *words],
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        ) as process:
            assert process.stdout is not None
            for printed in process.stdout:
                seconds = time.monotonic() - began
                first = seconds if first is None else first
                step = seconds if step is None and FIRST_STEP.search(printed) else step
        end = time.monotonic() - began
        if process.returncode or first is None:
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
        return first, step, end


@contextmanager
def another_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
