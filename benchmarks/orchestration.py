"""Overhead of a cell beyond its training: this package's studies against a plain function trainable of Ray Tune.

    python benchmarks/orchestration.py [--steps 20]

48 cells of digits (`ce+ssl`, 48 seeds), the same trainings on the same number of slots, one way after the other. The
plain way follows Ray's documentation: a function that trains one config, and a grid search over the seeds. It writes
no record, no checkpoint and no lease. It is also run with reused actors, which the documentation does not show.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from results import leave
from rich.console import Console

from scale_ray.config import Execution, Resources, TrialConfig
from scale_ray.data.defaults import base_config
from scale_ray.store import Store
from scale_ray.study import Study, combinations
from scale_ray.sweep.plan import plan_study, prepare_data
from scale_ray.sweep.run import run_study
from scale_ray.training.trial import run_trial

CELLS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--steps", type=int, default=20, help="steps of a cell; with fewer steps the overhead weighs more"
    )
    steps = parser.parse_args().steps
    study = _study(steps)
    configs = study.cells()
    ours = _ours(study)
    plain = _plain(configs, reuse_actors=False)
    reused = _plain(configs, reuse_actors=True)
    rows = [ours, plain, reused]
    print(
        leave(
            "orchestration",
            f"Overhead of a cell: {CELLS} cells of {steps} steps",
            rows,
            [
                "overhead per cell: slot seconds (slots x wall) not spent training, over cells; start of Ray included",
                f"plain Tune takes {plain['wall seconds'] / ours['wall seconds']:.2f} times this package's wall time, "
                f"with reused actors {reused['wall seconds'] / ours['wall seconds']:.2f} times",
            ],
        )
    )


def _study(steps: int) -> Study:
    base = base_config("digits", {"optim.steps": steps, "optim.warmup_steps": 2})
    return Study("orchestration", base, {"seed": range(CELLS), "losses": combinations("ce+ssl")})


def _ours(study: Study) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, create=True)
        plan = plan_study(study, store, None)
        prepare_data(plan.stages, None)  # drawing the digits is not part of the measurement
        began = time.monotonic()
        run_study(plan, store, Execution(), Resources(address="local"), Console(stderr=True))
        wall = time.monotonic() - began
        training = sum(record.provenance.wall_seconds for record in store.records())
    return _row("scale_ray", wall, training)


def _plain(configs: list[TrialConfig], *, reuse_actors: bool) -> dict[str, Any]:
    def train(assignment: dict[str, int]) -> None:
        record = run_trial(configs[assignment["cell"]], Execution(), None)
        assert record.result is not None
        tune.report({"accuracy": record.result.source_val_accuracy, "training_seconds": record.provenance.wall_seconds})

    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        ray.init(address="local", include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
        try:
            tuner = tune.Tuner(
                train,
                param_space={"cell": tune.grid_search(list(range(len(configs))))},
                tune_config=tune.TuneConfig(reuse_actors=reuse_actors),
                run_config=tune.RunConfig(storage_path=str(Path(folder).resolve()), verbose=0),
            )
            results = tuner.fit()
        finally:
            ray.shutdown()
        wall = time.monotonic() - began
    training = sum(result.metrics["training_seconds"] for result in results)
    return _row(f"plain Tune{', reused actors' if reuse_actors else ''}", wall, training)


def _row(way: str, wall: float, training: float) -> dict[str, Any]:
    slots = os.cpu_count() or 1
    return {
        "way": way,
        "cells": CELLS,
        "wall seconds": round(wall, 1),
        "training seconds": round(training, 1),
        "share of slot time training": f"{training / (slots * wall):.0%}",
        "overhead per cell, slot seconds": round((slots * wall - training) / CELLS, 2),
    }


if __name__ == "__main__":
    main()
