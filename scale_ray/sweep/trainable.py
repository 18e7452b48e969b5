"""One trial inside a Ray Tune actor."""

from pathlib import Path
from typing import Any

from ray import tune

from scale_ray.config import Execution, TrialConfig
from scale_ray.store import Store
from scale_ray.training.loop import Point, Progress
from scale_ray.training.trial import run_trial


def train_cell(point: dict[str, Any], *, cells: dict[str, TrialConfig], execution: Execution, store: Path) -> None:
    """Train the cell that the search suggested; its record goes to the store, its curve to Tune.

    Raises:
        Exception: whatever ended the training; the record already says so.
    """

    config = cells[point["cell"]]

    def report(measured: Point) -> None:
        curve_point = measured.on(*measured.accuracies.target)
        tune.report(
            {
                "step": curve_point.step,
                "target_accuracy": curve_point.target_accuracy,
                "source_val_accuracy": curve_point.source_val_accuracy,
            }
        )

    run_trial(config, execution, Store(store), Progress(on_point=report))
