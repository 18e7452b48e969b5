"""Run what a study still lacks: Ray Tune schedules, Optuna hands out the cells, the store keeps what comes back."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from scale_ray.config import ConfigError, Execution
from scale_ray.records import Failure, Record, now, provenance
from scale_ray.store import Store
from scale_ray.sweep.plan import Plan, configs_by_id, prepare_data
from scale_ray.sweep.progress import StudyProgress
from scale_ray.sweep.search import METRIC, cell_search
from scale_ray.sweep.trainable import train_cell
from scale_ray.training.check import trial_inputs
from scale_ray.training.setup import find_device

# One machine needs no more than this for metrics and configs; images are memory-mapped files, not Ray objects.
_OBJECT_STORE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Resources:
    """What one trial holds while it trains, and where the cluster is.

    `gpus` None: one GPU where the cluster has any, none elsewhere. `address`: 'local' starts Ray on this machine,
    'auto' joins the cluster that this machine belongs to.
    """

    cpus: int = 1
    gpus: float | None = None
    address: str = "local"


@dataclass(frozen=True)
class Outcome:
    """How the cells of a study stand after a run."""

    done: int
    failed: int
    interrupted: int  # to do in this run, and neither done nor failed now


def run_study(plan: Plan, store: Store, execution: Execution, resources: Resources, console: Console) -> Outcome:
    """Train every cell that is to do; each leaves its record as it ends.

    A cell that fails leaves a record with its error and the others go on. After Ctrl-C or a kill the same call goes on:
    finished cells are not run again, unfinished ones continue from their checkpoint.

    Raises:
        ValueError: the data cannot be used, or no node has a trial's resources. No cell has run then.
    """
    store.write_plan(plan.study)
    if plan.todo:
        if resources.address == "local":
            find_device(execution.device)  # elsewhere the driver's machine need not have what the trials' have
        prepare_data(plan, execution.root)
        _start_ray(resources)
        try:
            _fit(plan, store, execution, resources, console)
        finally:
            ray.shutdown()
    return outcome(plan, store)


def outcome(plan: Plan, store: Store) -> Outcome:
    """Counts by what the store holds now."""
    todo = {cell.id for cell in plan.todo}
    statuses = {cell.id: store.status(cell.id) for cell in plan.study.cells}
    return Outcome(
        done=list(statuses.values()).count("done"),
        failed=list(statuses.values()).count("failed"),
        interrupted=sum(key in todo and status == "missing" for key, status in statuses.items()),
    )


def _start_ray(resources: Resources) -> None:
    # Tune's own progress, loggers and reports would talk over ours and write files that nobody reads.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # Trials stay in the driver's folder: a relative path means the same everywhere.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    options: dict[str, Any] = {"address": resources.address, "log_to_driver": False, "logging_level": "ERROR"}
    if resources.address == "local":
        # No nested placement groups here, so nothing needs the dashboard's cleaner; it would cost seconds.
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ConfigError(
            f"no Ray cluster at address {resources.address!r} ({str(error).splitlines()[0]}): "
            "start one with `ray start --head`, or write --address local"
        ) from error


def _fit(plan: Plan, store: Store, execution: Execution, resources: Resources, console: Console) -> None:
    cells = configs_by_id(plan)
    per_trial = _resources_per_trial(resources, execution)
    execution = execution.model_copy(update={"threads": resources.cpus})
    # With a search algorithm Tune prepares one trial at a time unless told: a second slot would start late or never.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_slots(per_trial))
    trainable = tune.with_parameters(train_cell, cells=cells, execution=execution, store=store.root)
    progress = StudyProgress(cells, len(plan.answered), console)
    # In the store, because that is the folder which every node reaches; Tune wants one for its own state.
    with tempfile.TemporaryDirectory(prefix=".tune_", dir=store.root) as scratch, progress:
        tuner = tune.Tuner(
            tune.with_resources(trainable, per_trial),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=cell_search(list(cells)),
                num_samples=len(cells),
                # A new actor a trial would import torch again each time.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=plan.study.name,
                storage_path=scratch,
                verbose=0,
                callbacks=[progress, _LostTrials(plan, store, execution)],
            ),
        )
        tuner.fit()


def _resources_per_trial(resources: Resources, execution: Execution) -> dict[str, float]:
    there = ray.cluster_resources()
    gpus = resources.gpus
    if gpus is None:
        gpus = float(there.get("GPU", 0) >= 1 and execution.device != "cpu")
    wanted = {"CPU": float(resources.cpus), "GPU": gpus}
    for name, number in wanted.items():
        if number > there.get(name, 0):
            raise ConfigError(
                f"a trial asks for {number:g} {name}, all of Ray at {resources.address!r} has {there.get(name, 0):g}: "
                f"lower --{name.lower()}s-per-trial or join a larger cluster"
            )
    return wanted


def _slots(per_trial: dict[str, float]) -> int:
    """How many trials the cluster can hold at once."""
    there = ray.cluster_resources()
    return int(min(there[name] // number for name, number in per_trial.items() if number > 0))


class _LostTrials(tune.Callback):
    """A trial whose process died could not write its record; the driver writes it instead."""

    def __init__(self, plan: Plan, store: Store, execution: Execution):
        self._cells = configs_by_id(plan)
        self._store, self._execution = store, execution
        self._started = now()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial_id = trial.config["cell"]
        record = self._store.read_record(trial_id)
        if record is not None and record.provenance.started >= self._started:
            return
        config = self._cells[trial_id]
        reason = Path(trial.error_file).read_text() if trial.error_file else ""
        last_line = reason.strip().rpartition("\n")[2] or "its process died"
        failure = Failure(kind="TrialLost", message=f"ended without a record: {last_line}", traceback=reason)
        self._store.write_record(
            Record(
                id=trial_id,
                status="failed",
                config=config,
                inputs=trial_inputs(config, self._execution.root),
                failure=failure,
                provenance=provenance(
                    started=self._started, wall_seconds=0, device="unknown", threads=self._execution.threads
                ),
            )
        )
