"""Files on each kind of file system: atomic writes, exclusive creation, retries."""

import errno
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import S3Server

from scale_ray.store import Store
from scale_ray.store import files as files_module
from scale_ray.store.files import Files, StoreError
from scale_ray.store.filesystems import checked
from scale_ray.store.leases import Driver

REWRITER = """
from scale_ray.store.files import Files
files = Files({location!r})
for number in range({count}):
    files.write("folder/one", (b"a", b"b")[number % 2] * {size})
"""


@pytest.fixture
def files(location: str) -> Files:
    found = Files(location, create=True)
    found.make_folders(["folder"])
    return found


# What all file systems have in common


def test_what_is_written_reads_back(files: Files) -> None:
    for content in (b"first", b"", bytes(range(256)) * 1000):
        files.write("folder/a", content)
        assert files.read("folder/a") == content
        assert files.exists("folder/a")


def test_what_is_not_there(files: Files) -> None:
    assert files.read("folder/a") is None
    assert not files.exists("folder/a")
    assert files.names("nowhere") == []
    files.delete("folder/a")


def test_names_are_sorted_fresh_and_not_hidden(files: Files) -> None:
    assert files.names("folder") == []
    for name in ("b.json", "a.json", ".hidden", "[x]*?.json"):
        files.write(f"folder/{name}", b"")
    assert files.names("folder") == ["[x]*?.json", "a.json", "b.json"]
    Files(files.location).delete("folder/a.json")
    assert files.names("folder") == ["[x]*?.json", "b.json"]


def test_many_are_read_in_order_and_missing_ones_left_out(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "_READ_BATCH", 4)
    names = [f"folder/{number:02}" for number in reversed(range(10))]
    for name in names:
        files.write(name, name.encode())
    files.delete(names[5])
    assert list(files.read_many(names)) == [(name, name.encode()) for name in names if name != names[5]]


def test_files_pickle_as_their_location(files: Files) -> None:
    files.write("folder/a", b"1")
    copy = pickle.loads(pickle.dumps(files))
    assert (copy.location, copy.folder) == (files.location, files.folder)
    assert copy.read("folder/a") == b"1"


def test_a_reader_beside_a_writer_sees_whole_contents(files: Files) -> None:
    size = 3_000_000
    files.write("folder/one", b"b" * size)
    code = REWRITER.format(location=files.location, count=40, size=size)
    seen = set()
    with subprocess.Popen([sys.executable, "-c", code]) as writer:
        while writer.poll() is None:
            content = files.read("folder/one")
            assert content in (b"a" * size, b"b" * size)
            seen.add(content[:1])
            ((_, content),) = files.read_many(["folder/one"])
            assert content in (b"a" * size, b"b" * size)
    assert writer.returncode == 0
    assert seen == {b"a", b"b"}


# Locations


def test_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Files("runs").location == str(tmp_path / "runs")
    assert Files("~/runs").folder == tmp_path / "home" / "runs"
    assert Files(tmp_path / "10:30").folder == tmp_path / "10:30"
    assert Files(f"file://{tmp_path}/runs").folder == tmp_path / "runs"
    for url in ("s3://bucket/a/b", "s3://bucket/a/b/", Path("s3://bucket/a/b")):  # pathlib.Path drops a slash
        assert Files(url).location == "s3://bucket/a/b"
        assert Files(url).folder is None
    assert Files("s3://bucket/a").locate("records/x.json") == "s3://bucket/a/records/x.json"
    assert list(tmp_path.iterdir()) == []  # opening creates nothing


@pytest.mark.parametrize("url", ["hdfs://b/x", "http://a/b", "memory://a/b", Path("hdfs://b/x")])
def test_a_scheme_without_atomic_writes_is_refused(url: str | Path) -> None:
    with pytest.raises(StoreError, match=r"\w+:// is not supported: give a folder, s3:// or gs://"):
        Files(url)


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(StoreError, match="names no bucket: write s3://BUCKET/PREFIX"):
        Files("s3://")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StoreError, match=r"install gcsfs to access Google Storage: pip install .*\[gcs\]"):
        Files("gs://bucket/runs")


# What a file system refuses


