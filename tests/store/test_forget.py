"""Forgetting records: what goes with them, and what a living driver keeps."""

from pathlib import Path

import pytest
from made_records import record

from scale_ray.cell import Cell
from scale_ray.records import Record
from scale_ray.store import Store, StoreError, StudyPlan
from scale_ray.store.forget import files_of, forget
from scale_ray.store.leases import Driver, live_holders


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def written(store: Store, *records: Record) -> dict[str, Record]:
    for each in records:
        store.write_record(each)
    return {each.id: each for each in records}


def test_a_record_goes_with_all_that_lies_beside_it_and_others_stay(store: Store) -> None:
    gone, kept = record(0, done=True), record(1, done=True)
    written(store, gone, kept)
    for each in (gone, kept):
        store.write_model(each.id, b"model")
        store.write_checkpoint(each.id, b"state")
        store.files.write(f"predictions/{each.id}.npz", b"predictions")
    store.files.make_folders([f"models/{gone.id}"])  # a model may be a folder
    store.files.write(f"models/{gone.id}/config.json", b"{}")
    done = forget(store, {gone.id: gone})
    assert set(done.files) == {gone.id}
    assert len(done.files[gone.id]) == 5
    assert done.files[gone.id][-1] == f"records/{gone.id}.json"  # last: an interrupted deletion finds it again
    assert store.record_ids() == [kept.id]
    assert files_of(store, [gone.id]) == {gone.id: []}
    assert len(files_of(store, [kept.id])[kept.id]) == 4
    assert store.files.names("leases") == []
    assert store.files.names("drivers") == []


def test_a_failure_and_the_result_that_came_later_both_go(store: Store) -> None:
    failed, done = record(0), record(0, done=True)
    written(store, failed, done)
    assert len(forget(store, {done.id: done}).files[done.id]) == 2
    assert store.record_ids() == []


def test_a_failure_that_has_become_a_result_since_it_was_seen_stays_with_its_model(store: Store) -> None:
    (failed, also), done = (record(0), record(1)), record(0, done=True)
    seen = written(store, failed, also)
    written(store, done)
    store.write_model(done.id, b"model")
    found = forget(store, seen)
    assert (list(found.files), found.changed) == ([also.id], [done.id])
    assert store.read_record(done.id) == done
    assert store.read_model(done.id) == b"model"


def test_a_cell_that_another_driver_works_on_stays(store: Store) -> None:
    busy, free = record(0), record(1)
    found = written(store, busy, free)
    store.write_plan(
        StudyPlan(name="s", created="", cells=[Cell(id=each.id, config=each.config) for each in (busy, free)])
    )
    with Driver(store.files) as other:
        assert other.acquire(busy.id)
        done = forget(store, found)
        assert list(done.files) == [free.id]
        assert done.busy[busy.id].id == other.id
        assert store.record_ids() == [busy.id]
    assert list(forget(store, {busy.id: busy}).files) == [busy.id]


def test_what_a_shared_warm_up_may_still_fail_stays_and_results_go(store: Store) -> None:
    failed, done = record(0), record(1, done=True)
    found = written(store, failed, done)
    with Driver(store.files) as other:
        assert other.acquire("f" * 64)  # no cell that the store knows: a stage of several
        assert list(forget(store, found).files) == [done.id]
    assert store.record_ids() == [failed.id]


def test_a_driver_that_begins_with_a_cell_at_this_moment_keeps_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = written(store, record(0))
    with Driver(store.files) as other:
        assert other.acquire(*found)
        monkeypatch.setattr(Driver, "holders", lambda self: {})  # as listed just before
        with pytest.raises(StoreError, match="another driver has just begun with one of these cells"):
            forget(store, found)
    assert store.record_ids() == list(found)


def test_who_only_reads_sees_who_works_on_what(store: Store) -> None:
    assert live_holders(store.files) == {}
    with Driver(store.files) as driver:
        driver.acquire("a" * 64)
        assert {key: holder.id for key, holder in live_holders(store.files).items()} == {"a" * 64: driver.id}
    assert live_holders(store.files) == {}
