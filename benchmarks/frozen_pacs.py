"""A whole study on photos, paintings, cartoons and sketches in minutes: PACS on features of a frozen encoder.

    python benchmarks/frozen_pacs.py --root PACS --weights mobilenet_v2.pth [--store runs/frozen_pacs] [--seeds 3]

Three parts, each timed: the features of all four domains (evaluation view, 4 weak and 4 strong views of every image);
how BatchNorm should see the domains, measured as joint, separate and domain on all 12 pairs and chosen by the
validator `im`, which sees no target label; and with what was chosen the paper's grid, 12 pairs x 8 combinations x
seeds. Its tables go to results/frozen_pacs/. Goal: the grid within 40 minutes on two cores.

Killed and started again it goes on; times are then those of the last start. On a GPU the features take seconds; the
rest is no faster there, for its steps are too small.
"""

import argparse
import shutil
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from results import RESULTS, leave
from rich.console import Console

from scale_ray.config import Execution, Resources, TrialConfig
from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.data.defaults import base_config
from scale_ray.report import write_report
from scale_ray.store import Store
from scale_ray.study import Study, combinations, pairs
from scale_ray.sweep.plan import Plan, plan_study, prepare_data, prepare_features
from scale_ray.sweep.run import run_study

COMBINATIONS = ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+dist", "ce+ssl+reg", "ce+dist+reg", "ce+ssl+dist+reg"]
WAYS = ["joint", "separate", "domain"]
TRIED_WITH = ["ce", "ce+ssl", "ce+ssl+dist+reg"]
VALIDATOR = "im"
PAIRS = pairs(*map(":".join, BENCHMARKS["pacs"].pairs))
TABLES = ("losses_by_backbone.md", "pairs_by_method.md", "effects.md", "records.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="FOLDER/domain/class/image")
    parser.add_argument(
        "--weights", required=True, help="weights of MobileNetV2: imagenet, or the path of a state dict"
    )
    parser.add_argument("--store", type=Path, default=Path("runs/frozen_pacs"))
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    base = base_config(
        "pacs", {"model.encoder": "frozen", "model.backbone": "mobilenet_v2", "model.weights": asked.weights}
    )
    execution = Execution(root=asked.root.absolute(), device="cpu")
    features_seconds, size = _time_features(base, asked.store, execution)
    rows = _try_batch_norms(base, asked.store / "batch_norm", execution)
    chosen = max(WAYS, key=lambda way: next(row[VALIDATOR] for row in rows if _is_decisive(row, way)))
    study = _grid(base.replace({"model.batch_norm": chosen}), COMBINATIONS, asked.seeds)
    wall, plan = _run(study, asked.store / "grid", execution)
    report = write_report(asked.store / "grid", asked.store / "grid" / "report")
    _keep(report.page.parent)
    images = sum(BENCHMARKS["pacs"].images.values())
    views = 1 + 2 * base.model.frozen_views
    print(
        leave(
            "frozen_pacs",
            "PACS on features of a frozen MobileNetV2: how BatchNorm sees the domains, 12 pairs, seed 0",
            rows,
            [
                f"chosen by {VALIDATOR} with ce+ssl+dist+reg: batch_norm={chosen}"
                + (", the default" if chosen == TrialConfig().model.batch_norm else ", NOT the default"),
                f"features: {images:,} images x {views} views in {features_seconds:.0f} s on all cores, "
                f"{images * views / features_seconds:,.0f} a second, {size / 2**20:.0f} MiB",
                f"grid: {len(plan.study.cells)} cells, {len(plan.answered)} of them done before, in {wall / 60:.1f} "
                f"minutes: {len(plan.stages)} trainings, {plan.steps_to_do:,} steps "
                f"({plan.steps_alone:,} if cells shared none)",
                "its tables: results/frozen_pacs/",
            ],
        )
    )


def _grid(base: TrialConfig, losses: list[str], seeds: int) -> Study:
    return Study("frozen-pacs", base, {"seed": range(seeds), "pair": PAIRS, "losses": combinations(*losses)})


def _time_features(base: TrialConfig, folder: Path, execution: Execution) -> tuple[float, int]:
    """Seconds and bytes of all features. Features that the store already has take no time."""
    store = Store(folder / "grid", create=True)
    plan = plan_study(_grid(base, ["ce+ssl"], 1), store, execution.root)
    prepare_data(plan.stages, execution.root)  # input.py measures decoding
    began = time.monotonic()
    prepare_features(plan.stages, execution, store)
    seconds = time.monotonic() - began
    assert store.folder is not None
    return seconds, sum(path.stat().st_size for path in (store.folder / "features").glob("*.npy"))


def _try_batch_norms(base: TrialConfig, folder: Path, execution: Execution) -> list[dict[str, Any]]:
    """All ways of BatchNorm as one study: its means by way and loss combination."""
    axes: dict[str, list[Any]] = {"model.batch_norm": WAYS, "pair": PAIRS, "losses": combinations(*TRIED_WITH)}
    _run(Study("batch-norm", base, axes), folder, execution)
    rows = []
    for way in WAYS:
        results = [record for record in Store(folder).records() if record.config.model.batch_norm == way]
        for losses in TRIED_WITH:
            of_losses = [record.result for record in results if record.config.combination == losses and record.result]
            accuracies = [result.target_accuracy for result in of_losses if result.target_accuracy is not None]
            assert len(of_losses) == len(accuracies) == len(PAIRS)
            rows.append(
                {
                    "batch_norm": way,
                    "losses": losses,
                    VALIDATOR: round(fmean(result.validators[VALIDATOR] for result in of_losses), 4),
                    "source_val": round(fmean(result.source_val_accuracy for result in of_losses), 2),
                    "target accuracy (chose nothing)": round(fmean(accuracies), 2),
                }
            )
    return rows


def _is_decisive(row: dict[str, Any], way: str) -> bool:
    return row["batch_norm"] == way and row["losses"] == TRIED_WITH[-1]


def _run(study: Study, folder: Path, execution: Execution) -> tuple[float, Plan]:
    """Seconds of the whole study, including the start of Ray, and its plan."""
    store = Store(folder, create=True)
    plan = plan_study(study, store, execution.root)
    began = time.monotonic()
    outcome = run_study(plan, store, execution, Resources(address="local"), Console(stderr=True))
    assert outcome.done == len(plan.study.cells), f"{outcome}: run the same command again"
    return time.monotonic() - began, plan


def _keep(report: Path) -> None:
    """Copy the study's tables to the folder of results."""
    kept = RESULTS / "frozen_pacs"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for name in TABLES:
        shutil.copy(report / name, kept / name)


if __name__ == "__main__":
    main()
