"""The index of records changes nothing but the time: what is read with it is what the records say."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_stores import CREATED, cell_of, config_of, record_of

import scale_ray
from scale_ray.config import RECIPE_VERSION
from scale_ray.report import load
from scale_ray.report.read import index
from scale_ray.report.read.index import read_rows
from scale_ray.report.read.load import cells_of
from scale_ray.store import Store, StoreError, StudyPlan

CONFIGS = [config_of("mnist", "mnistm", losses, "lenet", seed) for losses in ("ce", "ce+ssl") for seed in range(3)]
CELLS = [cell_of(config) for config in CONFIGS]


@pytest.fixture(autouse=True)
def _worth_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "WORTH", 2)


def filled(location: str, number: int = len(CONFIGS)) -> Store:
    store = Store(location, create=True)
    store.write_plan(StudyPlan(name="s", created=CREATED, cells=CELLS))
    for seed, config in enumerate(CONFIGS[:number]):
        store.write_record(record_of(config, None if seed == 1 else 60.0 + seed))
    return store


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of all records that were read."""
    found: list[str] = []
    of_store = Store.records_as

    def counted(store: Store, kind: type, ids: list[str]) -> Iterator[object]:
        found.extend(ids)
        return of_store(store, kind, ids)

    monkeypatch.setattr(Store, "records_as", counted)
    return found


def without_index(store: Store) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "WORTH", 10**9)
        return cells_of(read_rows(store))


def test_only_what_has_changed_is_read_again(location: str, read: list[str]) -> None:
    store = filled(location)
    first = load(location, oracle=True)
    assert sorted(read) == sorted(cell.id for cell in CELLS)
    read.clear()
    pd.testing.assert_frame_equal(load(location, oracle=True), first)
    assert read == []
    store.write_record(record_of(CONFIGS[1], 71.0))  # it had failed
    store.write_record(record_of(CONFIGS[2], 72.0))
    cells = load(location).set_index("cell")
    assert sorted(read) == sorted([CELLS[1].id, CELLS[2].id])
    assert cells.loc[[CELLS[1].id, CELLS[2].id], "target_accuracy"].tolist() == [71.0, 72.0]
    store.files.delete(f"records/{CELLS[0].id}.json")
    assert load(location).set_index("cell").loc[CELLS[0].id, "status"] == "missing"


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 5), st.one_of(st.none(), st.integers(50, 53))),
        st.tuples(st.just("stale"), st.integers(0, 5), st.just(40)),
        st.tuples(st.just("delete"), st.integers(0, 5), st.none()),
        st.tuples(st.just("look"), st.just(0), st.none()),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(CHANGES)
def test_whatever_happens_between_two_looks_the_table_is_that_of_the_records(
    changes: list[tuple[str, int, int | None]],
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "WORTH", 2)
        store = filled(folder, 3)
        for what, number, accuracy in [*changes, ("look", 0, None)]:
            config = CONFIGS[number]
            if what == "write":
                store.write_record(record_of(config, accuracy))
            elif what == "stale":
                old = record_of(config, accuracy, recipe=RECIPE_VERSION - 1)
                store.write_record(old.model_copy(update={"id": CELLS[number].id}))
            elif what == "delete":
                for ending in ("json", "failed.json"):
                    store.files.delete(f"records/{CELLS[number].id}.{ending}")
            else:
                pd.testing.assert_frame_equal(cells_of(read_rows(store)), without_index(store))


def test_a_changed_byte_is_noticed_also_where_size_and_time_are_as_before(tmp_path: Path) -> None:
    store = filled(str(tmp_path))
    load(tmp_path)
    path = Path(store.record_location(CELLS[0].id))
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b"60.0", b"90.0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(StoreError, match=f"{path}: not a readable record"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "nothing in it", "another table", "folder"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    store = filled(str(tmp_path))
    expected = load(tmp_path)
    path = tmp_path / "index"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "nothing in it":
        path.write_bytes(b"")
    elif damage == "another table":
        expected.to_parquet(path)
    else:
        path.unlink()
        path.mkdir()
    pd.testing.assert_frame_equal(load(tmp_path), expected)
    pd.testing.assert_frame_equal(load(tmp_path), expected)
    assert without_index(store).drop(columns="oracle_accuracy").equals(expected)


def test_rows_of_other_code_are_not_taken(
    tmp_path: Path, read: list[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(str(tmp_path))
    load(tmp_path)
    read.clear()
    other = tmp_path_factory.mktemp("code") / "scale_ray"
    shutil.copytree(Path(scale_ray.__file__).parent, other, ignore=shutil.ignore_patterns("__pycache__"))
    assert index._maker(other) == index._MAKER
    with (other / "config" / "parts.py").open("a") as file:
        file.write("# another line\n")
    monkeypatch.setattr(index, "_MAKER", index._maker(other))
    load(tmp_path)
    assert sorted(read) == sorted(cell.id for cell in CELLS)


def test_what_is_written_while_records_are_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that comes after the listing and goes again: its row would have the stamp of the record below it."""
    store = filled(str(tmp_path))
    old = record_of(CONFIGS[0], 40, recipe=RECIPE_VERSION - 1)
    store.write_record(old.model_copy(update={"id": CELLS[0].id}))
    failure, before = record_of(CONFIGS[0], None), Store.records_as

    def with_failure(self: Store, kind: type, ids: list[str]) -> Iterator[object]:
        self.write_record(failure)
        return before(self, kind, ids)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "records_as", with_failure)
        assert load(tmp_path).set_index("cell").loc[CELLS[0].id, "status"] == "failed"
    store.files.delete(f"records/{CELLS[0].id}.failed.json")
    assert load(tmp_path).set_index("cell").loc[CELLS[0].id, "status"] == "stale"


def test_rows_come_in_the_order_of_their_cells_whatever_the_index_has(tmp_path: Path) -> None:
    """Status tells the first of several failures alike, and of records that began in the same second."""
    store = filled(str(tmp_path))
    read_rows(store)
    store.write_record(record_of(min(CONFIGS, key=lambda config: cell_of(config).id), 70.0))
    assert list(read_rows(store).of_records()) == sorted(cell.id for cell in CELLS)


def test_no_changed_bit_of_an_index_changes_a_row(tmp_path: Path) -> None:
    store = filled(str(tmp_path))
    load(tmp_path)
    content, stamps = (tmp_path / "index").read_bytes(), store.record_stamps()
    assert len(dict(index._rows_of(content, stamps))) == len(CELLS)
    for place in range(0, len(content), 41):
        changed = content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]
        try:
            found = dict(index._rows_of(changed, stamps))
        except StoreError:
            continue
        pytest.fail(f"byte {place} was changed, and {len(found)} rows were read")


def test_a_store_that_nothing_can_be_written_to_has_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(str(tmp_path))

    def refuse(name: str, content: bytes) -> None:
        raise StoreError(f"{name}: read-only")

    monkeypatch.setattr(store.files, "write", refuse)
    assert len(cells_of(read_rows(store))) == len(CELLS)


def test_a_small_store_has_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "WORTH", len(CELLS) + 1)
    filled(str(tmp_path))
    load(tmp_path)
    assert not (tmp_path / "index").exists()