def test_a_missing_bucket_is_named_at_once(s3: S3Server) -> None:
    before = s3.requests
    with pytest.raises(StoreError, match=r"store s3://other/a: cannot be written to \(The specified bucket does not"):
        Files("s3://other/a", create=True)
    assert s3.requests == before + 1
    with pytest.raises(StoreError, match=r"s3://other/a/x: cannot be written .+: check the address, the credentials"):
        Files("s3://other/a").write("x", b"")
    assert Files("s3://other/a").read("x") is None


def test_missing_credentials_are_named_at_once(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreError, match=r"cannot be written to \(Unable to locate credentials\): check the address"):
        Files("s3://bucket/a", create=True)


def test_a_folder_that_refuses_is_named(tmp_path: Path) -> None:
    files = Files(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=f"{tmp_path}/folder: cannot be read .Is a directory.: check the folder"):
        files.read("folder")
    with pytest.raises(StoreError, match=f"{tmp_path}/no/x: cannot be written .No such file or directory.: check"):
        files.write("no/x", b"")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=f"{tmp_path}/file: cannot be listed .Not a directory."):
        files.names("file")


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    code = f"""
import resource
from scale_ray.store.files import Files, StoreError
files = Files({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write("file", bytes(100_000))
except StoreError as error:
    print(error)
"""
    (tmp_path / "file").write_text("old")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "cannot be written (File too large): check the folder, its permissions and its free space" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_files_and_folders_have_the_rights_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    code = """
import os, sys
from pathlib import Path
from scale_ray.store.files import Files, replace_file
os.umask(int(sys.argv[2]))
files = Files(sys.argv[1] + "/new/store", create=True)
files.make_folders(["folder"])
files.write("a", b"")
files.write("b", b"")
replace_file(Path(sys.argv[1]) / "c", b"")
"""
    subprocess.run([sys.executable, "-c", code, tmp_path, str(umask)], check=True)
    rights = {
        name: (tmp_path / name).stat().st_mode & 0o777 for name in ("new", "new/store/folder", "new/store/a", "c")
    }
    assert rights == {"new": 0o777 & ~umask, "new/store/folder": 0o777 & ~umask} | dict.fromkeys(
        ("new/store/a", "c"), 0o666 & ~umask
    )
    assert (tmp_path / "new/store/b").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_file_system_that_changes_no_rights_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # as CIFS, vfat and FUSE answer

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse)
    files = Files(tmp_path, create=True)
    files.write("a", b"1")
    files.write("b", b"2")
    assert (files.read("a"), files.read("b")) == (b"1", b"2")


def test_a_file_system_without_hard_links_holds_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # as vfat and many mounts by FUSE answer

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    with Driver(Store(tmp_path, create=True).files) as driver:
        assert driver.acquire("key")
        assert driver.holds("key")


@pytest.mark.parametrize("step", ["open", "write", "replace"])
def test_a_folder_that_takes_no_files_is_refused_before_anything_is_done(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, a quota, a file system that cannot rename: permissions do not show it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, {"open": "open", "write": "fsync", "replace": "replace"}[step], refuse)
    with pytest.raises(StoreError, match=f"^store {tmp_path}: cannot be written to .No space left on device.: choose"):
        Files(tmp_path, create=True)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_the_proof_that_a_folder_can_be_written_to_leaves_nothing(tmp_path: Path) -> None:
    Files(tmp_path, create=True).make_folders(["a", "b/c"])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "b", "b/c"]


