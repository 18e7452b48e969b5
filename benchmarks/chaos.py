"""A campaign of random kills: studies lose processes at random moments, and nothing else.

    python benchmarks/chaos.py [--kills 100] [--seed 0] [--drivers 1|2|mixed]
    python benchmarks/chaos.py --seed 0 --only 3        # that run again

Each run is a study of tiny images, on a Ray of its own or on a cluster of a head and two nodes on this machine, with
one or two workers a trial, into a folder or an S3 server, by one driver or two. Several times in a run, after a number
of done cells and some tenths of a second, one process gets SIGKILL: a driver, a trial (Ray Tune's actor), a worker or
the controller of Ray Train, a worker node, the head; or the S3 server answers 503 for 20 seconds. A third of the kills
of drivers, trials and workers wait for a file that is being written. A driver that ended is started again with the
same command, a lost head is followed by a new cluster. Seed and number of a run determine all choices; when a process
does what, they do not.

At the end every cell has one record, written once, with the result of an undisturbed study; the report's tables are
the same; nothing is left: no placement group, lease, announcement, state, temporary file or process.

Finished runs are kept in --work, so that an interrupted campaign goes on where it was. Exit status 1: a run failed.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults.choices import Run, draw
from faults.processes import adopt_orphans, kill_all_below
from faults.run import perform
from results import leave
from tiny_images import make_images

# What must be empty at the end of a run, in the order of the table's columns.
CHECKS = {
    "lost": ("lost",),
    "twice": ("twice",),
    "different": ("different", "tables"),
    "placement groups": ("placement groups",),
    "temporary files": ("temporary",),
    "leases": ("leases", "announcements"),
    "states": ("states",),
    "processes": ("processes",),
    "astray": ("astray",),
}


def main() -> None:
    options = _options()
    adopt_orphans()
    # Records and tables say nothing of commits, which may be made while a campaign is interrupted.
    os.environ["GIT_DIR"] = os.devnull
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    root = work / "images"
    if not root.exists():
        make_images(work / "images.new", ["plain", "inverted"], [16, 16, 16])
        (work / "images.new").rename(root)
    if options.only is not None:
        _one(_run(options, options.only), root, work, options.limit)
        return
    rows = _campaign(options, work)
    text = _table(options, rows)
    print(text)
    failed = [row for row in rows if _faults(row)]
    for row in failed:
        print(
            f"FAILED {row['title']}: {json.dumps(_faults(row))}\n  again: {shlex.join(_again(options, row['number']))}"
        )
    sys.exit(bool(failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="at least so many, over as many runs as it takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--drivers", choices=["1", "2", "mixed"], default="mixed", help="mixed: two in half of the runs"
    )
    parser.add_argument("--cells", type=int, default=24, help="of a run's study, a multiple of four")
    parser.add_argument("--kills-per-run", type=int, default=8)
    parser.add_argument("--places", default="local,cluster")
    parser.add_argument("--stores", default="folder,s3")
    parser.add_argument(
        "--only", type=int, metavar="RUN", help="make this run, finished or not, and print what it left"
    )
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a run is given up")
    parser.add_argument("--work", type=Path, default=Path("runs/chaos"), help="finished runs, logs and stores")
    parser.add_argument("--no-results", action="store_true", help="leave benchmarks/results as it is")
    return parser.parse_args()


def _run(options: argparse.Namespace, number: int) -> Run:
    return draw(
        options.seed,
        number,
        cells=options.cells,
        kills=options.kills_per_run,
        drivers=(1, 2) if options.drivers == "mixed" else (int(options.drivers),),
        places=options.places.split(","),
        stores=options.stores.split(","),
    )


def _campaign(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Make runs until there are enough kills; each in a process of its own, which cannot spoil the next."""
    rows: list[dict[str, Any]] = []
    began, made_here = time.monotonic(), 0
    for number in range(options.kills):  # a run without a kill would not end the campaign
        made = sum(len(row["kills"]) for row in rows)
        if made >= options.kills:
            break
        run = _run(options, number)
        row = _finished(work, run)
        if row is None:
            pace = (time.monotonic() - began) / made_here if made_here else None
            left = f", about {pace * (options.kills - made) / 60:.0f} min left" if pace else ""
            print(f"{made} of {options.kills} kills{left}; {run.title}", flush=True)
            subprocess.run([*_again(options, number), "--limit", str(options.limit)], check=False)
            kill_all_below()
            row = _finished(work, run)
            if row is None:
                row = _keep(work, run, {"ended": False, "kills": [], "own ends": {}, "crashed": True})
            made_here += len(row["kills"])
        rows.append(row)
    return rows


