"""From records to tables: seconds and peak memory for 1,000, 10,000 and 100,000 records.

    python benchmarks/report_scale.py [--records 1000,10000,100000] [--classes 10,65]

A record has a curve of 21 points with four losses, and the confusion matrix of 10 classes (as of the digits) or of 65
(as of Office-Home), which is most of what must be read. They are 12 pairs x 8 combinations x 3 backbones x 5 seeds, of
one threshold after another. Each store is read in a process of its own; its files were written just before, so that
they come from memory and not from a disk.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from results import leave

from scale_ray.config import TrialConfig, identity
from scale_ray.records import CurvePoint, Provenance, Record, Result
from scale_ray.store import PlannedCell, Store, StudyPlan

DOMAINS = ["Art", "Clipart", "Product", "Real_World"]
COMBINATIONS = ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+dist", "ce+ssl+reg", "ce+dist+reg", "ce+ssl+dist+reg"]
BACKBONES = ["resnet50", "resnet101", "resnet152"]
SEEDS, IMAGES = 5, 60  # images a class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", default="1000,10000,100000", help="sizes, with commas between them")
    parser.add_argument("--classes", default="10,65", help="of the confusion matrix, with commas between them")
    parser.add_argument("--measure", metavar="STORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(options.measure)))
        return
    rows = []
    shapes = itertools.product(options.classes.split(","), options.records.split(","))
    for classes, records in ((int(classes), int(records)) for classes, records in shapes):
        with tempfile.TemporaryDirectory() as folder:
            size = _fill(Store(folder, create=True), records, classes)
            command = [sys.executable, __file__, "--measure", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(
            {"classes": classes, "records": records, "MiB on disk": round(size / 2**20)} | json.loads(done.stdout)
        )
        print(rows[-1], flush=True)
    print(
        leave(
            "report_scale",
            "Report: from records to tables",
            rows,
            [
                "load: every record read, checked and flattened; tables: completeness, all grids, as Markdown, CSV, "
                "LaTeX and HTML; both: the process from its start, imports too",
                "report: `scale-ray report` as it is typed: also effects, figures (3 of each kind) and the page",
                f"12 pairs, 8 combinations, 3 backbones, {SEEDS} seeds, and as many thresholds as it takes: the number "
                "of grids grows with the records",
            ],
        )
    )


def _fill(store: Store, records: int, classes: int) -> int:
    """Write that many records and the study that planned them; returns their bytes."""
    cells, size = [], 0
    for config in itertools.islice(_configs(), records):
        inputs = {"source": config.data.source, "target": config.data.target}
        cells.append(PlannedCell(id=identity(config, inputs), config=config))
        content = _record(config, cells[-1].id, inputs, classes).to_json().encode()
        # Not Store.write_record, which flushes each to the disk.
        Path(store.record_location(cells[-1].id)).write_bytes(content)
        size += len(content)
    store.write_plan(StudyPlan(name="scale", created="2026-03-01T00:00:00+00:00", cells=cells))
    return size


def _configs() -> Iterator[TrialConfig]:
    for threshold in itertools.count():
        base = TrialConfig().replace({"losses.threshold": round(0.5 + threshold / 1000, 3)})
        pairs = itertools.permutations(DOMAINS, 2)
        for (source, target), terms, backbone in itertools.product(pairs, COMBINATIONS, BACKBONES):
            changes = {"data.source": source, "data.target": target, "model.backbone": backbone, "losses.terms": terms}
            config = base.replace(changes | {"method": "source_only" if terms == "ce" else "scale"})
            yield from (config.model_copy(update={"seed": seed}) for seed in range(SEEDS))


def _record(config: TrialConfig, trial_id: str, inputs: dict[str, str], classes: int) -> Record:
    draw = random.Random(trial_id)
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
    return Record(id=trial_id, status="done", config=config, inputs=inputs, result=result, provenance=origin)


def _measure(store: str) -> dict[str, float]:
    from scale_ray.report import check, grids, load, stacks, write_report
    from scale_ray.report.tables import comma_separated, html, latex, markdown

    start = time.perf_counter()
    cells = load(store)
    loaded = time.perf_counter()
    counted, remarks = check(cells)
    found = grids(counted, remarks=remarks)
    tables = stacks(found)
    for write in (markdown, latex, html):
        assert all(map(write, tables))
    assert comma_separated(tables)
    done = time.perf_counter()
    both = {
        "load s": round(loaded - start, 2),
        "tables s": round(done - loaded, 2),
        "grids": len(found),
        "both s": round(time.clock_gettime(time.CLOCK_BOOTTIME) - _started(), 2),
        "processor s": round(time.process_time(), 2),
        "peak MiB": _peak(),
    }
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        write_report(store, out)
    return both | {"report s": round(time.perf_counter() - start, 2), "its peak MiB": _peak()}


def _peak() -> int:
    """MiB resident at most since this program began; getrusage counts the parent's too, before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _started() -> float:
    """Seconds from boot to the start of this process: field 22 of its stat, in clock ticks."""
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / 100


if __name__ == "__main__":
    main()
