"""From records to tables: seconds and peak memory for 1,000, 10,000 and 100,000 records.

    python benchmarks/report_scale.py [--records 1000,10000,100000] [--classes 10,65]

A record has a curve of 21 points with four losses, and the confusion matrix of 10 classes (as of the digits) or of 65
(as of Office-Home), which is most of the data to read. The cells are 12 pairs x 8 combinations x 3 backbones x 5 seeds,
for one threshold after another. Each store is read in its own process. Its files were written just before, so that
they are read from the page cache and not from a disk.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

from made_up import SEEDS, configs, fill
from own_process import measure, peak_mib
from results import leave

from scale_ray.cell import Cell
from scale_ray.identity import identity
from scale_ray.store import Store, StudyPlan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", default="1000,10000,100000", help="sizes, separated by commas")
    parser.add_argument("--classes", default="10,65", help="classes of the confusion matrix, separated by commas")
    parser.add_argument("--measure", metavar="STORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(options.measure)))
        return
    rows = []
    shapes = itertools.product(options.classes.split(","), options.records.split(","))
    for classes, records in ((int(classes), int(records)) for classes, records in shapes):
        with tempfile.TemporaryDirectory() as folder:
            size = fill_store(Store(folder, create=True), records, classes)
            found = measure(__file__, "--measure", folder)
        rows.append({"classes": classes, "records": records, "MiB on disk": round(size / 2**20)} | found)
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


def fill_store(store: Store, records: int, classes: int) -> int:
    """Write that many records and a plan of their cells; return the size of the records in bytes."""
    cells = []
    for config in itertools.islice(configs(), records):
        inputs = {"source": config.data.source, "target": config.data.target}
        cells.append(Cell(id=identity(config, inputs), config=config, inputs=inputs))
    store.write_plan(StudyPlan(name="scale", created="2026-03-01T00:00:00+00:00", cells=cells))
    return fill(store, cells, classes)


def _measure(store: str) -> dict[str, float]:
    from scale_ray.report import check, grids, load, stacks, write_report
    from scale_ray.report.tables.formats import FORMATS

    start = time.perf_counter()
    cells = load(store)
    loaded = time.perf_counter()
    counted, remarks = check(cells)
    found = grids(counted, remarks=remarks)
    tables = stacks(found)
    assert all(write(tables) for write in FORMATS.values())
    done = time.perf_counter()
    both = {
        "load s": round(loaded - start, 2),
        "tables s": round(done - loaded, 2),
        "grids": len(found),
        "both s": round(time.clock_gettime(time.CLOCK_BOOTTIME) - _started(), 2),
        "processor s": round(time.process_time(), 2),
        "peak MiB": round(peak_mib()),
    }
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        write_report(store, out)
    return both | {"report s": round(time.perf_counter() - start, 2), "its peak MiB": round(peak_mib())}


def _started() -> float:
    """Seconds from boot to the start of this process: field 22 of its stat, in clock ticks."""
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / 100


if __name__ == "__main__":
    main()
