"""Configs and records with invented figures."""

from typing import Any

from scale_ray.config import RECIPE_VERSION, TrialConfig, identity
from scale_ray.records import CurvePoint, Failure, Provenance, Record, Result
from scale_ray.store import PlannedCell

PAIRS = [("mnist", "mnistm"), ("fonts", "mnistm")]
GAIN = {"ce": 0.0, "ce+ssl": 40.0, "ce+ssl+dist": 44.0, "ce+ssl+dist+reg": 45.5}
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


def cell_of(config: TrialConfig) -> PlannedCell:
    return PlannedCell(id=identity(config, digests(config)), config=config)


def record_of(
    config: TrialConfig, accuracy: float | None, *, recipe: int = RECIPE_VERSION, inputs: dict[str, str] | None = None
) -> Record:
    """A record that ended at `accuracy` percent, or that failed where it is None."""
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
        )
    return Record(
        recipe_version=recipe,
        id=identity(config, inputs),
        status="failed" if accuracy is None else "done",
        config=config,
        inputs=inputs,
        result=result,
        failure=failure,
        provenance=Provenance(
            started=f"2026-03-01T00:0{config.seed}:00+00:00",
            wall_seconds=36.0,
            host="laptop",
            device="cpu",
            threads=1,
            git_commit="0123abc",
            git_dirty=False,
            versions={"python": "3.11.2", "torch": "2.14.1"},
        ),
    )
