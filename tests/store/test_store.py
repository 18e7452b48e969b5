"""The store: atomic writes even if the writer is killed, and errors that name the path."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pyarrow.fs
import pytest
import ray
from made_records import record
from s3_server import SLOW_ON_S3, S3Server

from scale_ray.cell import Cell
from scale_ray.config import RECIPE_VERSION
from scale_ray.store import Store, StoreError, StudyPlan, is_current
from scale_ray.store.leases import Announcement, Driver
from scale_ray.store.sealed import RECORD, seal
from scale_ray.sweep.leftovers import remove_leftovers

# Writes the records of three trials again and again. Each is large enough to be caught half-written.
WRITER = """
import sys
sys.path.insert(0, {folder!r})
from made_records import record
from scale_ray.store import Store
store = Store({location!r}, create=True)
records = [record(seed, padding={padding!r} * {size}) for seed in range(3)]
for number in range({count}):
    store.write_record(records[number % 3])
    if number == 0:
        print("writing", flush=True)
"""


@pytest.fixture
def store(location: str) -> Store:
    return Store(location, create=True)


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    return Store(tmp_path / "local", create=True)


def writer(location: str, *, count: int, size: int, padding: str = "x") -> "subprocess.Popen[bytes]":
    code = WRITER.format(folder=str(Path(__file__).parent), location=location, count=count, size=size, padding=padding)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


# Records


def test_a_record_reads_back_equal(store: Store) -> None:
    for written in (record(0, done=True), record(1)):
        store.write_record(written)
        assert store.read_record(written.id) == written
    assert [found.id for found in store.records()] == sorted([record(0).id, record(1).id])
    assert store.read_record("0" * 64) is None


def test_a_record_is_readable_json(store: Store) -> None:
    store.write_record(record(0, done=True))
    trial_id = record(0).id
    assert store.record_location(trial_id) == f"{store.location}/records/{trial_id}.json"
    content = store.files.read(f"records/{trial_id}.json")
    assert content is not None
    assert json.loads(content)["result"]["target_accuracy"] == 1 / 3
    assert content.endswith(b"}\n")


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


def test_a_failure_never_takes_the_place_of_an_answer(store: Store) -> None:
    store.write_record(record(0, done=True))
    store.write_record(record(0))
    assert store.status(record(0).id) == "done"
    store.write_record(record(1, done=True, recipe_version=RECIPE_VERSION - 1))
    store.write_record(record(1))
    assert store.status(record(1).id) == "failed"


@pytest.mark.parametrize("failed_before", [False, True])
def test_a_failure_that_is_written_while_the_trial_ends_loses_nothing(
    store: Store, failed_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, write = Store(store.location), store.files.write

    def late(name: str, content: bytes) -> None:
        other.write_record(record(0, done=True))  # after the look of the driver that was paused
        write(name, content)

    if failed_before:
        store.write_record(record(0, padding="before"))
    monkeypatch.setattr(store.files, "write", late)
    store.write_record(record(0))
    for found in (store.read_record(record(0).id), *store.records(), *store.records([record(0).id])):
        assert found == record(0, done=True)
    assert store.statuses() == {record(0).id: "done"}


def test_a_trial_that_ends_while_its_records_are_read_is_not_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_record(record(0))
    other, read, names = Store(store.location), store.files.read, store.files.names

    def listed_before(folder: str) -> list[str]:
        found = names(folder)
        other.write_record(record(0, done=True))
        return found

    def read_before(name: str) -> bytes | None:
        found = read(name)
        other.write_record(record(0, done=True))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store.files, "names", listed_before)
        assert list(store.records()) == [record(0, done=True)]
    other.files.delete(f"records/{record(0).id}.json")
    other.write_record(record(0))
    with monkeypatch.context() as patch:
        patch.setattr(store.files, "read", read_before)
        assert store.read_record(record(0).id) == record(0, done=True)


def test_the_last_failure_of_a_trial_is_told_until_it_is_done(store: Store) -> None:
    trial_id, name = record(0).id, f"records/{record(0).id}.json"
    store.files.write(name, seal(record(0, padding="by 0.1.0").to_json(), RECORD))  # which knew no other name
    assert store.status(trial_id) == "failed"
    for padding in ("first", "second"):
        store.write_record(record(0, padding=padding))
        for found in (store.read_record(trial_id), *store.records()):
            assert found == record(0, padding=padding)
    assert store.record_ids() == [trial_id]
    store.write_record(record(0, done=True))
    for found in (store.read_record(trial_id), *store.records()):
        assert found == record(0, done=True)


def test_a_done_record_under_the_name_of_a_failure_is_named(store: Store) -> None:
    store.write_record(record(0, done=True))
    content = store.files.read(f"records/{record(0).id}.json")
    assert content is not None
    store.files.write(f"records/{record(0).id}.failed.json", content)
    wrong = store.record_location(record(0).id, "failed")
    with pytest.raises(StoreError, match=f"^{wrong}: not a readable record .it is the done record of cell"):
        list(store.records())


def test_statuses_in_one_pass(store: Store) -> None:
    assert store.record_ids() == []
    assert store.statuses() == {}
    for one in (record(0, done=True), record(1), record(2, done=True, recipe_version=RECIPE_VERSION - 1)):
        store.write_record(one)
    expected = {record(0).id: "done", record(1).id: "failed", record(2).id: "missing"}
    assert store.statuses() == expected
    assert store.record_ids() == sorted(expected)
    assert {trial_id: store.status(trial_id) for trial_id in expected} == expected
    assert store.status("0" * 64) == "missing"


def test_where_nothing_is_there_a_listing_says_so(s3: S3Server) -> None:
    store = Store(s3.new_url(), create=True)
    before = s3.requests
    assert store.record_ids() == []
    assert store.statuses() == {}
    assert s3.requests <= before + 4  # two listings; s3fs also asks about an empty folder's parent


def test_a_model_is_part_of_the_answer_where_it_is_asked_for(store: Store) -> None:
    trial_id = record(0).id
    store.write_record(record(0, done=True))
    assert store.answers(trial_id)
    assert not store.answers(trial_id, beside=["model"])
    assert store.model_location(trial_id) == f"{store.location}/models/{trial_id}.safetensors"
    store.write_model(trial_id, b"model")
    assert store.has_beside(trial_id, ["model"])
    assert store.answers(trial_id, beside=["model"])
    assert store.files.read(f"models/{trial_id}.safetensors") == b"model"


def test_done_drops_the_checkpoint_and_failed_keeps_it(store: Store) -> None:
    trial_id = record(0).id
    assert store.checkpoint_location(trial_id) == f"{store.location}/checkpoints/{trial_id}.pt"
    assert store.read_checkpoint(trial_id) is None
    store.write_checkpoint(trial_id, b"state")
    store.write_model(trial_id, b"model")
    store.write_record(record(0))
    assert store.read_checkpoint(trial_id) == b"state"
    assert store.checkpoint_keys() == [trial_id]
    store.write_record(record(0, done=True))
    assert store.checkpoint_keys() == []
    assert store.read_checkpoint(trial_id) is None
    assert store.has_beside(trial_id, ["model"])


def test_what_a_killed_writer_left_of_a_checkpoint_goes_with_it(local_store: Store) -> None:
    folder = Path(local_store.location) / "checkpoints"
    (folder / f".{record(0).id}.pt.x1y2z3w4").write_bytes(b"half")
    (folder / ".other.pt.x1y2z3w4").write_bytes(b"another's")
    local_store.write_record(record(0, done=True))
    assert [path.name for path in folder.iterdir()] == [".other.pt.x1y2z3w4"]


def test_what_killed_writers_left_goes_where_no_other_driver_is_alive(local_store: Store) -> None:
    folder = Path(local_store.location)
    (folder / "tuning/search").mkdir(parents=True)
    left = [folder / name / f".{record(0).id}.json.0123abcd" for name in sorted(os.listdir(folder)) if name != "tuning"]
    left.append(folder / "tuning/search/.chosen.json.x1y2z3w4")
    left.append(folder / ".index.0123abcd")
    assert len(left) == 11
    for path in left:
        path.write_bytes(b"half")
    with Driver(local_store.files), Driver(local_store.files) as driver:
        remove_leftovers(local_store, driver, frozenset())
        assert all(path.exists() for path in left)
    with Driver(local_store.files) as driver:
        remove_leftovers(local_store, driver, frozenset())
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("when", ["before the announcements are read", "after they are read"])
def test_what_a_driver_makes_that_has_just_begun_stays(
    store: Store, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ender may have read the announcements some seconds ago; here no time passes."""
    with Driver(store.files, clock=lambda: 0.0) as ender, ExitStack() as stack:

        def begin() -> str:
            folder = f".tune_{stack.enter_context(Driver(store.files)).id}"
            store.files.make_folders([folder])
            store.files.write(f"{folder}/experiment.json", b"")
            return f"{folder}/experiment.json"

        assert ender.others() == []
        if when.startswith("before"):
            made = [begin()]
        else:
            made, others = [], ender.others

            def before_it_begins(**options: bool) -> list[Announcement]:
                found = others(**options)
                made.append(begin())
                return found

            monkeypatch.setattr(ender, "others", before_it_begins)
        remove_leftovers(store, ender, frozenset())
        assert [store.files.exists(name) for name in made] == [True]


