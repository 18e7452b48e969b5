"""Files on each kind of file system: atomic writes, exclusive creation, retries."""

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE

import pytest
from s3_server import S3Server

from scale_ray.store import files as files_module
from scale_ray.store.files import Files, StoreError, replacing

# Says that it is ready, waits for a line, and prints whether it could create the file.
CREATOR = """
import sys
from scale_ray.store.files import Files
files = Files({location!r})
files.exists("x")
print("ready", flush=True)
sys.stdin.readline()
print(files.create("folder/one", sys.argv[1].encode() * 1000))
"""

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


def test_creation_is_exclusive(files: Files) -> None:
    assert files.create("folder/a", b"first")
    assert not files.create("folder/a", b"second")
    assert files.read("folder/a") == b"first"
    assert files.create("folder/a", b"first")  # its own content, as after a lost reply
    files.delete("folder/a")
    assert files.create("folder/a", b"second")
    assert files.names("folder") == ["a"]


def test_deletion_of_a_certain_content(files: Files) -> None:
    files.write("folder/a", b"theirs")
    files.delete("folder/a", holding=b"ours")
    assert files.read("folder/a") == b"theirs"
    files.delete("folder/a", holding=b"theirs")
    files.delete("folder/a", holding=b"theirs")
    assert not files.exists("folder/a")


def test_files_pickle_as_their_location(files: Files) -> None:
    files.write("folder/a", b"1")
    copy = pickle.loads(pickle.dumps(files))
    assert (copy.location, copy.folder) == (files.location, files.folder)
    assert copy.read("folder/a") == b"1"


def test_of_eight_threads_one_creates(files: Files) -> None:
    for attempt in range(5):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda number: files.create(f"folder/{attempt}", b"%d" % number), range(8)))  # noqa: B023
        assert won.count(True) == 1
        assert files.read(f"folder/{attempt}") == b"%d" % won.index(True)


def test_of_eight_processes_one_creates(files: Files) -> None:
    code = CREATOR.format(location=files.location)
    processes = [
        subprocess.Popen([sys.executable, "-c", code, letter], stdin=PIPE, stdout=PIPE, text=True)
        for letter in "abcdefgh"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0].strip() for process in processes]
    assert sorted(answers) == ["False"] * 7 + ["True"]
    assert files.read("folder/one") == "abcdefgh"[answers.index("True")].encode() * 1000
    assert files.names("folder") == ["one"]


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


def test_memory_is_a_file_system_too() -> None:
    files = Files("memory://anywhere")
    assert files.create("a/b", b"1")
    assert not files.create("a/b", b"2")
    assert files.names("a") == ["b"]
    files.delete("a/b")
    files.delete("a/b")
    assert files.names("a") == []


@pytest.mark.parametrize("url", ["hdfs://b/x", "http://a/b", Path("hdfs://b/x")])
def test_a_scheme_without_atomic_writes_is_refused(url: str | Path) -> None:
    with pytest.raises(StoreError, match=r"\w+:// is not supported: give a folder, s3:// or gs://"):
        Files(url)


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(StoreError, match="names no bucket: write s3://BUCKET/PREFIX"):
        Files("s3://")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StoreError, match=r"install gcsfs to access Google Storage: pip install 'scale-ray\[gcs\]'"):
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
    for write in (files.write, files.create):
        with pytest.raises(StoreError, match=f"{tmp_path}/no/x: cannot be written .No such file or directory.: check"):
            write("no/x", b"")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=f"{tmp_path}/file: cannot be listed .Not a directory."):
        files.names("file")


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    code = f"""
import resource
from scale_ray.store.files import Files, StoreError
files = Files({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (files.write, files.create):
    try:
        write("file", bytes(100_000))
    except StoreError as error:
        print(error)
"""
    (tmp_path / "file").write_text("old")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.count("cannot be written (File too large): check the folder, its permissions and its free spac") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


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


def test_others_may_read(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write("a", b"")
    files.create("b", b"")
    assert [os.stat(tmp_path / name).st_mode & 0o777 for name in "ab"] == [0o644, 0o644]


def test_purge_removes_the_temporary_files_of_killed_writers(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for name in ("a.pt", ".a.pt.x1y2", ".b.pt.x1y2", "b.pt"):
        (tmp_path / name).write_text("")
    files.purge("a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.pt.x1y2", "b.pt"]


# Retries


@pytest.mark.slow
def test_an_outage_costs_time_and_nothing_else(s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    files = Files(s3.new_url(), create=True)
    files.write("folder/a", b"before")
    for ask, answer in (
        (lambda: files.read("folder/a"), b"before"),
        (lambda: files.write("folder/b", b"during"), None),
        (lambda: files.create("folder/c", b"during"), True),
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


def test_a_lost_answer_does_not_lose_a_creation(s3: S3Server) -> None:
    files = Files(s3.new_url(), create=True)
    s3.lose_answers = 1
    assert files.create("x", b"ours")
    s3.lose_answers = 1
    assert not files.create("x", b"theirs")
    assert files.read("x") == b"ours"


def test_a_server_that_does_not_name_the_condition(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "terse", True)
    files = Files(s3.new_url(), create=True)
    assert files.create("x", b"ours")
    assert not files.create("x", b"theirs")


def test_a_server_without_conditional_writes_is_refused(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "unconditional", True)
    with pytest.raises(StoreError, match=r"cannot be written to \(it ignores the condition of a conditional PUT, so"):
        Files(s3.new_url(), create=True)


def test_one_request_a_call(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second GET of the same file could return another content, and every request takes time."""
    files = Files(s3.new_url(), create=True)
    for call in (
        lambda: files.write("folder/a", b"1"),
        lambda: files.create("folder/b", b"1"),
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
