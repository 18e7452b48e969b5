"""Records with invented content. Imported by processes of their own too, so it imports little."""

from typing import Any

from scale_ray.config import TrialConfig
from scale_ray.identity import identity
from scale_ray.records import Failure, Provenance, Record, Result

INPUTS = {"source": "a" * 64, "target": "b" * 64}


def record(seed: int, *, done: bool = False, padding: str = "", **changes: Any) -> Record:
    config = TrialConfig().replace({"seed": seed})
    result = Result(
        target_accuracy=1 / 3, teacher_accuracy=None, source_val_accuracy=99.0, steps=10, curve=[], skipped={}
    )
    origin = Provenance(
        started="2026-03-01T00:00:00+00:00",
        wall_seconds=1.5,
        host="laptop",
        device="cpu",
        threads=1,
        git_commit=None,
        git_dirty=None,
        versions={"python": "3.11.2"},
    )
    outcome: dict[str, Any] = (
        {"result": result} if done else {"failure": Failure(kind="E", message="", traceback=padding)}
    )
    values = {
        "id": identity(config, INPUTS),
        "status": "done" if done else "failed",
        "config": config,
        "inputs": INPUTS,
        "provenance": origin,
    }
    return Record(**(values | outcome | changes))
