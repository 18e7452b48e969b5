"""`scale-ray track` gives the trainings of a search the names that they had while it ran."""

from pathlib import Path

from searches import Driver, search
from studies import run_here

from scale_ray.cell import Cell
from scale_ray.records import now
from scale_ray.store import Store, StudyPlan
from scale_ray.track import Names


def test_names_have_the_tuned_fields(tiny_root: Path, tmp_path: Path) -> None:
    store, asked = Store(tmp_path / "store", create=True), search(tiny_root, settings=2, repeats=1)
    Driver(asked, store).work()
    cells = [Cell(id=record.id, config=record.config, inputs=record.inputs) for record in store.records()]
    store.write_plan(StudyPlan(name="try", created=now(), cells=cells))  # as a search on Ray does
    target = f"tensorboard={tmp_path / 'events'}"
    assert "2 runs sent" in run_here(["python", "-m", "scale_ray.cli", "track", store.location, "--to", target])
    live = Names([], list(asked.space))
    folders = {folder.name for folder in (tmp_path / "events" / "try").iterdir()}
    assert folders == {" ".join(live.of(cell)) for cell in cells}
    assert all("losses.threshold=" in name and "losses.temperature=" in name for name in folders)
