"""How soon a browser shows the page of a report: the first text, and the whole page, in headless Chromium.

    python benchmarks/first_paint.py [--cells 1000,10000]

Cells and records are made up as in report_scale.py. The page is a file, and each time is the median of five loadings in
one browser, which was warm before. It needs chromium and chromium-driver (Debian) and selenium (`pip install -e
'.[dev]'`).
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from report_scale import fill_store
from results import leave

from scale_ray.report import write_report
from scale_ray.report.build import Asked
from scale_ray.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browsers import chromium_at

LOADINGS = 5
TIMES = """
const of = performance.getEntriesByType("navigation")[0];
return [performance.getEntriesByName("first-contentful-paint")[0].startTime, of.domInteractive, of.loadEventEnd,
        document.getElementsByTagName("*").length];
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", default="1000,10000", help="sizes, separated by commas")
    parser.add_argument("--figures", type=int, default=3, help="of each kind")
    options = parser.parse_args()
    rows = []
    for cells in map(int, options.cells.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "store", create=True)
            fill_store(store, cells, 10)
            page = write_report(store.location, Path(folder) / "report", Asked(most_drawn=options.figures)).page
            rows.append({"cells": cells, "MiB": round(page.stat().st_size / 2**20, 1), **_loaded(page, Path(folder))})
        print(rows[-1], flush=True)
    notes = ["first paint: the first text; ready: the script has run; loaded: with images; seconds, median of five"]
    print(leave("first_paint", "A report's page in a browser", rows, notes))


def _loaded(page: Path, folder: Path) -> dict[str, Any]:
    found = []
    with chromium_at(folder / "profile") as browser:
        for _ in range(1 + LOADINGS):
            browser.get("about:blank")
            browser.get(page.as_uri())
            browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")
            found.append(browser.execute_script(TIMES))
    first, ready, loaded, elements = ([each[place] for each in found[1:]] for place in range(4))
    names = {"first paint": first, "ready": ready, "loaded": loaded}
    return {name: round(median(times) / 1000, 2) for name, times in names.items()} | {"elements": elements[0]}


if __name__ == "__main__":
    main()
