"""The service under many viewers: times of pages and events, requests to the store, memory.

    python benchmarks/service.py [--cells 10000] [--viewers 1,50] [--seconds 60]

A study of made-up cells, half of them done; one more is done every half second, written into the store as a driver
does. Viewers listen to
events, and load the page every ten seconds. No cluster answers, so that the service has nothing else to do. Service and
viewers share the machine's cores.
"""

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import requests
from made_up import configs, fill, record
from results import leave

from scale_ray.cell import Cell
from scale_ray.identity import identity
from scale_ray.service.access import create_token
from scale_ray.service.database import Database, StudyRow
from scale_ray.service.submission import Submission
from scale_ray.store import Store, StudyPlan

PORT = 8799
URL = f"http://127.0.0.1:{PORT}"
NAME = "load"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--viewers", default="1,50", help="numbers, separated by commas")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    rows = []
    for viewers in map(int, options.viewers.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_measure(Path(folder), options.cells, viewers, options.seconds))
        print(rows[-1], flush=True)
    notes = [
        "page: from the request for a study's page to its last byte; event: from the record's write to its arrival",
        "a round of the service every 2 s: an event takes half of that on average by itself",
        "requests: listings and readings of the store; memory: resident, at the end",
    ]
    print(leave("service", "Service: many viewers", rows, notes))


def _measure(folder: Path, cells: int, viewers: int, seconds: float) -> dict[str, Any]:
    planned = [_cell(config) for config in itertools.islice(configs(), cells)]
    store = Store(folder / "store", create=True)
    store.write_plan(StudyPlan(name=NAME, created="2026-03-01T00:00:00+00:00", cells=planned))
    fill(store, planned[: cells // 2], 10)
    database = Database(f"sqlite:///{folder}/service.db")
    token = create_token(database, "bench", "read")
    _add_study(database, cells)
    settings = folder / "service.toml"
    settings.write_text(
        f'database = "sqlite:///{folder}/service.db"\nport = {PORT}\nray = "http://127.0.0.1:9"\n'
        f'[stores]\ndefault = "{store.location}"\n[limits]\nrequests_a_minute = 1000000\n'
    )
    line = [sys.executable, "-m", "scale_ray.cli", "serve", str(settings)]
    with (folder / "log").open("wb") as out, subprocess.Popen(line, stdout=out, stderr=out) as process:
        try:
            _await_round()
            before = _requests(token)
            found = asyncio.run(_view(token, store, planned[cells // 2 :], viewers, seconds))
            a_minute = (_requests(token) - before) / seconds * 60
            resident = int(Path(f"/proc/{process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
        finally:
            process.terminate()
    return {
        "cells": cells,
        "viewers": viewers,
        **found,
        "requests a minute": round(a_minute),
        "memory (MiB)": round(resident),
    }


def _cell(config: Any) -> Cell:
    inputs = {"source": "0" * 64, "target": "1" * 64}
    return Cell(id=identity(config, inputs), config=config, inputs=inputs)


def _add_study(database: Database, cells: int) -> None:
    submission = Submission.parse({"study": {"name": NAME, "axes": {"seed": [0]}}})
    row = StudyRow(
        name=NAME, owner="bench", document=submission.model_dump_json(), store="default", priority=0, share=1.0,
        cells=cells, state="running", job="load-1", created=time.time(), changed=time.time(),
    )  # fmt: skip
    with database.session() as session:
        session.add(row)


def _await_round() -> None:
    while True:
        try:
            if requests.get(f"{URL}/healthz", timeout=60).json()["rounds"] > 1:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)


def _requests(token: str) -> float:
    text = requests.get(f"{URL}/metrics", headers=_headers(token), timeout=60).text
    (line,) = [line for line in text.splitlines() if line.startswith("scale_ray_store_requests{")]
    return float(line.rpartition(" ")[2])


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def _view(token: str, store: Store, left: Sequence[Cell], viewers: int, seconds: float) -> dict[str, Any]:
    written: dict[str, float] = {}
    pages: list[float] = []
    events: list[float] = []
    end = time.monotonic() + seconds
    limit = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=_headers(token), timeout=limit, connector=connector) as session:
        listening = [asyncio.create_task(_listen(session, written, events)) for _ in range(viewers)]
        loading = [asyncio.create_task(_load(session, pages, end, first)) for first in range(viewers)]
        for cell in left:
            if time.monotonic() > end:
                break
            await asyncio.to_thread(store.write_record, record(cell, 10))
            written[cell.id] = time.monotonic()
            await asyncio.sleep(0.5)
        await asyncio.gather(*loading)
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    return {
        "pages": len(pages),
        "page, median (s)": round(median(pages), 2),
        "page, p95 (s)": _p95(pages),
        "events": len(events),
        "event, median (s)": round(median(events), 2),
        "event, p95 (s)": _p95(events),
    }


def _p95(values: list[float]) -> float:
    return round(sorted(values)[int(0.95 * (len(values) - 1))], 2)


async def _listen(session: aiohttp.ClientSession, written: dict[str, float], events: list[float]) -> None:
    async with session.get(f"{URL}/api/studies/{NAME}/events") as answer:
        rest = b""
        async for part in answer.content.iter_any():
            *lines, rest = (rest + part).split(b"\n")
            arrived = time.monotonic()
            for line in lines:
                if line.startswith(b"data: "):
                    cells = json.loads(line[6:])["cells"]
                    events += [arrived - written[cell] for cell in cells if cell in written]


async def _load(session: aiohttp.ClientSession, pages: list[float], end: float, first: float) -> None:
    await asyncio.sleep(first % 10)
    while time.monotonic() < end:
        began = time.monotonic()
        async with session.get(f"{URL}/studies/{NAME}") as answer:
            await answer.read()
            assert answer.status == 200, await answer.text()
        pages.append(time.monotonic() - began)
        await asyncio.sleep(max(0.0, began + 10 - time.monotonic()))


if __name__ == "__main__":
    main()
