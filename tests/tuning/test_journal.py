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
from optuna.trial import TrialState
from quick import slow_but
from searches import Driver, search

from scale_ray.store import Store, StoreError
from scale_ray.tuning.database import open_database
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


# Attributes, which others may edit

_POISON: dict[str, list[object]] = {
    "cells": ["x", ["x"], {"0": 1}, 1, None],
    "warm_ups": ["x", {"0": 1}, {"0": ["x", "y"]}, {"0": ["x", -1]}, None],
    "curve": ["x", {"1": 2}, [1, 2], [["a", 1.0]], [[1, "b"]], [[1]], None],
    "stopped": ["x", [0, 1], {"repeat": 7, "step": 1}, {"repeat": 0}, {"repeat": 0, "step": "x"}, 3],
    "reason": [3, ["x"], None],
    "duplicate_of": ["x", [0], -1],
    "cma:generation": [[0], {"a": 1}, "x", 1.5, None],
    "fixed_params": ["x", [1], {"losses.threshold": [1]}, {"losses.threshold": "high"}],
}
_BASES: list[object] = ["x", [1], {"losses": 1}, {"method": 3}, {"nonsense": 1}]
_SPECS: list[object] = [
    {"repeats": 1},
    {"validator": []},
    "x",
    [1],
    7,
    {"space": [1]},
    {"space": {"losses.threshold": "x"}},
    {"space": {"a": "[]"}},
]


def _poison(storage: optuna.storages.BaseStorage, name: str, value: object) -> None:
    """Set an attribute of a setting that has not ended, and end that; a study's where it is one of those."""
    study = optuna.load_study(study_name="try", storage=storage)
    if name in ("spec", "base_config"):
        study.set_user_attr(name, value)
        return
    kept = storage.set_trial_system_attr if name in ("cma:generation", "fixed_params") else storage.set_trial_user_attr
    for state in (TrialState.COMPLETE, TrialState.WAITING):
        waiting = optuna.trial.create_trial(state=TrialState.WAITING)
        number = storage.create_new_trial(study._study_id, template_trial=waiting)
        kept(number, name, value)  # type: ignore[arg-type]
        if state == TrialState.COMPLETE:
            storage.set_trial_state_values(number, state, [1.0])


@pytest.mark.parametrize("kind", slow_but(["journal"], ["journal", "database"]))
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name, values in _POISON.items() for value in values),
        *(("spec", value) for value in _SPECS),
        *(("base_config", value) for value in _BASES),
    ],
)
def test_an_attribute_that_no_search_writes_is_one_line_that_names_it(
    store: Store, tiny_root: Path, tmp_path: Path, kind: str, name: str, value: object
) -> None:
    url = None if kind == "journal" else f"sqlite:///{tmp_path}/search.db"
    assert store.folder is not None
    path = store.folder / "tuning/try/journal.log"
    wanted = search(tiny_root, repeats=1, settings=2, sampler="cmaes")
    Driver(wanted, store, url=url).work(1)
    _poison(open_journal(path) if url is None else open_database(url), name, value)
    with pytest.raises(StoreError) as raised:
        Driver(wanted, store, url=url).work(3)
    told = str(raised.value)
    assert told.startswith(f"{path if url is None else f'--study-url {url}'}: not a readable search (")
    assert "\n" not in told
    assert name in told or name == "spec"
    assert "its records stay" in told or "the records stay" in told
