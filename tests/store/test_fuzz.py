"""Every file of a store, spoilt in every way, and every command: the right result, or one line that names the file.

    make test      a sample
    make faults    all, and some through Ray

Never another number, never a traceback, and nothing in a store is ever unpickled.
"""

import json
import pickle
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import studies
from damages import CREATE_TRIAL, SET_SYSTEM_ATTR, STRANGER, Poison, Scene, damages, is_extra
from whole_store import (
    COMBINATIONS,
    DONE,
    SEARCH,
    UNFINISHED,
    Made,
    Outcome,
    ablate,
    make,
    own_cache,
    run,
    train,
    train_frozen,
    tune,
)

from scale_ray.store import Store

KINDS = [
    "done record",
    "record of a search",
    "failed record",
    "plan",
    "checkpoint",
    "stage",
    "model",
    "features",
    "features' digest",
    "journal",
    "driver",
    "lease",
    "table",
]
COMMANDS = ["train", "dry-run", "ablate", "tune", "report", "status"]

# States and traces of work: a store without one is as good, it only costs time.
MAY_GO = {"checkpoint", "stage", "features", "features' digest", "driver", "lease", "table"}

# Kinds whose damage makes `train` train another cell than the unfinished one.
FEATURES = {"features", "features' digest"}


# Lines of `status` on drivers and searches, whose files are of the moment.
_CHANGING = ("running: ", "search ", "time left: ", "to do: ")


def _cases() -> Iterator[Any]:
    """Every (kind, damage, command). Of the fast commands `make test` runs a sample, drawn by name."""
    for kind in KINDS:
        for damage in damages(kind):
            for command in COMMANDS:
                drawn = zlib.crc32(f"{kind}, {damage}, {command}".encode()) % 100
                kept = drawn < {"train": 25, "dry-run": 30, "status": 50, "report": 4}.get(command, 0)
                if kind == "record of a search" and command in ("train", "ablate", "dry-run"):
                    continue  # they do not read it, except for the report, which has a command of its own
                yield pytest.param(
                    kind, damage, command, id=f"{kind}: {damage}: {command}", marks=() if kept else pytest.mark.slow
                )


