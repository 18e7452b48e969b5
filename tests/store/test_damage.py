"""What becomes of a store that somebody or something has changed: the right answer, or one line that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import record

from scale_ray import identity
from scale_ray.cell import Cell
from scale_ray.records import Record
from scale_ray.report.read.load import load
from scale_ray.store import PlanFile, Store, StoreError, StudyPlan, record_files
from scale_ray.store.sealed import PLAN, RECORD, seal, unseal

OLD = Path(__file__).parents[1] / "fixtures" / "store_0_1_0"
READERS: dict[str, Callable[[Store], object]] = {
    "records": lambda store: list(store.records()),
    "statuses": lambda store: store.statuses(),
    "report": lambda store: load(store.location),
}
NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


@pytest.fixture
def old_store(tmp_path: Path) -> Store:
    return Store(shutil.copytree(OLD, tmp_path / "old"))


def plan(name: str = "s") -> StudyPlan:
    return StudyPlan(name=name, created="2026", cells=[Cell(id=record(0).id, config=record(0).config)])


def text_of(plan: StudyPlan) -> str:
    """A plan's file without its digest."""
    return unseal(PlanFile.of(plan).content(), PLAN)[0].decode()


# Digests


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_changed_byte_of_a_record_or_plan_is_read(data: st.DataObject) -> None:
    text, kind = data.draw(st.sampled_from([(record(0, done=True).to_json(), RECORD), (text_of(plan()), PLAN)]))
    content = seal(text, kind)
    assert unseal(content, kind) == (text.encode(), True)
    place = data.draw(st.integers(0, len(content) - 1))
    broken = bytearray(content)
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        _, sealed = unseal(bytes(broken), kind)
    except ValueError:
        return
    assert not sealed  # the change is in the member itself, which no record and no plan of any version has
    with pytest.raises(ValueError):  # noqa: PT011
        (Record if kind is RECORD else PlanFile).model_validate_json(bytes(broken))


def test_a_changed_number_is_named_and_never_told(store: Store) -> None:
    store.write_record(record(0, done=True))
    path = Path(store.record_location(record(0).id))
    path.write_text(path.read_text().replace("99.0", "99.5"))
    for read in READERS.values():
        with pytest.raises(StoreError, match=f"^{path}: not a readable record .its bytes are not those .+: move it"):
            read(store)
    with pytest.raises(StoreError, match=f"^{path}: not a readable record .its bytes are not those"):
        store.answers(record(0).id)


def test_a_changed_plan_is_named(store: Store) -> None:
    store.write_plan(plan())
    path = Path(store.location) / "studies/s.json"
    path.write_text(path.read_text().replace(", 0, 0]", ", 1, 0]"))
    with pytest.raises(StoreError, match=f"^{path}: not a study plan .its bytes are not those .+: move it away"):
        store.plans()