def _again(options: argparse.Namespace, number: int) -> list[str]:
    """The command line of one run."""
    given = {
        "seed": options.seed,
        "only": number,
        "drivers": options.drivers,
        "cells": options.cells,
        "kills-per-run": options.kills_per_run,
        "places": options.places,
        "stores": options.stores,
        "work": options.work.resolve(),
    }
    return [sys.executable, str(Path(__file__).resolve()), *(f"--{key}={value}" for key, value in given.items())]


def _one(run: Run, root: Path, work: Path, limit: float) -> None:
    """Make one run and keep what it left."""
    print(run.title, flush=True)
    row = _keep(work, run, perform(run, root, work, limit))
    print(json.dumps({key: value for key, value in row.items() if key != "run"}, indent=1))
    sys.exit(bool(_faults(row)))


def _keep(work: Path, run: Run, found: dict[str, Any]) -> dict[str, Any]:
    row = {"title": run.title, "number": run.number, **found, "run": json.loads(json.dumps(asdict(run)))}
    with (work / "runs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def _finished(work: Path, run: Run) -> dict[str, Any] | None:
    """What a run with the same choices left, a failed one first: a replay that passes does not undo a failure.

    One that did not come to its end is made again.
    """
    path, wanted = work / "runs.jsonl", json.loads(json.dumps(asdict(run)))
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    same = [row for row in rows if row["run"] == wanted and not row.get("crashed")]
    return next((row for row in same if _faults(row)), same[-1] if same else None)


def _faults(row: dict[str, Any]) -> dict[str, Any]:
    """What a run should not have left, by check; empty where all is well."""
    found = {name: [each for key in keys for each in row.get(key, ())] for name, keys in CHECKS.items()}
    if not row["ended"]:
        found["not ended"] = [row["own ends"]]
    return {name: values for name, values in found.items() if values}


def _table(options: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    kinds = sorted({kill["kind"] for row in rows for kill in row["kills"]})
    lines = []
    for kind in [*kinds, "all"]:
        with_it = [row for row in rows if kind == "all" or any(kill["kind"] == kind for kill in row["kills"])]
        kills = sum(kind in ("all", kill["kind"]) for row in with_it for kill in row["kills"])
        faults = [_faults(row) for row in with_it]
        counts = {name: sum(len(each.get(name, ())) for each in faults) for name in (*CHECKS, "not ended")}
        lines.append({"victim": kind, "kills": kills, "runs with it": len(with_it)} | counts)
    last = max((row["seconds to the last process"] for row in rows if "seconds to the last process" in row), default=0)
    two = sum(row["run"]["drivers"] == 2 for row in rows)
    notes = [
        f"seed {options.seed}, {len(rows)} runs of {options.cells} cells, {two} of them by two drivers",
        "a fault of a run counts in the row of every kind of victim that the run had; `all` counts each once",
        "twice: done records that were written again; different: records and tables that an undisturbed study has not",
        "astray: drivers that lost their head and went on for over a minute, or ended with a traceback",
        f"the last process of a run was gone {last} s after its study at the latest",
        f"commands that ended by themselves and were run again: {sum(sum(row['own ends'].values()) for row in rows)}",
    ]
    notes += [f"failed: {row['title']}" for row in rows if _faults(row)]
    if options.no_results:
        return "\n".join([*(str(line) for line in lines), *notes])
    return leave("chaos", f"Random kills: {lines[-1]['kills']} in {len(rows)} runs", lines, notes)


if __name__ == "__main__":
    main()
