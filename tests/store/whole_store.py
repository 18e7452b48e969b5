"""A store with a file of every kind, and the commands that read it, in this process: Ray alone is left out.

The study has four cells: two are done and share a warm-up, one fails, one is unfinished and has a checkpoint.
"""

import json
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from studies import SETTINGS
from tiny_trial import TINY

from scale_ray import cli
from scale_ray.cell import Cell
from scale_ray.config import Execution, TrialConfig
from scale_ray.records import Ran
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.store.orders import Orders
from scale_ray.sweep.engine import _Events
from scale_ray.training.failures import leaving_failures
from scale_ray.training.features import open_inputs
from scale_ray.training.loop import Progress
from scale_ray.training.resolve import resolve
from scale_ray.training.stages import alone, stage_tree
from scale_ray.training.trial import run_stage, run_trial

DONE, SISTER, FAILS, UNFINISHED = "ce+ssl", "ce+ssl+dist", "ce+1e30*ssl", "ce"
COMBINATIONS = (DONE, SISTER, FAILS, UNFINISHED)
STUDY, SEARCH = "study", "search"
_STEPS = 12


class Made(NamedTuple):
    """Images, weights, and the store's files by kind, as names below the store."""

    root: Path
    weights: Path
    files: dict[str, str]
    others: dict[str, str]  # kind -> another file of that kind, or a name that one could have


class Outcome(NamedTuple):
    """How a command ended: exit status, what it printed, and the traceback of an exception that is no user's error."""

    status: int
    out: str
    err: str
    traceback: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def run(arguments: list[str]) -> Outcome:
    """Run scale-ray in this process; stages are trained here, one after the other, and not on Ray."""
    out, err, fault, status = StringIO(), StringIO(), "", 0
    before, level = list(logging.root.handlers), logging.root.level
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["scale-ray", *arguments])
        patch.setenv("COLUMNS", "200")
        patch.setattr("scale_ray.report.build.drawings", lambda *_: [])  # figures take most of a report's time
        patch.setattr("scale_ray.sweep.run.work_off", _work_off)
        patch.setattr("scale_ray.tuning.run.work_off", _work_off)
        try:
            cli.main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        except Exception:  # noqa: BLE001 (a fault of the program: the test reports it)
            status, fault = 1, traceback.format_exc()
    logging.root.handlers[:] = before
    logging.root.setLevel(level)
    return Outcome(status, out.getvalue(), err.getvalue(), fault)


def _work_off(
    name: str,
    source: Any,
    store: Store,
    driver: Any,
    execution: Execution,
    resources: Any,
    progress: Any,
    *_: Any,
    **__: Any,
) -> None:
    """What Ray does for a study or a search: takes stages, trains each, tells the engine how it ended."""
    handover: Any = SimpleNamespace(take_back=lambda key: None)
    events = _Events(name, driver, source, handover, None, progress, (), store, execution, Ran(), Orders, None)  # type: ignore[arg-type]
    while not source.over:
        stage: Stage | None = source.next()
        if stage is None:  # another driver holds what is left
            time.sleep(0.1)
            continue
        trial = SimpleNamespace(config={"stage": stage.key}, last_result={}, error_file=None)
        events.on_trial_start(0, [], trial)
        try:
            with leaving_failures(stage, execution, store, Ran()):
                run_stage(stage, execution, store)
        except Exception:  # noqa: BLE001 (of the training: its record names it)
            events.on_trial_error(0, [], trial)
        else:
            events.on_trial_complete(0, [], trial)


def train(made: Made, store: Path, losses: str, *more: str) -> list[str]:
    return [
        *("train", "--benchmark", "image_folder", "--root", str(made.root), "--source", "plain"),
        *("--target", "inverted", "--losses", losses, "--store", str(store), "--checkpoint-every", "4"),
        *(*SETTINGS, "--set", f"optim.steps={_STEPS}", *more),
    ]


def train_frozen(made: Made, store: Path) -> list[str]:
    """A cell on features that the store has; with a cache of its own they must come from there."""
    settings = [
        text for path, value in _frozen(made.weights).items() for text in ("--set", f"{path}={json.dumps(value)}")
    ]
    return train(made, store, DONE, *settings)


def ablate(made: Made, store: Path, *more: str) -> list[str]:
    return [
        *("ablate", "--benchmark", "image_folder", "--root", str(made.root), "--store", str(store), "--local"),
        *("--pairs", "plain:inverted", "--losses", ",".join(COMBINATIONS), "--seeds", "1", "--name", STUDY),
        *("--checkpoint-every", "4", *SETTINGS, "--set", f"optim.steps={_STEPS}", *more),
    ]


