"""Invented records, in any number: no training gave their figures. For Office-Home's grid or any other cells."""

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.records import CurvePoint, Provenance, Record, Result
from scale_ray.store import Store

DOMAINS = ["Art", "Clipart", "Product", "Real_World"]
COMBINATIONS = ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+dist", "ce+ssl+reg", "ce+dist+reg", "ce+ssl+dist+reg"]
BACKBONES = ["resnet50", "resnet101", "resnet152"]
SEEDS, IMAGES = 5, 60  # images per class


def configs() -> Iterator[TrialConfig]:
    """Office-Home's 12 pairs x 8 combinations x 3 backbones x 5 seeds, for one threshold after another, without end."""
    for threshold in itertools.count():
        base = TrialConfig().replace({"losses.threshold": round(0.5 + threshold / 1000, 3)})
        pairs = itertools.permutations(DOMAINS, 2)
        for (source, target), terms, backbone in itertools.product(pairs, COMBINATIONS, BACKBONES):
            changes = {"data.source": source, "data.target": target, "model.backbone": backbone, "losses.terms": terms}
            config = base.replace(changes | {"method": "source_only" if terms == "ce" else "scale"})
            yield from (config.model_copy(update={"seed": seed}) for seed in range(SEEDS))


def fill(store: Store, cells: Iterable[Cell], classes: int) -> int:
    """Write a record of each of these cells; return their total size in bytes."""
    size = 0
    for cell in cells:
        content = record(cell, classes).to_json().encode()
        # Not Store.write_record, which flushes each record to the disk.
        Path(store.record_location(cell.id)).write_bytes(content)
        size += len(content)
    return size


def record(cell: Cell, classes: int) -> Record:
    """A record with a curve of 21 points and a confusion matrix, drawn with the cell's id as the seed."""
    draw = random.Random(cell.id)
    right = [min(IMAGES, max(0, round(draw.gauss(40, 5)))) for _ in range(classes)]
    confusion = [[0] * classes for _ in range(classes)]
    for row, count in enumerate(right):
        confusion[row][row], confusion[row][row - 1] = count, IMAGES - count
    accuracy = 100 * sum(right) / (IMAGES * classes)
    curve = [
        CurvePoint(
            step=step,
            target_accuracy=accuracy * (step + 1000) / 21_000,
            teacher_accuracy=accuracy * (step + 1000) / 21_000,
            source_val_accuracy=draw.uniform(70, 90),
            losses={name: draw.random() for name in ("ce", "ssl", "dist", "reg")},
            kept_fraction=draw.random(),
            kept_accuracy=draw.uniform(50, 100),
        )
        for step in range(0, 21_000, 1000)
    ]
    result = Result(
        target_accuracy=accuracy,
        teacher_accuracy=accuracy,
        source_val_accuracy=curve[-1].source_val_accuracy,
        steps=20_000,
        curve=curve,
        classes=[f"class_{number:02}" for number in range(classes)],
        confusion=confusion,
        skipped={},
    )
    origin = Provenance(
        started="2026-03-01T00:00:00+00:00",
        wall_seconds=3600 * draw.uniform(1, 2),
        charged_seconds=3600 * draw.random(),
        host="node",
        device="cuda",
        threads=4,
        git_commit="0" * 40,
        git_dirty=False,
        versions={"python": "3.11.2", "torch": "2.14.1"},
    )
    return Record(id=cell.id, status="done", config=cell.config, inputs=cell.inputs, result=result, provenance=origin)
