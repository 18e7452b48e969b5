"""The store: whole files whatever kills the writer, and errors that name the path."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scale_ray.config import RECIPE_VERSION, TrialConfig, identity
from scale_ray.files import replacing
from scale_ray.records import Failure, Provenance, Record, Result
from scale_ray.store import PlannedCell, Store, StoreError, StudyPlan, is_current

# A process that writes the records of three trials again and again, each large enough to be caught half-written.
WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_store import record
from scale_ray.store import Store
store = Store({root!r}, create=True)
records = [record(seed, padding={padding!r} * {size}) for seed in range(3)]
for number in range({count}):
    store.write_record(records[number % 3])
    if number == 0:
        print("writing", flush=True)
"""


def record(seed: int, *, done: bool = False, padding: str = "", **changes: Any) -> Record:
    config = TrialConfig().replace({"seed": seed})
    result = Result(
        target_accuracy=1 / 3, teacher_accuracy=None, source_val_accuracy=99.0, steps=10, curve=[], skipped={}
    )
    origin = Provenance(
        started="2026-03-01T00:00:00+00:00",
        wall_seconds=1.5,
        host="laptop",
        device="cpu",
        threads=1,
        git_commit=None,
        git_dirty=None,
        versions={"python": "3.11.2"},
    )
    outcome: dict[str, Any] = (
        {"result": result} if done else {"failure": Failure(kind="E", message="", traceback=padding)}
    )
    values = {
        "id": identity(config, {}),
        "status": "done" if done else "failed",
        "config": config,
        "inputs": {"source": "a" * 64, "target": "b" * 64},
        "provenance": origin,
    }
    return Record(**(values | outcome | changes))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def writer(root: Path, *, count: int, size: int, padding: str = "x") -> "subprocess.Popen[bytes]":
    code = WRITER.format(tests=str(Path(__file__).parent), root=str(root), count=count, size=size, padding=padding)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


# Records


def test_a_record_reads_back_equal(store: Store) -> None:
    for written in (record(0, done=True), record(1)):
        store.write_record(written)
        assert store.read_record(written.id) == written
    assert [found.id for found in store.records()] == sorted([record(0).id, record(1).id])
    assert store.read_record("0" * 64) is None


def test_a_record_is_readable_json_that_others_may_read(store: Store) -> None:
    store.write_record(record(0, done=True))
    path = store.record_path(record(0).id)
    assert path == store.root / "records" / f"{record(0).id}.json"
    assert json.loads(path.read_text())["result"]["target_accuracy"] == 1 / 3
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.read_text().endswith("}\n")


def test_a_later_record_takes_the_place_of_an_earlier(store: Store) -> None:
    store.write_record(record(0))
    store.write_record(record(0, done=True))
    found = store.read_record(record(0).id)
    assert found is not None
    assert found.status == "done"
    assert len(list(store.records())) == 1


def test_only_a_done_record_of_this_recipe_answers_a_cell() -> None:
    assert is_current(record(0, done=True))
    assert not is_current(record(0, done=True, recipe_version=RECIPE_VERSION - 1))
    assert not is_current(record(0))
    assert not is_current(None)


def test_done_drops_the_checkpoint_and_failed_keeps_it(store: Store) -> None:
    trial_id = record(0).id
    checkpoint, model = Path(store.checkpoint_location(trial_id)), Path(store.model_location(trial_id))
    assert checkpoint == store.root / "checkpoints" / f"{trial_id}.pt"
    assert model == store.root / "models" / f"{trial_id}.safetensors"
    checkpoint.write_bytes(b"state")
    model.write_bytes(b"model")
    store.write_record(record(0))
    assert checkpoint.exists()
    store.write_record(record(0, done=True))
    assert not checkpoint.exists()
    assert model.exists()


# What cannot be read


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema_version": 1}', b'{"schema_version": 1, "id": 5}'],
)
def test_an_unreadable_record_is_named_and_never_skipped(store: Store, content: bytes) -> None:
    store.write_record(record(0, done=True))
    path = store.record_path("f" * 64)
    path.write_bytes(content)
    words = rf"^{path}: not a readable record \(.+\): move it away and run the study again$"
    with pytest.raises(StoreError, match=words):
        store.read_record("f" * 64)
    with pytest.raises(StoreError, match=words):
        list(store.records())


def test_a_record_that_is_a_folder_is_named(store: Store) -> None:
    store.record_path("f" * 64).mkdir()
    with pytest.raises(StoreError, match="not a readable record"):
        store.read_record("f" * 64)


