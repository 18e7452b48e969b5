"""Shared stages against cells trained alone: steps, wall time, and whether the records are equal.

    python benchmarks/sharing.py [--steps 120]

The grid has three pairs of digit domains, two of them with the same source, and the paper's eight combinations. The
warm-up is a quarter of the steps. Both ways run one after the other on a local Ray, each into an empty store.
"""

import argparse
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import Any

from results import leave
from rich.console import Console

from scale_ray.config import Execution, Resources
from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.data.defaults import base_config
from scale_ray.records import Result
from scale_ray.store import Store
from scale_ray.study import Study, combinations, pairs
from scale_ray.sweep.plan import Plan, plan_study, prepare_data
from scale_ray.sweep.run import run_study
from scale_ray.training.resolve import resolve
from scale_ray.training.stages import stage_tree

COMBINATIONS = ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+dist", "ce+ssl+reg", "ce+dist+reg", "ce+ssl+dist+reg"]
PAIRS = ["mnist:mnistm", "mnist:optdigits", "optdigits:mnist"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=120, help="steps of a cell; a quarter of them is the warm-up")
    steps = parser.parse_args().steps
    study = _study(steps, PAIRS)
    with tempfile.TemporaryDirectory() as folder:
        shared, shared_results = _run(study, Path(folder) / "shared", share=True)
        alone, alone_results = _run(study, Path(folder) / "alone", share=False)
    equal = sum(alone_results[key] == result for key, result in shared_results.items())
    saved = 1 - shared["steps"] / alone["steps"]
    faster = 1 - shared["wall seconds"] / alone["wall seconds"]
    whole = _saving_of_all_pairs(steps)
    print(
        leave(
            "sharing",
            "Shared stages: 3 pairs of digits x 8 combinations",
            [alone, shared],
            [
                f"records equal bit for bit: {equal} of {len(alone_results)}",
                f"steps saved {saved:.1%}, wall time saved {faster:.1%}",
                f"on all 12 pairs of four domains the same grid would save {whole:.1%} of the steps (counted, not run)",
            ],
        )
    )


def _study(steps: int, of: list[str]) -> Study:
    base = base_config("digits", {"optim.steps": steps, "optim.warmup_steps": steps // 4 - 1})
    return Study("sharing", base, {"pair": pairs(*of), "losses": combinations(*COMBINATIONS)})


def _run(study: Study, folder: Path, *, share: bool) -> tuple[dict[str, Any], dict[str, Result | None]]:
    store = Store(folder, create=True)
    plan: Plan = plan_study(study, store, None, share=share)
    prepare_data(plan.stages, None)  # drawing the digits is not part of the measurement
    began = time.monotonic()
    run_study(plan, store, Execution(), Resources(address="local"), Console(stderr=True))
    wall = time.monotonic() - began
    records = list(store.records())
    row = {
        "way": "shared" if share else "alone",
        "cells": len(records),
        "trainings": len(plan.stages),
        "steps": plan.steps_to_do,
        "wall seconds": round(wall, 1),
        "training seconds": round(sum(record.provenance.charged_seconds or 0 for record in records), 1),
    }
    return row, {record.id: record.result for record in records}


def _saving_of_all_pairs(steps: int) -> float:
    every = [":".join(pair) for pair in permutations(BENCHMARKS["digits"].domains, 2)]
    cells = [resolve(config, None) for config in _study(steps, every).cells()]
    return 1 - sum(stage.steps for stage in stage_tree(cells)) / (steps * len(cells))


if __name__ == "__main__":
    main()
