"""A wide store with made-up accuracies, for the page."""

import math
import random
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from report_stores import CREATED, cell_of, config_of, record_of

from scale_ray.config import RECIPE_VERSION, TrialConfig
from scale_ray.records import CurvePoint, Failure, Record
from scale_ray.report import load, load_curves
from scale_ray.store import Store, StudyPlan

DOMAINS = ["mnist", "mnistm", "fonts", "usps"]
COMBINATIONS = {
    "ce": 0.0, "ce+ssl": 1.5, "ce+dist": 6.0, "ce+reg": 0.5,
    "ce+ssl+dist": 12.0, "ce+ssl+reg": 2.0, "ce+dist+reg": 7.0, "ce+ssl+dist+reg": 13.5,
}  # fmt: skip
COMMAND = "scale-ray ablate --benchmark digits --seeds 3 --name wide --store 'runs/my store'"


class Contents(NamedTuple):
    """What a store holds: `cells` as `load` returns them, with best epochs, and `curves` as `load_curves` does."""

    cells: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def of(cls, store: Store) -> "Contents":
        return cls(load(store.location, oracle=True), load_curves(store.location))


def wide_store(folder: Path, *, pairs: int = 4, backbones: int = 1, steps: int = 600) -> Store:
    """pairs x 8 combinations x backbones x 3 seeds: 96 cells by default.

    Some failed for one of two causes, some are missing, and one is stale.
    """
    store = Store(folder, create=True)
    draw = random.Random(0)
    planned = []
    for source, target in [(a, b) for a in DOMAINS for b in DOMAINS if a != b][:pairs]:
        ease = draw.uniform(45, 75)
        for losses, gain in COMBINATIONS.items():
            for backbone in ["resnet50", "resnet101", "resnet152"][:backbones]:
                for seed in range(3):
                    config = config_of(source, target, losses, backbone, seed, evaluate_every=steps // 20)
                    planned.append(config)
                    accuracy = round(ease + gain + draw.gauss(0, 0.8), 3)
                    fate = draw.random()
                    if fate < 0.03:
                        continue
                    if fate < 0.09:
                        store.write_record(_failed(config, fate))
                    else:
                        stale = len(planned) == 40
                        store.write_record(_done(config, accuracy, draw, stale))
    store.write_plan(
        StudyPlan(name="wide", created=CREATED, cells=[cell_of(config) for config in planned], command=COMMAND)
    )
    return store


def _done(config: TrialConfig, accuracy: float, draw: random.Random, stale: bool) -> Record:
    record = record_of(config, accuracy, recipe=RECIPE_VERSION - stale)
    assert record.result is not None
    labels = "ssl" in config.losses.terms or "dist" in config.losses.terms
    curve = []
    for step in range(0, config.optim.steps + 1, config.evaluate_every):
        grown = 1 - math.exp(-5 * step / config.optim.steps)
        curve.append(
            CurvePoint(
                step=step,
                target_accuracy=10 + (accuracy - 10) * grown + draw.gauss(0, 0.5),
                teacher_accuracy=10 + (accuracy - 9) * grown if config.method == "scale" else None,
                source_val_accuracy=10 + 88 * grown,
                losses={"ce": 3 - 2.5 * grown},
                kept_fraction=0.1 + 0.7 * grown if labels and step else None,
                kept_accuracy=min(99.0, 55 + (accuracy - 50) * grown) if labels and step else None,
            )
        )
    made = {"wall_seconds": 30 + 10 * draw.random(), "charged_seconds": 20.0, "workers": 2, "runner": "ray train"}
    return record.model_copy(
        update={
            "result": record.result.model_copy(update={"curve": curve}),
            "provenance": record.provenance.model_copy(update=made),
        }
    )


def _failed(config: TrialConfig, fate: float) -> Record:
    record = record_of(config, None)
    if fate < 0.055:
        return record
    message = f"CUDA out of memory. Tried to allocate {100 * fate:.2f} GiB. GPU 0 has 79.11 GiB in all"
    trace = f'Traceback (most recent call last):\n  File "loop.py", line 88\ntorch.OutOfMemoryError: {message}'
    return record.model_copy(update={"failure": Failure(kind="OutOfMemoryError", message=message, traceback=trace)})
