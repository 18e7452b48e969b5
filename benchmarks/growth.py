"""How planning, queries of the store and scheduling scale: seconds and memory for studies of 1,000 to 100,000 cells.

    python benchmarks/growth.py [--sizes 1000,10000,100000] [--works plan,schedule] [--folder /dev/shm]

The study is the paper's grid on digits (12 pairs x 8 combinations x 2 backbones) with as many seeds as needed. Images
are read only to compute the digests of the four domains. The benchmark measures the package's own calls, each in its
own process:

- plan: `plan_study` into an empty store: expand, check and identify every cell, build the stage tree, list what to do;
- plan again: the same with a store that holds a record of every cell;
- ask: `Store.statuses`, which reads and checks every record, without planning;
- read plan: read the plan's file, as every report does;
- schedule: a run of the whole plan without training and without Ray: the search object hands out every stage, 16 at
  once, and takes it back as done, as Ray Tune would, with leases, progress lines and the
  removal of leftovers at the end. The results of trainings are invented, and the time for that is not counted.

The store is in `--folder`. In memory the figures are those of the package; on a disk each lease is flushed, once per
stage.
"""

import argparse
import json
import math
import tempfile
import time
from collections import deque
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

from made_up import COMBINATIONS, fill
from own_process import measure, peak_mib, reset_peak, resident_mib
from results import leave
from rich.console import Console

from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.data.defaults import base_config
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.store.leases import Driver
from scale_ray.study import Study, combinations, pairs
from scale_ray.sweep.fixed import METRIC, FixedStages
from scale_ray.sweep.leftovers import remove_leftovers
from scale_ray.sweep.plan import Plan, keys_of, keys_still_needed, plan_study
from scale_ray.sweep.progress import StudyProgress
from scale_ray.sweep.queue import StageQueue
from scale_ray.training.resolve import resolve