def test_failures_of_trials_that_are_done_go_at_the_end(local_store: Store) -> None:
    overcome, failed = record(0), record(1)
    for each in (overcome, failed, record(0, done=True)):
        local_store.write_record(each)
    names = local_store.files.names("records")
    assert names == sorted([f"{overcome.id}.failed.json", f"{overcome.id}.json", f"{failed.id}.failed.json"])
    with Driver(local_store.files) as driver:
        remove_leftovers(local_store, driver, frozenset())
    assert local_store.files.names("records") == sorted([f"{overcome.id}.json", f"{failed.id}.failed.json"])
    assert local_store.statuses() == {overcome.id: "done", failed.id: "failed"}


# A driver that dies in its `with` block: it neither resigns nor ends.
_DIES = """
import os, signal, sys
from scale_ray.store import Store
from scale_ray.store.leases import Driver
with Driver(Store(sys.argv[1]).files):
    os.makedirs(os.path.join(sys.argv[1], ".tune_x"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_driver_with_nothing_to_do_removes_what_one_left_that_was_just_killed(local_store: Store) -> None:
    """Its look removes the proof of the death, after which the dead one must not count as alive for some seconds."""
    subprocess.run([sys.executable, "-c", _DIES, local_store.location], check=False)
    assert len(local_store.files.names("drivers")) == 1
    with Driver(local_store.files) as driver:
        remove_leftovers(local_store, driver, frozenset())
    assert ".tune_x" not in local_store.files.folders("")


def test_stages(store: Store) -> None:
    assert store.stage_keys() == []
    assert store.read_stage("a" * 64) is None
    store.write_stage("b" * 64, b"2")
    store.write_stage("a" * 64, b"1")
    assert store.stage_keys() == ["a" * 64, "b" * 64]
    assert store.stage_location("a" * 64) == f"{store.location}/stages/{'a' * 64}.pt"
    assert store.read_stage("a" * 64) == b"1"
    assert store.has_stage("a" * 64)
    store.delete_stage("a" * 64)
    store.delete_stage("a" * 64)
    assert not store.has_stage("a" * 64)
    assert store.stage_keys() == ["b" * 64]


# What cannot be read


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema_version": 1}', b'{"schema_version": 1, "id": 5}'],
)
def test_an_unreadable_record_is_named_and_never_skipped(store: Store, content: bytes) -> None:
    store.write_record(record(0, done=True))
    store.files.write(f"records/{'f' * 64}.json", content)
    words = rf"^{store.record_location('f' * 64)}: not a readable record \(.+\): move it away and run the study again$"
    with pytest.raises(StoreError, match=words):
        store.read_record("f" * 64)
    with pytest.raises(StoreError, match=words):
        list(store.records())


def test_a_record_that_is_a_folder_is_named(local_store: Store) -> None:
    Path(local_store.record_location("f" * 64)).mkdir()
    with pytest.raises(StoreError, match=r"ffff.json: cannot be read \(Is a directory\): check the folder"):
        local_store.read_record("f" * 64)
    with pytest.raises(StoreError, match=r"ffff.json: cannot be read"):
        list(local_store.records())


def test_a_truncated_record_is_named(store: Store) -> None:
    store.write_record(record(0, done=True))
    name = f"records/{record(0).id}.json"
    store.files.write(name, (store.files.read(name) or b"")[:-20])
    with pytest.raises(StoreError, match=f"{store.location}/{name}: not a readable record"):
        store.read_record(record(0).id)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_schema_is_named(store: Store, version: object) -> None:
    values = json.loads(record(0).to_json()) | {"schema_version": version, "of_a_later_version": 1}
    store.files.write(f"records/{record(0).id}.json", json.dumps(values).encode())
    with pytest.raises(StoreError, match=f"record schema {version}, this scale-ray reads 1: use the version"):
        store.read_record(record(0).id)


# Study plans


def test_plans_read_back_ordered_by_name(store: Store) -> None:
    cell = Cell(id=record(0).id, config=record(0).config)
    plans = [StudyPlan(name=name, created="2026-03-01T00:00:00+00:00", cells=[cell]) for name in ("b", "a")]
    for plan in plans:
        store.write_plan(plan)
    assert store.plans() == [plans[1], plans[0]]


def test_a_plan_keeps_its_command_and_need_not_have_one(store: Store) -> None:
    cell = Cell(id=record(0).id, config=record(0).config)
    plan = StudyPlan(name="a", created="2026-03-01T00:00:00+00:00", cells=[cell], command="scale-ray ablate --seeds 1")
    store.write_plan(plan)
    assert store.plans() == [plan]
    values = json.loads(store.files.read("studies/a.json") or b"")
    del values["command"]  # as in plans of earlier versions
    store.files.write("studies/a.json", json.dumps(values).encode())
    assert store.plans() == [plan.model_copy(update={"command": None})]


def test_an_unreadable_plan_is_named(store: Store) -> None:
    store.files.write("studies/s.json", b"{}")
    words = rf"^{store.location}/studies/s.json: not a study plan \(name: Field required\)"
    with pytest.raises(StoreError, match=words):
        store.plans()


# Where a store can be


def test_a_missing_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"store {tmp_path}/runs: no such folder: check the path"):
        Store(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_empty_prefix_is_no_store(s3: S3Server) -> None:
    url = s3.new_url()
    for missing in (url, "s3://no-such-bucket/runs"):
        with pytest.raises(StoreError, match=f"store {missing}: no such prefix: check the path, or run a study"):
            Store(missing)
    Store(url, create=True)
    assert Store(url).plans() == []


def test_opening_to_read_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = Store(tmp_path / "store")
    assert (list(store.records()), store.plans(), store.stage_keys(), store.checkpoint_keys()) == ([], [], [], [])
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_a_url_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: bool) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("hdfs://b/runs", Path("hdfs://b/runs")):
        with pytest.raises(StoreError, match="hdfs:// is not supported: give a folder, s3:// or gs://"):
            Store(url, create=create)
    assert list(tmp_path.iterdir()) == []


def test_a_store_pickles_as_its_location(store: Store) -> None:
    store.write_record(record(0, done=True))
    copy = pickle.loads(pickle.dumps(store))
    assert copy.location == store.location
    assert copy.read_record(record(0).id) == record(0, done=True)


def test_ray_keeps_its_own_state_in_the_store(store: Store) -> None:
    path, system = ray.cloudpickle.loads(ray.cloudpickle.dumps(store.arrow_storage(".tune_x/study")))
    if store.folder is not None:
        assert (path, system) == (f"{store.location}/.tune_x/study", None)
        return
    assert path == f"{store.location.removeprefix('s3://')}/.tune_x/study"
    system.create_dir(path)
    with system.open_output_stream(f"{path}/state.json") as stream:
        stream.write(b"state")
    assert store.files.read(".tune_x/study/state.json") == b"state"
    (found,) = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    assert found.base_name == "state.json"


def test_a_relative_path_does_not_move_with_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("runs", create=True)
    monkeypatch.chdir("/")
    store.write_record(record(0))
    assert (tmp_path / "runs" / "records" / f"{record(0).id}.failed.json").exists()


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
def test_a_store_without_write_permission_is_refused(local_store: Store) -> None:
    records = Path(local_store.location) / "records"
    records.chmod(0o500)
    try:
        with pytest.raises(StoreError, match=r"cannot be written to \(Permission denied\)"):
            Store(local_store.location, create=True)
        with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\)"):
            local_store.write_record(record(0))
    finally:
        records.chmod(0o700)


def test_a_store_whose_folder_vanishes_is_named(local_store: Store) -> None:
    (Path(local_store.location) / "records").rmdir()
    with pytest.raises(
        StoreError, match=f"{record(0).id}.failed.json: cannot be written .No such file or directory.: check"
    ):
        local_store.write_record(record(0))


# Whole files


@SLOW_ON_S3
def test_records_are_whole_after_sigkill(location: str) -> None:
    for delay in (0.0, 0.02, 0.05, 0.1):
        with writer(location, count=10**9, size=8_000_000) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            time.sleep(delay)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        found = list(Store(location).records())
        assert found
        assert all(one.failure is not None and len(one.failure.traceback) == 8_000_000 for one in found)


def test_concurrent_writers_leave_one_or_the_other(location: str) -> None:
    options = {"count": 40, "size": 500_000}
    paddings = {letter * 500_000 for letter in "ab"}
    store = Store(location, create=True)
    seen = 0
    with writer(location, **options, padding="a") as one_writer, writer(location, **options, padding="b") as other:
        while one_writer.poll() is None or other.poll() is None:
            for one in store.records():
                assert one.failure is not None
                assert one.failure.traceback in paddings
                seen += 1
    assert (one_writer.returncode, other.returncode) == (0, 0)
    assert seen
    assert len(store.record_ids()) == 3
    if store.folder is not None:
        assert len(list((store.folder / "records").iterdir())) == 3  # no unfinished file is left over