def tune(made: Made, store: Path, *more: str) -> list[str]:
    settings = [text for text in SETTINGS[1::2] if not text.startswith("losses.threshold=")]
    return [
        *("tune", "--benchmark", "image_folder", "--root", str(made.root), "--store", str(store), "--local"),
        *("--pairs", "plain:inverted", "--losses", DONE, "--name", SEARCH, "--trials", "3"),
        *("--space", "losses.threshold=float:0.3:0.6:0.1", "--space", "losses.temperature=float:0.05:0.5:0.05"),
        *(text for setting in settings for text in ("--set", setting)),
        *("--set", f"optim.steps={_STEPS}", *more),
    ]


def _frozen(weights: Path) -> dict[str, Any]:
    return {
        "model.weights": str(weights),
        "model.encoder": "frozen",
        "model.frozen_views": 2,
        "model.bottleneck_dim": 12,
    }


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALE_RAY_CACHE", str(folder))
        yield


def make(root: Path, weights: Path, folder: Path) -> Made:
    """The store, by the parts that make one; the lease is of a driver that was killed."""
    made = Made(root, weights, {}, {})
    store = Store(folder, create=True)
    execution = Execution(root=root, device="auto", checkpoint_every=4)
    cells = {terms: resolve(_config(terms), root) for terms in COMBINATIONS}
    stage = next(stage for stage in stage_tree(list(cells.values())) if not stage.ends)
    assert run(tune(made, folder)).status == 0
    assert run(ablate(made, folder, "--limit", "3")).status == 1  # one fails
    run_stage(stage, execution, store)  # a study removes it at its end, a killed one does not
    run_trial(_config(DONE).replace({"seed": 7}), execution.model_copy(update={"keep_model": True}), store)
    for seed in (0, 7):
        _interrupt(_config(UNFINISHED).replace({"seed": seed}), execution, store)
    frozen = resolve(_config(DONE).replace(_frozen(weights)), root)
    with own_cache(folder.parent / "cache of features"):
        open_inputs(alone(frozen), execution, store)
    _leave_drivers(store, [cells[SISTER].id, "f" * 64])
    _name_files(made, store, cells, stage)
    return made


def _config(terms: str) -> TrialConfig:
    method = {"method": "source_only"} if terms == "ce" else {}
    return TrialConfig().replace(TINY | {"losses.terms": terms, "optim.steps": _STEPS} | method)


def _interrupt(config: TrialConfig, execution: Execution, store: Store) -> None:
    def ctrl_c(step: int) -> None:
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(config, execution, store, Progress(on_step=ctrl_c))


# A driver that takes a lease and waits.
_DRIVER = """
import sys
from scale_ray.store import Store
from scale_ray.store.leases import Driver
print(Driver(Store(sys.argv[1]).files).__enter__().acquire(sys.argv[2]), flush=True)
input()
"""


def _leave_drivers(store: Store, keys: Sequence[str]) -> None:
    """What is left of drivers that were killed, one for each key. All live until all have their lease."""
    line = [sys.executable, "-c", _DRIVER, store.location]
    pipe = subprocess.PIPE
    drivers = [subprocess.Popen([*line, key], stdin=pipe, stdout=pipe, text=True) for key in keys]
    for driver in drivers:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "True\n"
    for driver in drivers:
        driver.kill()
        driver.communicate()


def _name_files(made: Made, store: Store, cells: dict[str, Cell], stage: Stage) -> None:
    def name(kind: str, name: str, other: str) -> None:
        assert store.files.exists(name), name
        made.files[kind], made.others[kind] = name, other

    done, sister, failed, unfinished = (cells[terms].id for terms in COMBINATIONS)
    drivers, leases = store.files.names("drivers"), store.files.names("leases")
    features = sorted({key.partition(".")[0] for key in store.files.names("features")})
    (search,) = [plan for plan in store.plans() if plan.name == SEARCH]
    name("done record", f"records/{done}.json", f"records/{sister}.json")
    name("record of a search", *(f"records/{cell.id}.json" for cell in search.cells[:2]))
    name("failed record", f"records/{failed}.failed.json", f"records/{unfinished}.failed.json")
    name("plan", f"studies/{STUDY}.json", f"studies/{SEARCH}.json")
    others = [key for key in store.checkpoint_keys() if key != unfinished]
    name("checkpoint", f"checkpoints/{unfinished}.pt", f"checkpoints/{others[0]}.pt")
    name("stage", f"stages/{stage.key}.pt", f"stages/{'f' * 64}.61.pt")
    name("model", f"models/{store.files.names('models')[0]}", f"models/{done}.safetensors")
    name("features", f"features/{features[0]}.npy", f"features/{features[1]}.npy")
    name("features' digest", f"features/{features[0]}.sha256", f"features/{features[1]}.sha256")
    name("journal", f"tuning/{SEARCH}/journal.log", f"tuning/{SEARCH}/journal.log.bak")
    name("driver", f"drivers/{drivers[0]}", f"drivers/{drivers[1]}")
    name("lease", f"leases/{leases[0]}", f"leases/{leases[1]}")
    name("table", "report/losses_by_backbone.md", "report/pairs_by_method.md")