def test_a_truncated_record_is_named(store: Store) -> None:
    store.write_record(record(0, done=True))
    path = store.record_path(record(0).id)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=path.name):
        store.read_record(record(0).id)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_schema_is_named(store: Store, version: object) -> None:
    values = json.loads(record(0).to_json()) | {"schema_version": version, "of_a_later_version": 1}
    store.record_path(record(0).id).write_text(json.dumps(values))
    with pytest.raises(StoreError, match=f"record schema {version}, this scale-ray reads 1: use the version"):
        store.read_record(record(0).id)


# Study plans


def test_plans_read_back_ordered_by_name(store: Store) -> None:
    cell = PlannedCell(id=record(0).id, config=record(0).config)
    plans = [StudyPlan(name=name, created="2026-03-01T00:00:00+00:00", cells=[cell]) for name in ("b", "a")]
    for plan in plans:
        store.write_plan(plan)
    assert store.plans() == [plans[1], plans[0]]


def test_an_unreadable_plan_is_named(store: Store) -> None:
    path = store.root / "studies" / "s.json"
    path.write_text("{}")
    with pytest.raises(StoreError, match=rf"^{path}: not a study plan \(name: Field required\)"):
        store.plans()


# Where a store can be


def test_a_missing_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"store {tmp_path}/runs: no such folder: check the path"):
        Store(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("url", ["s3://bucket/runs", "gs://b/r", "hdfs://b", "file:///tmp/runs"])
def test_a_url_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, create: bool) -> None:
    monkeypatch.chdir(tmp_path)
    for root in (url, Path(url)):  # a Path has lost one of the slashes
        with pytest.raises(StoreError, match="only folders of a mounted file system can be a store"):
            Store(root, create=create)
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_a_colon_is_no_url(tmp_path: Path) -> None:
    assert Store(tmp_path / "10:30" / "run", create=True).root.is_dir()


def test_a_relative_path_does_not_move_with_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("runs", create=True)
    monkeypatch.chdir("/")
    store.write_record(record(0))
    assert (tmp_path / "runs" / "records" / f"{record(0).id}.json").exists()


def test_a_store_under_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = "cannot be written to .Not a directory.: choose another folder or change its permissions"
    with pytest.raises(StoreError, match=words):
        Store(tmp_path / "file" / "store", create=True)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where not even root makes folders")
def test_a_store_where_nobody_may_write_is_refused() -> None:
    with pytest.raises(StoreError, match="store /proc/scale_ray: cannot be written to"):
        Store("/proc/scale_ray", create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_write_permission_is_refused(store: Store) -> None:
    records = store.root / "records"
    records.chmod(0o500)
    try:
        with pytest.raises(StoreError, match=r"cannot be written to \(Permission denied\)"):
            Store(store.root, create=True)
        with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\)"):
            store.write_record(record(0))
    finally:
        records.chmod(0o700)


def test_a_store_whose_folder_vanishes_is_named(store: Store) -> None:
    (store.root / "records").rmdir()
    with pytest.raises(StoreError, match=f"{record(0).id}.json: cannot be written .No such file or directory.: check"):
        store.write_record(record(0))


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from scale_ray.store import StoreError, replacing
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with replacing(Path({str(tmp_path / "file")!r})) as file:
        file.write(bytes(100_000))
except StoreError as error:
    print(error)
"""
    (tmp_path / "file").write_text("old")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "cannot be written (File too large): check the folder, its permissions and its free space" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


# Whole files


def test_an_error_in_the_block_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def broken() -> None:
        with replacing(path) as file:
            file.write(b"half of the new")
            raise KeyError("broken")

    with pytest.raises(KeyError):
        broken()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_records_are_whole_after_sigkill(tmp_path: Path) -> None:
    root = tmp_path / "store"
    for delay in (0.0, 0.01, 0.03, 0.05, 0.07, 0.11):
        with writer(root, count=10**9, size=8_000_000) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            time.sleep(delay)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        found = list(Store(root).records())
        assert found
        assert all(one.failure is not None and len(one.failure.traceback) == 8_000_000 for one in found)


def test_concurrent_writers_leave_one_or_the_other(tmp_path: Path) -> None:
    root = tmp_path / "store"
    options = {"count": 60, "size": 500_000}
    paddings = {letter * 500_000 for letter in "ab"}
    seen = 0
    with writer(root, **options, padding="a") as one_writer, writer(root, **options, padding="b") as other:
        while one_writer.poll() is None or other.poll() is None:
            if root.is_dir():
                for one in Store(root).records():
                    assert one.failure is not None
                    assert one.failure.traceback in paddings
                    seen += 1
    assert (one_writer.returncode, other.returncode) == (0, 0)
    assert seen
    assert len(list((root / "records").iterdir())) == 3  # no unfinished file is left over
