"""Configs and records with made-up accuracies."""

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

from scale_ray.cell import Cell
from scale_ray.config import RECIPE_VERSION, TrialConfig
from scale_ray.identity import identity
from scale_ray.records import CurvePoint, Failure, Provenance, Record, Result
from scale_ray.store import Store, StudyPlan

DOMAINS = ["Art", "Clipart", "Product", "Real_World"]
COMBINATIONS = ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+dist", "ce+ssl+reg", "ce+dist+reg", "ce+ssl+dist+reg"]
BACKBONES = ["resnet50", "resnet101", "resnet152"]
PAIRS = [("mnist", "mnistm"), ("fonts", "mnistm")]
GAIN = {"ce": 0.0, "ce+ssl": 40.0, "ce+ssl+dist": 44.0, "ce+ssl+dist+reg": 45.5}
ORIGIN = {
    "wall_seconds": 36.0,
    "host": "laptop",
    "device": "cpu",
    "threads": 1,
    "git_commit": "0123abc",
    "git_dirty": False,
    "versions": {"python": "3.11.2", "torch": "2.14.1"},
}
OFFICE_HOME = {"data.benchmark": "office_home", "model.weights": "imagenet"}
CREATED = "2026-03-01T00:00:00+00:00"


def config_of(
    source: str, target: str, losses: str, backbone: str, seed: int, method: str = "", **changes: Any
) -> TrialConfig:
    method = method or ("source_only" if losses == "ce" else "scale")
    return TrialConfig.parse(
        {
            "method": method,
            "seed": seed,
            "data": {"benchmark": "digits", "source": source, "target": target},
            "model": {"backbone": backbone, "weights": "none"},
            "losses": {"terms": losses},
            "optim": {"steps": 600, "warmup_steps": 100},
        }
    ).replace(changes)


def digests(config: TrialConfig) -> dict[str, str]:
    return {"source": f"sha-{config.data.source}", "target": f"sha-{config.data.target}"}


def cell_of(config: TrialConfig) -> Cell:
    return Cell(id=identity(config, digests(config)), config=config)


def record_of(
    config: TrialConfig,
    accuracy: float | None,
    *,
    recipe: int = RECIPE_VERSION,
    inputs: dict[str, str] | None = None,
    **origin: Any,
) -> Record:
    """A record with this accuracy (percent), or a failed one if it is None; `origin`: fields of its provenance."""
    inputs = inputs or digests(config)
    teacher = config.method == "scale"
    result = failure = None
    if accuracy is None:
        trace = (
            'Traceback (most recent call last):\n  File "loop.py", line 1\nRuntimeError: <b>loss</b> is nan\nat step 7'
        )
        failure = Failure(kind="RuntimeError", message="<b>loss</b> is nan\nat step 7", traceback=trace)
    else:
        curve = [
            CurvePoint(
                step=step,
                target_accuracy=accuracy * step / 600,
                teacher_accuracy=accuracy * step / 600 - 1 if teacher else None,
                source_val_accuracy=99.0,
                losses={"ce": 1.0},
                kept_fraction=None,
            )
            for step in (0, 200, 400, 600)
        ]
        result = Result(
            target_accuracy=accuracy,
            teacher_accuracy=accuracy - 1 if teacher else None,
            source_val_accuracy=99.0,
            steps=600,
            curve=curve,
            skipped={"mnist": ["a.png", "b.png"]},
            images={config.data.source: 4998, config.data.target: 5000},
        )
    return Record(
        recipe_version=recipe,
        id=identity(config, inputs),
        status="failed" if accuracy is None else "done",
        config=config,
        inputs=inputs,
        result=result,
        failure=failure,
        provenance=Provenance.model_validate(ORIGIN | {"started": f"2026-03-01T00:0{config.seed}:00+00:00"} | origin),
    )


def office_home_grid(
    seeds: int = 3, combinations: Sequence[str] = COMBINATIONS, backbones: Sequence[str] = BACKBONES
) -> Iterator[tuple[TrialConfig, float]]:
    """The paper's grid of 12 pairs x combinations x backbones x seeds, each cell with a made-up accuracy.

    ssl, dist and reg add 2, 5 and 0.5 percentage points; ssl and dist together add 6 more. Pairs and seeds differ by
    the same amounts for all combinations, except for deviations of up to 0.4 points.
    """
    for pair, (source, target) in enumerate(permutations(DOMAINS, 2)):
        for losses in combinations:
            terms = set(losses.split("+"))
            gain = (
                2 * ("ssl" in terms) + 5 * ("dist" in terms) + 0.5 * ("reg" in terms) + 6 * ({"ssl", "dist"} <= terms)
            )
            for depth, backbone in enumerate(backbones):
                for seed in range(seeds):
                    ripple = (7 * pair + 3 * len(losses) + 5 * depth + 11 * seed) % 9 * 0.05
                    config = config_of(source, target, losses, backbone, seed, **OFFICE_HOME)
                    yield config, 50.0 + pair + 4 * depth + gain + 0.3 * seed + ripple


def flawed_office_home(store: Store) -> None:
    """864 planned cells (3 seeds of the paper's grid) with every flaw that the report must detect.

    Every 40th cell is missing, every 50th failed, and one in 12 of the last seed was trained by older code. Two cells
    are planned again with newer data. The eight cells of one pair, backbone and seed have the previous recipe.
    """
    planned, repaired = [], []
    for number, (config, accuracy) in enumerate(office_home_grid()):
        planned.append(cell_of(config))
        if config.pair == "Art>Clipart" and config.model.backbone == "resnet50" and config.seed == 2:
            store.write_record(record_of(config, accuracy - 3, recipe=RECIPE_VERSION - 1))
            continue
        if number in (100, 200):
            inputs = digests(config) | {"target": "sha-repaired"}
            repaired.append(Cell(id=identity(config, inputs), config=config))
            store.write_record(record_of(config, accuracy + 1, inputs=inputs, started="2026-04-01T00:00:00+00:00"))
        if number % 40 == 7:
            continue
        commit = "89abcdef" if config.seed == 2 and number % 12 == 5 else "0123abc"
        store.write_record(record_of(config, None if number % 50 == 9 else accuracy, git_commit=commit))
    store.write_plan(StudyPlan(name="ablation", created=CREATED, cells=planned))
    store.write_plan(StudyPlan(name="repaired", created=CREATED, cells=repaired))
