"""The store of a run, watched from outside: which records were written how often, and what is left at the end."""

import json
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import s3_server
import s3fs

from scale_ray.store import Store, StoreError

_DONE = re.compile(rb'"status":\s*"done"')
_RECORD = re.compile(r".*/records/([0-9a-f]{64})\.json")

# Where each kind of process writes.
_WRITES = {
    "driver": ("leases", "drivers", "studies"),
    "trial": ("records", "checkpoints", "stages"),
    "worker": ("records", "stages"),
}


class Watched(ABC):
    """Counts how often each cell's record was written as done.

    Attributes:
        location: of the store.
        writes: cell id -> how often its record was written as `done`.
    """

    def __init__(self, location: str):
        self.location = location
        self.writes: Counter[str] = Counter()

    @property
    def done(self) -> int:
        """Cells that have a done record."""
        return len(self.writes)

    @property
    def twice(self) -> list[str]:
        """Cells whose done record was written again."""
        return sorted(cell for cell, times in self.writes.items() if times > 1)

    @abstractmethod
    def names(self) -> list[str]:
        """Every file in the store, below its location."""

    def unfinished_uploads(self) -> int:
        """Uploads of several parts that nobody ended; a bucket's owner pays for the parts."""
        return 0

    def is_written_by(self, kind: str) -> bool:
        """Whether a temporary file of such a process is there at this moment."""
        return True


class WatchedFolder(Watched):
    """Looks at the folder of the records every few milliseconds: a write gives the file another inode."""

    def __init__(self, folder: Path):
        super().__init__(str(folder))
        self._folder = folder
        self._seen: dict[str, tuple[int, int]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self._folder)) for path in self._folder.rglob("*") if path.is_file())

    def is_written_by(self, kind: str) -> bool:
        return any(
            entry.name.startswith(".") for name in _WRITES.get(kind, ()) for entry in _entries(self._folder / name)
        )

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self._look()

    def _look(self) -> None:
        for entry in _entries(self._folder / "records"):
            if not entry.name.endswith(".json") or entry.name.startswith("."):
                continue
            try:
                facts = entry.stat()
                written = (facts.st_ino, facts.st_mtime_ns)
                if self._seen.get(entry.name) != written:
                    done = _DONE.search(Path(entry.path).read_bytes())
                    self._seen[entry.name] = written
                    if done:
                        self.writes[entry.name.removesuffix(".json")] += 1
            except FileNotFoundError:
                continue


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except FileNotFoundError:
        return []


class WatchedBucket(Watched):
    """Looks at the requests that the server answers."""

    def __init__(self, server: "LoggingServer", location: str):
        super().__init__(location)
        server.writes = self.writes
        self._server = server

    def names(self) -> list[str]:
        prefix = self.location.removeprefix("s3://")
        return sorted(name.removeprefix(f"{prefix}/") for name in _system().find(prefix))

    def unfinished_uploads(self) -> int:
        return len(_system().call_s3("list_multipart_uploads", Bucket=self._server.bucket).get("Uploads", []))


def _system() -> Any:
    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


class LoggingServer(s3_server.S3Server):
    """An S3 server that counts the done records which it stores."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: Counter[str] = Counter()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        record = _RECORD.fullmatch(environ["PATH_INFO"])
        if environ["REQUEST_METHOD"] != "PUT" or record is None:
            return super()._answer(environ, start_response)
        content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(content)

        def noting(status: str, *more: Any, **options: Any) -> Any:
            if status.startswith("200") and _DONE.search(content):
                self.writes[record[1]] += 1
            return start_response(status, *more, **options)

        return super()._answer(environ, noting)


@contextmanager
def bucket() -> Iterator[tuple[WatchedBucket, LoggingServer]]:
    """A store on an S3 server in this process; the environment leads to it."""
    server = LoggingServer()
    before = dict(os.environ)
    os.environ.update(server.environment())
    try:
        _system().makedirs(server.bucket, exist_ok=True)
        yield WatchedBucket(server, server.new_url()), server
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


def left_in(names: Iterable[str]) -> dict[str, list[str]]:
    """What a finished study has no more use for, by kind."""
    left: dict[str, list[str]] = {"temporary": [], "leases": [], "announcements": [], "states": []}
    for name in names:
        top, _, rest = name.partition("/")
        if top == "leases" and not rest.startswith("."):
            left["leases"].append(name)
        elif top == "drivers" and not rest.startswith("."):
            left["announcements"].append(name)
        elif top in ("checkpoints", "stages") and not rest.startswith("."):
            left["states"].append(name)
        elif name != ".keep" and any(part.startswith(".") or ".tmp" in part for part in name.split("/")):
            left["temporary"].append(name)
    return left


def results(location: str) -> dict[str, str]:
    """Cell id -> what two runs of a cell must have in common, of the cells whose records are done and readable."""
    store, found = Store(location), {}
    for cell in store.record_ids():
        try:
            record = store.read_record(cell)
        except StoreError as error:
            print(f"  {error}", flush=True)
            continue
        if record is not None and record.status == "done":
            found[cell] = json.dumps(record.model_dump(mode="json", exclude={"provenance"}), sort_keys=True)
    return found


def wait_for(condition: Callable[[], bool], seconds: float, pause: float) -> bool:
    """Wait until the condition holds; return whether it did within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        if pause:
            time.sleep(pause)
    return True