WORKS = ("plan", "plan again", "ask", "read plan", "schedule")
BEFORE = {"plan again": "fill", "ask": "fill", "read plan": "write plan"}  # what a work finds in its store
SLOTS = 16
PER_SEED = 12 * 8 * 2  # cells
CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="1000,10000,100000", help="minimal numbers of cells, separated by commas")
    parser.add_argument("--works", default=",".join(WORKS), help="what to measure, separated by commas")
    parser.add_argument("--folder", help="where to create the stores; default: the system's temporary folder")
    parser.add_argument("--measure", nargs=3, metavar=("WORK", "SEEDS", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        work, seeds, store = options.measure
        print(json.dumps(_measure(work, int(seeds), store)))
        return
    sizes = sorted({math.ceil(int(size) / PER_SEED) for size in options.sizes.split(",")})
    rows = [row for work in options.works.split(",") for row in _rows(work, sizes, options.folder)]
    print(leave("growth", "Growth with the size of a study", rows, _notes(options.folder)))


def _rows(work: str, sizes: list[int], folder: str | None) -> list[dict[str, Any]]:
    """One row per size, with the ratio to the row before it."""
    rows: list[dict[str, Any]] = []
    for seeds in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as store:
            if work in BEFORE:
                measure(__file__, "--measure", BEFORE[work], str(seeds), store)
            found = measure(__file__, "--measure", work, str(seeds), store)
        cells = seeds * PER_SEED
        row = {
            "work": work,
            "cells": cells,
            "plan's MB": "",
            **found,
            "ms a cell": round(1000 * found["processor s"] / cells, 3),
        }
        rows.append(row | {"tenfold": _tenfold(rows[-1], row) if rows else ""})
        print(rows[-1], flush=True)
    return rows


def _tenfold(before: dict[str, Any], now: dict[str, Any]) -> float:
    """Growth of CPU time for ten times the cells, extrapolated from these two sizes."""
    exponent = math.log(now["processor s"] / before["processor s"]) / math.log(now["cells"] / before["cells"])
    return round(10**exponent, 1)


def _notes(folder: str | None) -> list[str]:
    return [
        "ms a cell: of the processor; tenfold: times the processor's time for ten times the cells, from the row above "
        "to this one; linear growth is 10",
        "MiB before: resident when the work began (imports; for schedule the plan too); peak MiB: at most during it",
        f"a stage takes its turn among {SLOTS}; stores in {folder or tempfile.gettempdir()}",
    ]


def _measure(work: str, seeds: int, location: str) -> dict[str, Any]:
    """Measure one kind of work at one size, in this process."""
    study, store = _study(seeds), Store(location, create=True)
    for config in study.base, study.base.replace({"data.source": "optdigits", "data.target": "fonts"}):
        resolve(config, None)  # digits are drawn once on a machine, and digested once in a process
    if work == "fill":
        return {"bytes": fill(store, plan_study(study, store, None).study.cells, CLASSES)}
    if work == "write plan":
        store.write_plan(plan_study(study, store, None).study)
        return {}
    if work == "read plan":
        return _timed(lambda: list(store.plan_files())) | {"plan's MB": round(_plan_bytes(location) / 1e6, 2)}
    if work == "schedule":
        return _schedule(plan_study(study, store, None), store)
    if work == "ask":
        return _timed(store.statuses)
    return _timed(lambda: plan_study(study, store, None))


def _plan_bytes(location: str) -> int:
    return sum(path.stat().st_size for path in Path(location, "studies").iterdir())


def _study(seeds: int) -> Study:
    return Study(
        "growth",
        base_config("digits"),
        {
            "seed": range(seeds),
            "pair": pairs(*map(":".join, permutations(BENCHMARKS["digits"].domains, 2))),
            "model.backbone": ["lenet", "resnet18"],
            "losses": combinations(*COMBINATIONS),
        },
    )


class _Clocks(NamedTuple):
    seconds: float
    processor: float  # CPU time of this process, which other programs hardly change

    @classmethod
    def now(cls) -> "_Clocks":
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: "_Clocks") -> "_Clocks":
        return _Clocks(self.seconds - other.seconds, self.processor - other.processor)

    def row(self) -> dict[str, Any]:
        return {"seconds": round(self.seconds, 3), "processor s": round(self.processor, 3)}


def _timed(work: Callable[[], object]) -> dict[str, Any]:
    reset_peak()
    before, began = resident_mib(), _Clocks.now()
    kept = work()  # keep the result until the peak is read: it is part of the memory
    spent = _Clocks.now() - began
    peak = peak_mib()
    del kept
    return spent.row() | {"MiB before": round(before), "peak MiB": round(peak)}


def _schedule(plan: Plan, store: Store) -> dict[str, Any]:
    """Do what `run_study` does apart from Ray and the trainings."""
    making_up: list[_Clocks] = []
    found = _timed(lambda: _work_off(plan, store, making_up))
    spent = _Clocks(found["seconds"], found["processor s"]) - _Clocks(*map(sum, zip(*making_up, strict=True)))
    return found | spent.row()


def _work_off(plan: Plan, store: Store, making_up: list[_Clocks]) -> None:
    """Hand out every stage and take it back as done; add the time for invented results to `making_up`."""
    figures = {METRIC: 90.0, "target_accuracy": 80.0}
    store.write_plan(plan.study)
    with Driver(store.files) as driver, open("/dev/null", "w") as nowhere:
        progress = StudyProgress(plan.stages, 0, Console(file=nowhere))
        queue = StageQueue(plan.stages, store, driver, keep=keys_still_needed(plan, {cell.id for cell in plan.todo}))
        source = FixedStages(plan.stages, queue)
        running: deque[Stage] = deque()
        number = 0
        while not source.over:
            stage = source.next() if len(running) < SLOTS else None
            if stage is not None:
                number += 1
                source.assignment(stage)
                progress.begun(stage)
                queue.has_reported(stage.key, 0)
                running.append(stage)
                continue
            stage = running.popleft()
            began = _Clocks.now()
            _leave_results(stage, store)
            making_up.append(_Clocks.now() - began)
            result = figures | {"step": stage.last}
            progress.reported(stage, result)
            source.ended(queue.finished(stage.key), result)
            progress.ended(stage)
        assert number == len(plan.stages)
        assert queue.done == {cell.id for cell in plan.todo}
        remove_leftovers(store, driver, keys_of(plan) - keys_still_needed(plan, queue.done))


def _leave_results(stage: Stage, store: Store) -> None:
    fill(store, stage.ends, CLASSES)
    if not stage.ends:
        Path(store.stage_location(stage.key)).write_bytes(b"state")


if __name__ == "__main__":
    main()