def test_records_and_plans_of_the_first_release_have_no_digest_and_are_read(old_store: Store) -> None:
    for found in old_store.records():
        assert "sha256" not in Path(old_store.record_location(found.id)).read_text()
    assert len(list(old_store.records())) == 10
    assert len(old_store.plans()) == 4


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("indent", [None, 0, 4])
def test_what_a_persons_tool_wrote_again_is_read_as_it_is(store: Store, indent: int | None, sort: bool) -> None:
    store.write_record(record(0, done=True))
    store.write_plan(plan())
    for path in (Path(store.record_location(record(0).id)), Path(store.location) / "studies/s.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=indent, sort_keys=sort))
    assert list(store.records_as(Record)) == [record(0, done=True)]
    assert store.plans() == [plan()]


def test_a_config_that_was_changed_in_a_record_without_digest_is_another_cells(
    old_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (identity, record_files):
        monkeypatch.setattr(module, "RECIPE_VERSION", 1)  # that of the old store
    trial_id = next(found.id for found in old_store.records())
    path = Path(old_store.record_location(trial_id))
    whole = path.read_text()
    for changed in (whole.replace('"seed": 0', '"seed": 7', 1), whole.replace('"target": "', '"target": "0', 2)):
        assert changed != whole
        path.write_text(changed)
        with pytest.raises(
            StoreError, match=f"^{path}: not a readable record .its config and inputs are those of anot"
        ):
            old_store.read_record(trial_id)
        with pytest.raises(StoreError, match=f"^{path}: not a readable record .its config and inputs"):
            load(old_store.location)


# Names


def test_a_record_under_another_cells_name_does_not_answer_for_it(store: Store) -> None:
    store.write_record(record(0, done=True))
    wrong = Path(store.record_location(record(1).id))
    shutil.copy(store.record_location(record(0).id), wrong)
    words = f"^{wrong}: not a readable record .it is the done record of cell {record(0).id}.: move it away and run the"
    with pytest.raises(StoreError, match=words):
        store.answers(record(1).id)
    for read in READERS.values():
        with pytest.raises(StoreError, match=words):
            read(store)


@pytest.mark.parametrize(
    "name",
    [
        "{id} (conflicted copy).json",
        "{id} (Ann's conflicted copy 2026-03-01).json",
        "{id}.sync-conflict-20260301-101010-ABCDEFG.json",
        "{id}~.json",
        "{id}-LAPTOP.json",
        "copy of {id}.json",
        "{id}\n.json",
        "notes.json",
    ],
)
def test_a_copy_of_a_record_is_named_with_its_remedy(store: Store, name: str) -> None:
    store.write_record(record(0, done=True))
    copy = Path(store.location) / "records" / name.format(id=record(0).id)
    shutil.copy(store.record_location(record(0).id), copy)
    shown = str(copy).replace("\n", "\\n")
    for read in (*READERS.values(), lambda store: store.record_ids()):
        with pytest.raises(StoreError) as raised:
            read(store)
        assert str(raised.value).startswith(f"{shown}: no record has this name (64 hex digits): if a program")
        assert str(raised.value).endswith("compare the two and move one away")
        assert "\n" not in str(raised.value)
    assert store.answers(record(0).id)  # asked by name, the record is the one of that name


def test_a_plan_under_another_name_is_named(store: Store) -> None:
    store.write_plan(plan())
    folder = Path(store.location) / "studies"
    for name in ("t.json", "s (conflicted copy).json", "s~.json"):
        shutil.copy(folder / "s.json", folder / name)
        words = r"not a study plan \(it is the plan of study 's'\): move it away"
        with pytest.raises(StoreError, match=words) as raised:
            store.plans()
        assert str(raised.value).startswith(f"{folder / name}: ")
        (folder / name).unlink()


@pytest.mark.parametrize("name", ["../../victim", "/etc/x", "a/b", "a\nb"])
def test_a_plan_whose_name_leads_elsewhere_is_named(store: Store, name: str) -> None:
    path = Path(store.location) / "studies" / "s.json"
    path.write_text(json.dumps(json.loads(plan().model_dump_json()) | {"name": name}))
    with pytest.raises(StoreError, match=f"^{path}: not a study plan .it is the plan of study '[^\n]+: move it away"):
        store.plans()


# Content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        NESTED,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"9" * 5000,
        b'{"schema_version": 1e999}',
        b"\x80\x04.",
    ],
    ids=["empty", "cut", "nested lists", "nested objects", "many digits", "infinite", "pickle"],
)
def test_what_is_no_record_and_no_plan_is_named_in_one_line(store: Store, content: bytes) -> None:
    path = Path(store.record_location("f" * 64))
    path.write_bytes(content)
    for read in READERS.values():
        with pytest.raises(StoreError, match=rf"^{path}: ") as raised:
            read(store)
        assert "\n" not in str(raised.value)
    path.unlink()
    path = Path(store.location) / "studies" / "s.json"
    path.write_bytes(content)
    for read in (lambda store: store.plans(), READERS["report"]):
        with pytest.raises(StoreError, match=rf"^{path}: not a study plan \(") as raised:
            read(store)
        assert "\n" not in str(raised.value)


COUNTS, AMOUNTS = ("steps", "workers"), ("target_accuracy", "wall_seconds")


@pytest.mark.parametrize(
    ("field", "number"),
    [
        *((field, number) for field in COUNTS for number in ("1e999", str(10**30), "9" * 5000, "NaN", "-5")),
        *((field, number) for field in AMOUNTS for number in ("1e999", "-1e999", "9" * 5000, "NaN")),
    ],
)
def test_a_number_that_no_table_can_hold_is_named(old_store: Store, field: str, number: str) -> None:
    trial_id = next(found.id for found in old_store.records() if found.result)
    path = Path(old_store.record_location(trial_id))
    values = json.loads(path.read_text())
    (values["result"] if field in values["result"] else values["provenance"])[field] = "HERE"
    path.write_text(json.dumps(values).replace('"HERE"', number))
    for read in READERS.values():
        with pytest.raises(StoreError, match=f"^{path}: not a readable record ") as raised:
            read(old_store)
        assert "\n" not in str(raised.value)


def test_a_key_that_does_not_belong_in_a_record_is_shown_on_one_line(store: Store) -> None:
    path = Path(store.record_location(record(0).id))
    path.write_text(json.dumps(json.loads(record(0).to_json()) | {"a\n\x1b[31mb": 1}))
    with pytest.raises(StoreError, match=r"not a readable record \(a\\n\\x1b\[31mb: Extra inputs") as raised:
        store.read_record(record(0).id)
    assert str(raised.value).isprintable()
