"""One poller of a store reads what was written since its last look, and nothing else; what is broken is told."""

import pytest
from report_stores import CREATED, OFFICE_HOME, cell_of, config_of, record_of

from scale_ray.records import Failure
from scale_ray.report.read import index
from scale_ray.report.read.load import cells_of, load
from scale_ray.service.watch import CellState, Counts, StoreWatch
from scale_ray.store import Store, StoreError, StudyPlan
from scale_ray.store.doing import Doing, Training
from scale_ray.store.leases import Driver

CONFIGS = [config_of("Art", "Clipart", "ce", "resnet50", seed, **OFFICE_HOME) for seed in range(4)]
CELLS = [cell_of(config) for config in CONFIGS]


@pytest.fixture
def store(location: str) -> Store:
    made = Store(location, create=True)
    made.write_plan(StudyPlan(name="s", created=CREATED, cells=CELLS))
    return made


def test_a_look_reads_only_what_was_written_since_the_last_one(store: Store) -> None:
    watch = StoreWatch(store)
    assert watch.counts("s", 9) == Counts(0, 0, 9)  # its plan is not known yet
    assert watch.look()
    assert watch.counts("s", 9) == Counts(0, 0, 4)
    before = watch.requests
    assert not watch.look()
    assert watch.requests == before + 3  # listings
    store.write_record(record_of(CONFIGS[0], 61.0))
    assert watch.look()
    assert watch.requests == before + 3 + 3 + 1
    result = record_of(CONFIGS[0], 61.0).result
    assert result is not None
    assert watch.cells("s")[CELLS[0].id] == CellState("done", 61.0, result.source_val_accuracy)
    assert watch.counts("s", 9) == Counts(1, 0, 4)


def test_a_record_that_is_replaced_or_forgotten_is_seen(store: Store) -> None:
    watch = StoreWatch(store)
    done = record_of(CONFIGS[0], 61.0)
    failure = Failure(kind="ValueError", message="no\nmore", traceback="…")
    store.write_record(done.model_copy(update={"status": "failed", "result": None, "failure": failure}))
    watch.look()
    assert watch.cells("s")[CELLS[0].id] == CellState("failed", cause="ValueError: no")
    store.write_record(done)
    watch.look()
    assert watch.cells("s")[CELLS[0].id].status == "done"
    store.files.delete(f"records/{CELLS[0].id}.json")
    store.files.delete(f"records/{CELLS[0].id}.failed.json")
    watch.look()
    assert watch.cells("s")[CELLS[0].id] == CellState("waiting")


def test_a_broken_record_is_told_again_and_again_and_hides_no_other(store: Store) -> None:
    watch = StoreWatch(store)
    store.write_record(record_of(CONFIGS[0], 61.0))
    store.write_record(record_of(CONFIGS[2], 63.0))
    store.files.write(f"records/{CELLS[1].id}.json", b"{")
    for number in range(3):
        assert watch.look() == (number == 0)
        (problem,) = watch.problems("s")
        assert f"{CELLS[1].id}.json: not a readable record" in problem
        assert watch.counts("s", 4) == Counts(2, 0, 4)
    store.write_record(record_of(CONFIGS[1], 62.0))
    watch.look()
    assert watch.problems("s") == []
    assert watch.counts("s", 4) == Counts(3, 0, 4)


def test_a_file_with_no_records_name_is_told_and_nothing_is_forgotten(store: Store) -> None:
    watch = StoreWatch(store)
    store.write_record(record_of(CONFIGS[0], 61.0))
    watch.look()
    store.files.write("records/copy (2).json", b"{}")
    store.write_record(record_of(CONFIGS[1], 62.0))
    for _ in range(2):
        watch.look()
        assert ["no record has this name" in each for each in watch.problems("s")] == [True]
        assert watch.counts("s", 4) == Counts(1, 0, 4)
    store.files.delete("records/copy (2).json")
    watch.look()
    assert (watch.problems("s"), watch.counts("s", 4)) == ([], Counts(2, 0, 4))


