"""The journal of a search: a changed byte is named, half a line is dropped, and Optuna's own tools can read it."""

import errno
import os
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from searches import Driver, search

from scale_ray.store import Store, StoreError
from scale_ray.tuning.journal import open_journal


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


@pytest.fixture
def journal(store: Store, tiny_root: Path) -> Path:
    """Of a search of which four cells are done."""
    Driver(search(tiny_root), store).work(4)
    assert store.folder is not None
    return store.folder / "tuning/try/journal.log"


def numbers(storage: JournalStorage) -> list[tuple[object, ...]]:
    return [
        (trial.state, trial.params, trial.values, trial.intermediate_values, trial.user_attrs)
        for trial in optuna.load_study(study_name="try", storage=storage).get_trials()
    ]


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_byte_of_a_journal_is_read(journal: Path, data: st.DataObject) -> None:
    whole = journal.read_bytes()
    expected = numbers(open_journal(journal))
    broken = bytearray(whole)
    place = data.draw(st.integers(0, len(whole) - 2))  # the last byte ends the last line: see the next test
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    journal.write_bytes(broken)
    problem, found = "", expected  # where the change is in the word sha256, nothing is lost
    try:
        found = numbers(open_journal(journal))
    except StoreError as error:
        problem = str(error)
    journal.write_bytes(whole)
    assert found == expected
    if problem:
        assert problem.startswith(f"{journal}: not a readable journal (")
        assert problem.endswith(f"): move {journal.parent} away and run the search again; its records stay")
        assert "\n" not in problem


def test_a_journal_that_was_cut_is_what_it_was_before(journal: Path) -> None:
    whole = journal.read_bytes()
    for length in (len(whole) - 1, len(whole) - 40, len(whole) // 2):
        journal.write_bytes(whole[:length])
        open_journal(journal)
        kept = journal.read_bytes()
        assert kept.endswith(b"\n")
        assert whole.startswith(kept)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000 + b"]" * 100_000 + b"\n",
        b'{"op_code":' * 50_000 + b"1" + b"}" * 50_000 + b"\n",
        b"9" * 5000 + b"\n",
        b"{}\n",
        b"5\n",
        b"\x80\x04.\n",
        b'{"op_code": 99, "worker_id": "x"}\n',
    ],
    ids=["nested lists", "nested objects", "many digits", "empty", "number", "pickle", "no such code"],
)
def test_what_is_no_journal_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"^{path}: not a readable journal \(.+\): move {tmp_path} away") as raised:
        open_journal(path)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == content


def test_a_journal_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.log").mkdir()
    with pytest.raises(StoreError, match=rf"^{tmp_path}/journal.log: cannot be opened \(Is a directory\): check the"):
        open_journal(tmp_path / "journal.log")


def test_optunas_own_tools_read_and_write_it(journal: Path) -> None:
    plain = JournalStorage(JournalFileBackend(str(journal)))
    assert numbers(plain) == numbers(open_journal(journal))
    optuna.load_study(study_name="try", storage=plain).set_user_attr("note", "of the dashboard")
    again = optuna.load_study(study_name="try", storage=open_journal(journal))
    assert again.user_attrs["note"] == "of the dashboard"


def test_a_full_disk_is_named(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.load_study(study_name="try", storage=open_journal(journal))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=rf"^{journal}: cannot be written \(No space left on device\)"):
        study.ask()