class Bench:
    """The whole store, and a place where a spoilt copy of it is tried."""

    def __init__(self, root: Path, weights: Path, place: Path):
        self._place = place
        self.store, self.marker, self._kept = place / "store", place / "the pickle ran", place / "kept"
        self.made = make(root, weights, self.store)
        self.store.rename(self._kept)
        self._right: dict[tuple[str, ...], Any] = {}

    def lay(self) -> Path:
        """A fresh copy of the store, always at the same path."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.marker.unlink(missing_ok=True)
        shutil.copytree(self._kept, self.store)
        return self.store

    def scene(self, kind: str) -> Scene:
        return Scene(self.store / self.made.files[kind], self.store / self.made.others[kind], self.marker)

    def attempt(self, command: str, kind: str, *, swapped: bool = False) -> tuple[Outcome, Any]:
        """Run a command; return how it ended and what must be right in it."""
        lines = {
            "dry-run": lambda: ablate(self.made, self.store, "--dry-run"),
            "ablate": lambda: ablate(self.made, self.store),
            "tune": lambda: tune(self.made, self.store),
            "report": lambda: ["report", str(self.store), "--figures", "0"],
            "status": lambda: ["status", str(self.store)],
            "train": lambda: self._train(kind, swapped=swapped),
        }
        cache = self._place / "cache"  # new, so that features come from the store
        if command == "train" and kind in FEATURES:
            shutil.rmtree(cache, ignore_errors=True)
            with own_cache(cache):
                outcome = run(lines[command]())
        else:
            outcome = run(lines[command]())
        return outcome, self.evidence(command, outcome)

    def right(self, command: str, kind: str, *, swapped: bool, gone: bool) -> Any:
        """The evidence of the undamaged store, or (`gone`) of one without the file."""
        key = (command, kind if command == "train" or gone else "", str(swapped), str(gone))
        if key not in self._right:
            self.lay()
            if gone:
                self.scene(kind).path.unlink()
            outcome, evidence = self.attempt(command, kind, swapped=swapped)
            assert not outcome.traceback, outcome.traceback
            assert outcome.status == (command == "ablate"), outcome  # one of its cells fails
            self._right[key] = evidence
        return self._right[key]

    def _train(self, kind: str, *, swapped: bool) -> list[str]:
        """The cell that the file is of."""
        if kind in FEATURES:
            return train_frozen(self.made, self.store)
        if kind == "checkpoint":
            return train(self.made, self.store, UNFINISHED, *(("--seed", "7") if swapped else ()))
        return train(self.made, self.store, DONE)

    def evidence(self, command: str, outcome: Outcome) -> Any:
        if outcome.status == 2 or outcome.traceback:
            return None
        if command == "dry-run":
            return outcome.out
        if command == "status":  # what runs and what a search has done is told from files that change all the time
            return [line for line in outcome.out.splitlines() if not line.startswith((*_CHANGING, "  "))]
        if command == "report":
            files = [path for path in (self.store / "report").iterdir() if path.is_file()]
            return {path.name: path.read_bytes() for path in files if not is_extra(path)}
        if command == "tune":
            folder = self.store / "tuning" / SEARCH
            return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".json")}
        if command == "train":
            record = re.search(r"records/([0-9a-f]{64})\.json", outcome.out)
            assert record, outcome.out
            told = [line.partition(", 12 steps")[0] for line in outcome.out.splitlines() if ", 12 steps" in line]
            return told, self._results([record[1]])
        planned = re.search(r"(\d+) cells", outcome.out)
        return planned and planned[0], self._results(self._cells())

    def _cells(self) -> list[str]:
        (plan,) = [plan for plan in Store(self._kept).plans() if plan.name == "study"]
        assert len(plan.cells) == len(COMBINATIONS)
        return [cell.id for cell in plan.cells]

    def _results(self, cells: list[str]) -> list[Any]:
        records = [Store(self.store).read_record(cell) for cell in cells]
        return [record and (record.id, record.status, record.result) for record in records]


@pytest.fixture(scope="session")
def bench(tiny_root: Path, lenet_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny_root, lenet_weights, tmp_path_factory.mktemp("spoilt"))


@pytest.mark.parametrize(("kind", "damage", "command"), list(_cases()))
def test_a_spoilt_file_gives_the_right_result_or_one_line_that_names_it(
    kind: str, damage: str, command: str, bench: Bench
) -> None:
    swapped = damage in ("renamed", "copied over another")
    right = [bench.right(command, kind, swapped=swapped, gone=False)]
    if kind in MAY_GO:
        right.append(bench.right(command, kind, swapped=swapped, gone=True))
    bench.lay()
    damages(kind)[damage](bench.scene(kind))
    outcome, evidence = bench.attempt(command, kind, swapped=swapped)
    assert not bench.marker.exists(), "the pickle ran"
    assert not outcome.traceback, outcome.traceback
    if outcome.status == 2:
        assert len(outcome.errors) == 1, outcome.err
        assert any(name in outcome.errors[0] for name in _names(bench.made, kind)), outcome.err
    else:
        assert evidence in right, f"another result:\n{outcome.out}{outcome.err}"


def test_an_optimiser_that_a_journal_brings_along_is_never_unpickled(bench: Bench) -> None:
    """Optuna's CMA-ES keeps its state as a pickle in the attributes of trials."""
    more = ("--sampler", "cmaes", "--trials", "5")
    bench.lay()
    undisturbed = run(tune(bench.made, bench.store, *more))
    right = bench.evidence("tune", undisturbed)
    journal = bench.lay() / bench.made.files["journal"]
    lines = journal.read_text().splitlines()
    begun = next(index for index, line in enumerate(lines) if json.loads(line)["op_code"] == CREATE_TRIAL)
    poison = {"cma:optimizer:0": pickle.dumps(Poison(bench.marker)).hex()}
    entry = {"op_code": SET_SYSTEM_ATTR, "worker_id": "someone", "trial_id": 0, "system_attr": poison}
    journal.write_text("\n".join([*lines[: begun + 1], json.dumps(entry), *lines[begun + 1 :]]) + "\n")
    outcome = run(tune(bench.made, bench.store, *more))
    assert not bench.marker.exists(), "the pickle ran"
    assert not outcome.traceback, outcome.traceback
    if outcome.status == 2:
        assert len(outcome.errors) == 1, outcome.err
    else:
        assert bench.evidence("tune", outcome) == right


def _names(made: Made, kind: str) -> list[str]:
    """Of which one must stand in a message: the file, one of that kind, or the stranger's. The ending may differ."""
    names = [name.rpartition(".")[0] or name for name in (made.files[kind], made.others[kind])]
    return [*names, f"{made.files[kind].rpartition('/')[0]}/{STRANGER}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("stage", "cut"),
        ("stage", "a pickle in a zip"),
        ("checkpoint", "bit at 55 %"),
        ("done record", "cut"),
        ("lease", "not UTF-8"),
        ("driver", "nested lists"),
    ],
)
def test_a_study_on_ray_gives_the_right_result_or_one_line_that_names_the_file(
    kind: str, damage: str, bench: Bench
) -> None:
    right = bench.right("ablate", kind, swapped=False, gone=False)
    bench.lay()
    damages(kind)[damage](bench.scene(kind))
    line = [studies.sys.executable, "-m", "scale_ray.cli", *ablate(bench.made, bench.store)]
    finished = studies.finish(line)
    outcome = Outcome(finished.returncode, finished.stdout, finished.stderr, "")
    assert not bench.marker.exists(), "the pickle ran"
    assert "Traceback" not in finished.stderr, finished.stderr
    if outcome.status == 2:
        assert len(outcome.errors) == 1, outcome.err
        assert any(name in outcome.errors[0] for name in _names(bench.made, kind)), outcome.err
    else:
        assert bench.evidence("ablate", outcome) == right, outcome.out + outcome.err
