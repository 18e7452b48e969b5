"""A pickle runs code. Whoever can write to a store can put one anywhere, and it is never opened as one."""

import ast
import hashlib
import io
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from made_records import record

from scale_ray.cell import Cell
from scale_ray.report.read.load import load
from scale_ray.store import Store, StudyPlan
from scale_ray.store.leases import Driver
from scale_ray.training.checkpoint import CheckpointError, StoreCheckpoints, from_bytes, to_bytes
from scale_ray.training.features import _take
from scale_ray.tuning.journal import open_journal

PACKAGE = Path(__file__).parents[2] / "scale_ray"
KEY = record(0).id
CPU = torch.device("cpu")


# What could unpickle


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_can_unpickle_what_it_reads(path: Path) -> None:
    """One module may: sweep/pickling.py, whose bytes come from the driver through Ray and never from a store."""
    tree = ast.parse(path.read_text())
    if path != PACKAGE / "sweep" / "pickling.py":
        imported = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        for forbidden in ("pickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"):
            assert forbidden not in imported | names
    assert "CmaEsSampler" not in path.read_text().replace("Optuna's own CmaEsSampler stores", "")
    for name, call in calls(tree):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("allow_pickle", "False") == "False"
        if name == "torch.load":
            assert options.get("weights_only") == "True"
        assert not name.endswith((".read_pickle", "yaml.load", "unsafe_load", "jit.load"))
        assert name not in ("eval", "exec")


# Every file of a store, read by what reads it


class Poison:
    """Unpickled, it creates a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def by_torch(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def by_numpy(value: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([value], dtype=object), allow_pickle=True)
    return file.getvalue()


FORMS: dict[str, Callable[[object], bytes]] = {
    "pickle": pickle.dumps,
    "protocol 0": lambda value: pickle.dumps(value, protocol=0),
    "torch": by_torch,
    "torch, old": lambda value: pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickle.dumps(value),
    "a state": lambda value: to_bytes({"step": value}, KEY),
    "numpy": by_numpy,
}
PLACES = ["records", "studies", "checkpoints", "stages", "models", "features", "drivers", "leases", "journal"]


def read_everything(store: Store, scratch: Path) -> None:
    def beat() -> None:
        with Driver(store.files) as driver:
            driver.others()
            driver.holders()

    for read in (
        lambda: store.read_record(KEY),
        lambda: list(store.records()),
        lambda: store.statuses(),
        lambda: store.plans(),
        lambda: load(store.location),
        lambda: StoreCheckpoints(store, KEY, 1).load(CPU),
        lambda: from_bytes(store.read_stage(KEY) or b"", KEY, "here", CPU),
        lambda: _take(store, KEY, scratch / "features.npy", (1,)),
        lambda: open_journal(scratch / "store/tuning/try/journal.log"),
        beat,
    ):
        with suppress(Exception):
            read()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", PLACES)
def test_a_pickle_in_a_store_is_never_opened(place: str, form: str, tmp_path: Path) -> None:
    store, poisoned = Store(tmp_path / "store", create=True), tmp_path / "poisoned"
    content = FORMS[form](Poison(poisoned))
    pickle.loads(pickle.dumps(Poison(poisoned)))
    assert poisoned.exists()  # the poison acts
    poisoned.rmdir()
    store.write_record(record(0, done=True))
    store.write_plan(StudyPlan(name="s", created="", cells=[Cell(id=KEY, config=record(0).config)]))
    store.files.make_folders(["tuning/try"])
    names = {
        "records": f"records/{KEY}.json",
        "studies": "studies/s.json",
        "checkpoints": f"checkpoints/{KEY}.pt",
        "stages": f"stages/{KEY}.pt",
        "models": f"models/{KEY}.safetensors",
        "drivers": f"drivers/{'a' * 32}.json",
        "leases": f"leases/{KEY}.1",
        "journal": "tuning/try/journal.log",
    }
    if place == "features":
        store.write_features(KEY, content, hashlib.sha256(content).hexdigest())
    else:
        store.files.write(names[place], content)
    read_everything(store, tmp_path)
    assert not poisoned.exists()


def test_a_state_with_a_pickle_and_a_digest_is_no_state(tmp_path: Path) -> None:
    content = to_bytes({"step": Poison(tmp_path / "poisoned")}, KEY)
    with pytest.raises(CheckpointError, match=r"^here: not a state \(Weights only load failed") as raised:
        from_bytes(content, KEY, "here", CPU)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "poisoned").exists()


def test_features_with_a_pickle_and_a_digest_are_no_features(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "store", create=True)
    content = by_numpy(Poison(tmp_path / "poisoned"))
    store.write_features(KEY, content, hashlib.sha256(content).hexdigest())
    assert not _take(store, KEY, tmp_path / "features.npy", (1,))
    assert "is damaged: features are computed anew" in caplog.text
    assert not store.has_features(KEY)
    assert not (tmp_path / "poisoned").exists()
