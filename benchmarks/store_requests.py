"""Requests of drivers to a store on S3: for a look at other drivers, for a finished cell, for a start after a kill.

    python benchmarks/store_requests.py [--before FILE.json]

The S3 server of the tests counts them; nothing trains and no Ray runs. A driver's heartbeats are not counted: they
depend on time alone. `--before` names the result of another version, whose requests become a column.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import leave

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from s3_server import S3Server, s3_server

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.records import Provenance, Record, Result
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.store.leases import Driver
from scale_ray.sweep import queue as queue_module
from scale_ray.sweep.queue import StageQueue
from scale_ray.training.stages import alone

CELLS, SLOTS = 48, 8
FACTS = Provenance(
    started="", wall_seconds=1, host="", device="", threads=1, git_commit=None, git_dirty=None, versions={}
)
RESULT = Result(target_accuracy=1, teacher_accuracy=None, source_val_accuracy=1, steps=1, curve=[], skipped={})

# A driver that leases many cells and is killed.
KILLED = """
import os
from scale_ray.store.files import Files
from scale_ray.store.leases import Driver
with Driver(Files({location!r}), beat=3600, expiry=86400) as driver:
    assert all(driver.acquire(f"{{number:064x}}") for number in range({leases}))
    os._exit(1)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, help="results/store_requests.json of another version")
    before = parser.parse_args().before
    earlier = {row["what"]: row["requests"] for row in json.loads(before.read_text())["rows"]} if before else {}
    with s3_server() as s3:
        counter = Requests(s3)
        rows = [_look(counter, elsewhere) for elsewhere in (0, 50, 200)]
        rows += [_cells(counter, 1), _cells(counter, 2)]
        rows += [_after_kill(counter, leases) for leases in (0, 200)]
    if earlier:
        rows = [{"what": row["what"], "before": earlier[row["what"]], **row} for row in rows]
    notes = [
        "a look: at stages that another driver works on, while nothing changes",
        f"a finished cell: lease, record and release of {CELLS} cells, {SLOTS} at once; the second driver's share of "
        "looking is in it",
        "a start: of a driver, after another one of this machine was killed",
    ]
    print(leave("store_requests", "Requests to a store on S3", rows, notes))


class Requests:
    """Counts what the server is asked, by kind and folder."""

    def __init__(self, server: S3Server):
        self.server, self.kinds = server, Counter[str]()
        answer = server._server.app

        def counting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            self.kinds[_kind(environ)] += 1
            return answer(environ, start_response)

        server._server.app = counting

    def during(self, work: Callable[[], object]) -> Counter[str]:
        """What is asked during the work, and after it by its threads."""
        before = self.kinds.copy()
        work()
        seen = None
        while seen != self.kinds:
            seen = self.kinds.copy()
            time.sleep(0.5)
        return seen - before


def _kind(environ: dict[str, Any]) -> str:
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    path = environ["PATH_INFO"]
    if listed := re.search(r"prefix=[^&]*?%2F([a-z]+)(%2F)?(&|$)", query):
        return f"list {listed[1]}"
    folder = path.rpartition("/")[0].rpartition("/")[2]
    return "delete many" if method == "POST" else f"{method.lower()} {folder}"


def _row(what: str, asked: Counter[str], per: int = 1) -> dict[str, Any]:
    kinds = ", ".join(f"{kind} {_short(number / per)}" for kind, number in sorted(asked.items()))
    row = {"what": what, "requests": _short(asked.total() / per), "which": kinds or "none"}
    print(row, flush=True)
    return row


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _stages(count: int) -> list[Stage]:
    return [
        alone(Cell(id=f"{number:064x}", config=TrialConfig(), inputs={"source": "a", "target": "b"}))
        for number in range(count)
    ]


def _driver(store: Store) -> Driver:
    return Driver(store.files, beat=3600, expiry=24 * 3600)  # no heartbeat during a measurement


def _store(counter: Requests) -> Store:
    return Store(counter.server.new_url(), create=True)


def _finish(store: Store, stage: Stage) -> None:
    cell = stage.ends[0]
    store.write_record(
        Record(id=cell.id, status="done", config=cell.config, inputs={}, result=RESULT, provenance=FACTS)
    )


def _look(counter: Requests, elsewhere: int) -> dict[str, Any]:
    store, stages = _store(counter), _stages(elsewhere)
    with _driver(store) as other, _driver(store) as driver:
        theirs = StageQueue(stages, store, other)
        for _ in stages:
            assert theirs.next()
        queue = StageQueue(stages, store, driver)
        counter.during(queue.next)
        time.sleep(queue_module._LOOK_AGAIN)
        driver._others._refreshed = float("-inf")  # some seconds have passed
        asked = counter.during(queue.next)
        assert queue.elsewhere == elsewhere
    return _row(f"a look at {elsewhere} stages held elsewhere", asked)


def _cells(counter: Requests, drivers: int) -> dict[str, Any]:
    store, stages = _store(counter), _stages(CELLS)

    def work_off() -> None:
        queues = [StageQueue(stages, store, driver, failed_before=()) for driver in started]
        running: list[deque[Stage]] = [deque() for _ in queues]
        while not all(queue.over for queue in queues):
            for queue, own in zip(queues, running, strict=True):
                stage = queue.next() if len(own) < SLOTS else None
                if stage is not None:
                    own.append(stage)
                elif own:
                    _finish(store, own[0])
                    queue.finished(own.popleft().key)
            time.sleep(0.01)

    started = [_driver(store) for _ in range(drivers)]
    for driver in started:
        driver.__enter__()
    for driver in started:
        driver._others.refresh()  # as with each heartbeat
    asked = counter.during(work_off)
    for driver in started:
        driver.__exit__(None, None, None)
    assert len(store.record_ids()) == CELLS
    return _row(f"a finished cell, {drivers} driver{'s' * (drivers > 1)}", asked, CELLS)


def _after_kill(counter: Requests, leases: int) -> dict[str, Any]:
    store = _store(counter)
    subprocess.run([sys.executable, "-c", KILLED.format(location=store.location, leases=leases)], check=False)
    driver = _driver(store)
    asked = counter.during(driver.__enter__)
    assert store.files.names("leases") == []
    driver.__exit__(None, None, None)
    return _row(f"a start after a kill with {leases} leases", asked)


if __name__ == "__main__":
    main()
