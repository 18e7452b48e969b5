"""What a store holds, sent to TensorBoard: what is sent, what is there already, and what a report is."""

from pathlib import Path

import pytest
import readers
from report_stores import CREATED, cell_of, config_of, record_of

from scale_ray.store import Store, StoreError, StudyPlan
from scale_ray.track import Names, open_trackers, report_files, send_records, study_cells
from scale_ray.track.sending import Sent
from scale_ray.track.tracker import Tracker

CONFIGS = [config_of("mnist", "mnistm", losses, "lenet", seed) for losses in ("ce", "ce+ssl") for seed in (0, 1)]
UNPLANNED = config_of("fonts", "mnistm", "ce", "lenet", 0)


@pytest.fixture
def store(location: str) -> Store:
    """A study of four cells, one done with its model, one done, one failed, one missing; and a record."""
    store = Store(location, create=True)
    store.write_plan(StudyPlan(name="study", created=CREATED, cells=[cell_of(config) for config in CONFIGS]))
    for config, accuracy in zip(CONFIGS, (50.0, 51.0, None), strict=False):
        store.write_record(record_of(config, accuracy))
    store.write_model(cell_of(CONFIGS[0]).id, b"weights")
    store.write_record(record_of(UNPLANNED, 40.0))
    return store


def tensorboard(folder: Path) -> Tracker:
    (tracker,) = open_trackers([f"tensorboard={folder}"]).values()
    return tracker


def send(store: Store, tracker: Tracker) -> dict[str, Sent]:
    return {
        study: send_records(tracker, study, [cell.id for cell in cells], Names(cells), store)
        for study, cells in study_cells(store)
    }


def test_a_whole_store_is_sent_once(store: Store, tmp_path: Path) -> None:
    assert send(store, tensorboard(tmp_path)) == {"study": Sent(3, 0), "no study": Sent(1, 0)}
    assert send(store, tensorboard(tmp_path)) == {"study": Sent(0, 3), "no study": Sent(0, 1)}
    shown = readers.tensorboard(str(tmp_path), "study")
    assert {cell for cell, _ in shown} == {cell_of(config).id for config in CONFIGS[:3]}
    assert sorted(run.status.partition(":")[0] for _, run in shown) == ["done", "done", "failed"]
    assert [cell for cell, _ in readers.tensorboard(str(tmp_path), "no study")] == [cell_of(UNPLANNED).id]


def test_what_has_changed_is_sent_again(store: Store, tmp_path: Path) -> None:
    send(store, tensorboard(tmp_path))
    store.write_record(record_of(CONFIGS[2], 55.0))  # it had failed
    store.write_record(record_of(CONFIGS[3], 56.0))  # it was missing
    store.write_model(cell_of(CONFIGS[1]).id, b"weights")
    assert send(store, tensorboard(tmp_path)) == {"study": Sent(3, 1), "no study": Sent(0, 1)}
    assert {run.status for _, run in readers.tensorboard(str(tmp_path), "study")} == {"done"}


def test_a_plan_that_grows_renames_no_folder(store: Store, tmp_path: Path) -> None:
    """New cells may give the old ones longer names, in which what they differ in is named."""
    send(store, tensorboard(tmp_path))
    more = [config.replace({"losses.threshold": 0.7}) for config in CONFIGS]
    cells = [cell_of(config) for config in [*CONFIGS, *more]]
    store.write_plan(StudyPlan(name="study", created=CREATED, cells=cells))
    assert send(store, tensorboard(tmp_path))["study"] == Sent(3, 0)
    assert len(readers.tensorboard(str(tmp_path), "study")) == 3


def test_records_that_cannot_have_changed_are_not_read(store: Store, tmp_path: Path) -> None:
    send(store, tensorboard(tmp_path))
    cells = [cell_of(config) for config in CONFIGS]
    store.files.write(f"records/{cells[0].id}.json", b"spoilt")
    ids, done = [cell.id for cell in cells], {cells[0].id}
    assert send_records(tensorboard(tmp_path), "study", ids, Names(cells), store, unchanged=done) == Sent(0, 3)
    with pytest.raises(StoreError, match=cells[0].id):
        send_records(tensorboard(tmp_path), "study", ids, Names(cells), store)
    with pytest.raises(StoreError, match=cells[0].id):  # this tracker does not have it
        send_records(tensorboard(tmp_path / "other"), "study", ids, Names(cells), store, unchanged=done)


def test_one_study_alone(store: Store) -> None:
    assert [study for study, _ in study_cells(store, "study")] == ["study"]
    assert [study for study, _ in study_cells(store, "no study")] == ["no study"]
    assert list(study_cells(store, "none")) == []


def test_a_report_is_what_lies_in_the_store_or_where_it_is_said_to_be(store: Store, tmp_path: Path) -> None:
    assert report_files(store, "study") == {}
    report = tmp_path / "elsewhere"
    (report / "figures").mkdir(parents=True)
    (report / "report.html").write_text("<p>")
    (report / "figures" / "curve.png").write_bytes(b"png")
    (report / "figures" / "curve.pdf").write_bytes(b"pdf")
    assert report_files(store, "study", report) == {"report.html": b"<p>", "figures/curve.png": b"png"}
    if store.folder is not None:
        report.rename(store.folder / "report")
        assert set(report_files(store, "study")) == {"report.html", "figures/curve.png"}


def test_what_a_search_has_found_is_part_of_its_report(store: Store) -> None:
    store.files.make_folders(["tuning/search"])
    store.files.write("tuning/search/settings.csv", b"a,b")
    store.files.write("tuning/search/journal.log", b"{}")
    assert report_files(store, "search") == {"search/settings.csv": b"a,b"}
