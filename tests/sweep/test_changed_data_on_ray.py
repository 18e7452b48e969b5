"""Images that change while a study runs: no cell trains on others than it was planned with."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from studies import LIMIT, command, run, wait_until

from scale_ray.data.work import cpus
from scale_ray.identity import identity
from scale_ray.report import load
from scale_ray.store import Store

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "options",
    [(), ("--ray-train", "always"), ("--workers-per-trial", "2")],
    ids=["ray tune", "ray train", "two workers of ray train"],
)
def test_cells_that_start_after_two_classes_were_swapped_train_on_what_was_planned_and_a_second_run_on_the_new(
    tiny_root: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    root = Path(shutil.copytree(tiny_root, tmp_path / "root"))
    store = tmp_path / "store"
    cpus_each = cpus() // 2 if "--workers-per-trial" in options else cpus()
    line = command(root, store, "--cpus-per-trial", str(cpus_each), *options)  # one cell at a time
    study = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any((store / "records").glob("*.json")), study)
    for one, other in (("rows", "away"), ("columns", "rows"), ("away", "columns")):
        os.rename(root / "inverted" / one, root / "inverted" / other)
    _, told = study.communicate(timeout=LIMIT)
    assert study.returncode == 0, told
    records = {record.id: record for record in Store(store).records()}
    assert len(records) == 4
    for record in records.values():
        assert record.status == "done"
        assert record.id == identity(record.config, record.inputs)
        assert (record.provenance.runner == "ray train") == bool(options)
    assert len({record.inputs["target"] for record in records.values()}) == 1
    if options:
        return
    again = run(root, store)
    assert again.returncode == 0, again.stderr
    cells = load(store)
    counted = cells[~cells["superseded"]]
    assert counted["status"].tolist() == ["done"] * 4
    assert not set(counted["id"]) & set(records)
    assert counted["target_digest"].nunique() == 1