def test_purge_removes_the_temporary_files_of_killed_writers(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for name in ("a.pt", ".a.pt.x1y2z3w4", ".b.pt.x1y2z3w4", "b.pt"):
        (tmp_path / name).write_text("")
    files.purge("a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.pt.x1y2z3w4", "b.pt"]


def test_what_killed_writers_left_in_a_folder_goes_and_nothing_else(tmp_path: Path) -> None:
    kept = [".keep", ".a.json", "b.json", "a.x1y2z3w4", ".a.json.x1y2", "c"]
    for name in (*kept, ".a.json.x1y2z3w4", ".b.json.0123abcd", "folder"):
        (tmp_path / name).write_text("")
    (tmp_path / ".d.json.x1y2z3w4").mkdir()
    files = Files(tmp_path)
    files.remove_temporaries("")
    files.remove_temporaries("nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, ".d.json.x1y2z3w4", "folder"])


def test_a_killed_writer_leaves_what_is_removed(tmp_path: Path) -> None:
    files = Files(tmp_path, create=True)
    files.make_folders(["folder"])
    code = REWRITER.format(location=files.location, count=10**9, size=8_000_000)
    left = []
    for _ in range(20):
        files.delete("folder/one")
        with subprocess.Popen([sys.executable, "-c", code]) as writer:
            while files.read("folder/one") is None:
                time.sleep(0.01)
            time.sleep(0.02)
            writer.kill()
        left = [path.name for path in (tmp_path / "folder").iterdir() if path.name != "one"]
        if left:
            break
    assert left
    files.remove_temporaries("folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["one"]


def test_a_writer_that_is_taken_for_a_killed_one_writes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path, create=True)
    flush, taken = os.fsync, []

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        if not taken:
            taken.append(True)
            Files(tmp_path).remove_temporaries("")

    monkeypatch.setattr(os, "fsync", fsync)
    files.write("a", b"1")
    taken.clear()
    files.write("b", b"2")
    assert taken
    assert (files.read("a"), files.read("b")) == (b"1", b"2")


def test_a_folder_is_proved_beside_a_driver_that_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, cleaned = os.fsync, set()

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        for folder in (tmp_path, tmp_path / "a"):
            if folder not in cleaned and list(folder.glob(".*")):
                cleaned.add(folder)
                Files(folder).remove_temporaries("")

    monkeypatch.setattr(os, "fsync", fsync)
    Files(tmp_path, create=True).make_folders(["a"])
    assert cleaned == {tmp_path, tmp_path / "a"}
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


# Names that others have written


OUTSIDE = [
    "..",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "a/",
    "./a",
    "a/./b",
    "a\\..\\b",
    "a\0b",
    "a\nb",
    "\udce9",
    "x" * 256,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_could_lead_out_of_the_store_is_refused_by_every_method(files: Files, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: files.read(name),
        lambda: list(files.read_many(["folder/a", name])),
        lambda: files.write(name, b""),
        lambda: files.delete(name),
        lambda: files.purge(name),
        lambda: files.exists(name),
        lambda: files.names(name),
        lambda: files.folders(name),
        lambda: files.delete_folder(name),
        lambda: files.arrow(name),
    ]
    if files.folder is not None:  # an object store has neither folders nor temporary files
        calls += [lambda: files.make_folders([name]), lambda: files.remove_temporaries(name)]
    for call in calls:
        with pytest.raises(StoreError, match=r"is no name of a file in a store: remove what names it$") as raised:
            call()
        assert str(raised.value).isprintable()


@given(name=st.text(st.characters() | st.sampled_from("./\\~")))
@settings(max_examples=500, deadline=None)
def test_no_name_leads_out_of_the_store(name: str) -> None:
    try:
        path = os.path.normpath(f"/store/{checked('/store', name)}")
    except StoreError:
        return
    assert path == "/store" or path.startswith("/store/")
    assert not name or path == f"/store/{name}"  # and no two names are one file


def test_a_link_out_of_the_store_is_deleted_and_never_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "settings").mkdir(parents=True)
    (victim / "settings" / "precious").write_text("precious")
    files = Files(tmp_path / "store", create=True)
    files.make_folders(["runs/a"])
    root = tmp_path / "store"
    (root / "runs/a/inside").symlink_to(victim)
    (root / "runs/link").symlink_to(victim)
    (root / "outside").symlink_to(victim)
    assert files.folders("runs") == ["a", "link"]
    files.delete_folder("runs/a")
    files.delete_folder("runs/link")
    assert files.folders("runs") == []
    with pytest.raises(
        StoreError, match=f"store/outside/settings: not deleted, .+ leads out of the store, to {victim}"
    ):
        files.delete_folder("outside/settings")
    assert (victim / "settings" / "precious").read_text() == "precious"


def test_a_store_below_a_link_is_a_store_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    files = Files(tmp_path / "store", create=True)
    files.make_folders(["runs/a"])
    files.delete_folder("runs/a")
    assert files.folders("runs") == []


# Retries


@pytest.mark.slow
def test_an_outage_costs_time_and_nothing_else(s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    files = Files(s3.new_url(), create=True)
    files.write("folder/a", b"before")
    for ask, answer in (
        (lambda: files.read("folder/a"), b"before"),
        (lambda: files.write("folder/b", b"during"), None),
        (lambda: files.write("folder/c", b"during"), None),
        (lambda: dict(files.read_many(["folder/a", "folder/b"])), {"folder/a": b"before", "folder/b": b"during"}),
        (lambda: files.delete("folder/c"), None),
    ):
        s3.fail_for(1)
        began = time.monotonic()
        assert ask() == answer
        assert time.monotonic() - began >= 0.9
    assert files.names("folder") == ["a", "b"]
    assert "is unavailable (Please reduce your request rate.): retrying for up to 120 s" in caplog.text


def test_a_server_that_is_away_and_comes_back(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = S3Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    port = int(server.endpoint.rpartition(":")[2])
    files = Files(server.new_url(), create=True)
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(files.write, "x", b"content")
        time.sleep(1)
        assert not writing.done()
        server = S3Server(port)
        try:
            writing.result()
            assert files.read("x") == b"content"
        finally:
            server.stop()


def test_retries_end_with_an_error(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "RETRY_SECONDS", 0.2)
    files = Files(s3.new_url(), create=True)
    with s3.failing(), pytest.raises(StoreError, match=rf"^{files.location}/x: cannot be written \(Please reduce"):
        files.write("x", b"")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"/x: cannot be read \(Could not connect to the endpoint URL.+: check the"):
        Files("s3://bucket/a").read("x")


def test_an_error_shows_no_password_of_its_url(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from botocore.exceptions import EndpointConnectionError

    def refuse(*_: object, **__: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://me:correct-horse@minio:9000/bucket")

    files = Files("s3://bucket/a")
    monkeypatch.setattr(files_module, "RETRY_SECONDS", 0.2)
    for name in ("read", "write", "make_folders"):
        monkeypatch.setattr(files._filesystem, name, refuse)
    for call in (lambda: files.read("x"), lambda: files.write("x", b""), lambda: files.make_folders([""])):
        with pytest.raises(StoreError, match=r'endpoint URL: "https://me:\*\*\*@minio:9000/bucket"') as raised:
            call()
        assert "correct-horse" not in str(raised.value)
    assert "https://me:***@minio" in caplog.text
    assert "correct-horse" not in caplog.text


def test_one_request_a_call(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second GET of the same file could return another content, and every request takes time."""
    files = Files(s3.new_url(), create=True)
    for call in (
        lambda: files.write("folder/a", b"1"),
        lambda: files.write("folder/b", b"1"),
        lambda: files.read("folder/a"),
        lambda: files.exists("folder/a"),
        lambda: files.names("folder"),
        lambda: files.delete("folder/b"),
    ):
        before = s3.requests
        call()
        assert s3.requests == before + 1
    monkeypatch.setattr(files_module, "_READ_BATCH", 16)
    names = [f"folder/{number}" for number in range(40)]
    for name in names:
        files.write(name, b"1")
    before = s3.requests
    assert len(list(files.read_many(names))) == 40
    assert s3.requests == before + 40


def test_a_large_file_is_one_put_so_that_a_kill_leaves_no_parts(s3: S3Server) -> None:
    """A part of an unfinished upload is billed until somebody aborts the upload."""
    files = Files(s3.new_url(), create=True)
    content = bytes(110 * 2**20)  # s3fs would upload it in parts
    before = s3.requests
    files.write("large", content)
    assert s3.requests == before + 1
    path, system = files.arrow("streamed")
    assert system is not None
    before = s3.requests
    with system.open_output_stream(path) as stream:  # as Ray Train writes a checkpoint
        stream.write(content)
    assert s3.requests <= before + 2
    assert files.read("large") == files.read("streamed") == content


# Import cost


def test_opening_a_folder_imports_no_remote_file_system(tmp_path: Path) -> None:
    code = """
import sys
from scale_ray.store import Store
list(Store(sys.argv[1], create=True).records())
heavy = ("fsspec", "s3fs", "aiohttp", "tenacity", "pyarrow", "torch", "ray")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_folders_are_listed_and_removed_with_all_that_is_in_them(location: str) -> None:
    files = Files(location, create=True)
    files.make_folders(["runs/a/deep", "runs/b"])
    for name in ("runs/a/deep/one", "runs/a/two", "runs/b/three", "runs/four"):
        files.write(name, b"content")
    assert files.folders("runs") == ["a", "b"]
    files.delete_folder("runs/a")
    files.delete_folder("runs/a")
    assert files.folders("runs") == ["b"]
    assert files.read("runs/b/three") == files.read("runs/four") == b"content"
    assert files.read("runs/a/two") is None
    assert files.folders("nothing") == []