def test_a_plan_that_cannot_be_read_is_told_until_it_can(store: Store) -> None:
    watch = StoreWatch(store)
    good = store.files.read("studies/s.json")
    store.files.write("studies/s.json", b"{")
    for _ in range(3):
        watch.look()
        assert ["not a study plan" in each for each in watch.problems("s")] == [True]
    assert good is not None
    store.files.write("studies/s.json", good)
    watch.look()
    assert (watch.problems("s"), watch.counts("s", 9)) == ([], Counts(0, 0, 4))


def test_a_store_whose_records_are_all_broken_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "WORTH", 2)
    for cell in CELLS:
        store.files.write(f"records/{cell.id}.json", b"{")
    watch = StoreWatch(store)
    assert watch.look()
    assert (len(watch.problems("s")), watch.counts("s", 4)) == (4, Counts(0, 0, 4))


def test_what_could_not_be_read_for_a_moment_is_read_at_the_next_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = StoreWatch(store)
    store.write_record(record_of(CONFIGS[0], 61.0))
    with monkeypatch.context() as patch:
        patch.setattr(store, "records_as", lambda *_: (_ for _ in ()).throw(StoreError("out of reach")))
        watch.look()
        assert watch.problems("s") == ["out of reach"]
    watch.look()
    assert (watch.problems("s"), watch.counts("s", 4)) == ([], Counts(1, 0, 4))


def test_what_a_driver_trains_is_seen_while_it_lives(store: Store) -> None:
    watch = StoreWatch(store)
    training = Training(
        title="a cell", cells=(CELLS[2].id,), first=0, step=30, last=120, started=True, seconds_left=9.0,
        target_accuracy=40.0, source_val_accuracy=80.0,
    )  # fmt: skip
    waiting = training.model_copy(update={"cells": (CELLS[3].id,), "started": False})
    with Driver(store.files) as driver:
        driver.doing = Doing(study="s", seconds_left=20.0, trainings=(training, waiting))
        driver.beat()
        watch.look()
        states = watch.cells("s")
        assert states[CELLS[2].id] == CellState("running", 40.0, 80.0, 30, 0.25, 9.0)
        assert states[CELLS[3].id] == CellState("waiting")
        assert [doing.seconds_left for doing in watch.doing("s")] == [20.0]
        assert [each.seconds_per_step for each in watch.doing("s")[0].trainings] == [0.1, 0.1]
        assert watch.doing("another") == []
        assert training.model_copy(update={"step": 120, "seconds_left": 0.0}).seconds_per_step is None
    watch.look()
    assert watch.cells("s")[CELLS[2].id] == CellState("waiting")


def test_what_another_program_puts_beside_the_drivers_hides_nothing(store: Store) -> None:
    for folder in ("drivers/@eaDir", "studies/@eaDir"):
        store.files.make_folders([folder])
        store.files.write(f"{folder}/thumbnail.jpg", b"")
    watch = StoreWatch(store)
    assert watch.look()
    assert (watch.problem, watch.version) == ("", 1)


def test_its_rows_are_those_that_a_reader_of_the_whole_store_has(store: Store) -> None:
    watch = StoreWatch(store)
    for number, config in enumerate(CONFIGS[:3]):
        store.write_record(record_of(config, 60.0 + number))
        watch.look()
    store.write_record(record_of(CONFIGS[0], 70.0))
    watch.look()
    assert cells_of(watch.rows, "s").equals(load(store.location, study="s", oracle=True))


def test_a_first_look_reads_what_the_index_lacks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "WORTH", 2)
    for number, config in enumerate(CONFIGS[:3]):
        store.write_record(record_of(config, 60.0 + number))
    first = StoreWatch(store)
    assert first.look()
    assert first.requests == 3 + 1 + 1 + 3  # listings, the plan, the index, records
    store.write_record(record_of(CONFIGS[0], 70.0))
    store.files.write(f"records/{CELLS[1].id}.json", b"{")
    store.files.delete(f"records/{CELLS[2].id}.json")
    second = StoreWatch(store)
    assert second.look()
    assert second.requests == 3 + 1 + 1 + 2
    assert second.counts("s", 4) == Counts(1, 0, 4)
    assert second.cells("s")[CELLS[0].id].accuracy == 70.0
    (problem,) = second.problems("s")
    assert f"{CELLS[1].id}.json: not a readable record" in problem
