"""Run what a study still lacks: Ray Tune schedules, Optuna hands out the stages, the store keeps what comes back."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from scale_ray.config import Execution
from scale_ray.leases import Driver
from scale_ray.records import Failure
from scale_ray.store import Store
from scale_ray.sweep.cluster import DRIVER_RESOURCES, TRAIN_RUNS, Footprint, Places, Resources, footprint, start_ray
from scale_ray.sweep.plan import Plan, prepare_data, still_needed
from scale_ray.sweep.progress import StudyProgress
from scale_ray.sweep.queue import StageQueue
from scale_ray.sweep.search import StageSearch
from scale_ray.sweep.trainable import train_stage
from scale_ray.training.setup import find_device
from scale_ray.training.stages import Stage
from scale_ray.training.trial import lost

# Ray Tune's own files, by driver; nothing is ever read from them, for the store says all that a next run needs.
_SCRATCH = ".tune_"

# An autoscaler has its own limit; this one keeps the request small where a study has many thousand cells.
_MOST_REQUESTED = 1000


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
        StoreError: the store can no longer be written to.
    """
    store.write_plan(plan.study)
    if plan.stages:
        if resources.address == "local":
            find_device(execution.device)  # elsewhere the driver's machine need not have what the trials' have
        prepare_data(plan, execution.root)
        with Driver(store.files) as driver:
            for other in driver.others():
                console.print(
                    f"another driver works on this store ({other.host}, pid {other.pid}, since {other.since}): "
                    "the cells that it trains are left to it"
                )
            cluster = start_ray(resources)
            try:
                needs = footprint(resources, execution.device, console, cluster=cluster)
                _fit(plan, store, execution, needs, driver, console)
            finally:
                ray.shutdown()
            _sweep(plan, store, driver)
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


def _fit(
    plan: Plan,
    store: Store,
    execution: Execution,
    footprint: Footprint,
    driver: Driver,
    console: Console,
) -> None:
    stages = {stage.key: stage for stage in plan.stages}
    execution = execution.model_copy(update={"threads": int(footprint.bundle["CPU"])})
    progress = StudyProgress(stages, len(plan.answered), console)
    queue = StageQueue(plan.stages, store, driver, with_models=execution.keep_model, on_answered=progress.answered)
    progress.elsewhere = lambda: queue.elsewhere
    scratch = f"{_SCRATCH}{driver.id}"
    path, filesystem = store.arrow_storage(scratch)
    places = Places(footprint)
    at_most = partial(_handed_out_at_most, queue, places, footprint.through_train)
    tuner = tune.Tuner(
        _trainable(stages, execution, store, footprint),
        tune_config=tune.TuneConfig(
            search_alg=StageSearch(list(stages), queue, at_most),
            num_samples=-1,  # until the search says that it has finished
            reuse_actors=True,  # a new actor a stage would import torch again each time
        ),
        run_config=tune.RunConfig(
            name=plan.study.name,
            storage_path=path,
            storage_filesystem=filesystem,
            verbose=0,
            callbacks=[progress, _Bookkeeping(queue, store, execution, progress)],
        ),
    )
    try:
        with progress:
            tuner.fit()
    except Exception:
        store.prove_writable()  # a full or read-only disk ends Ray Tune in many ways: say this and not those
        raise
    finally:
        if footprint.through_train:
            places.request(0)
        store.files.delete_folder(scratch)


def _trainable(stages: dict[str, Stage], execution: Execution, store: Store, footprint: Footprint) -> Any:
    common: dict[str, Any] = {"stages": stages, "execution": execution, "store": store.location}
    if not footprint.through_train:
        return tune.with_resources(tune.with_parameters(train_stage, **common), dict(footprint.bundle))
    from scale_ray.sweep.train_worker import drive_stage

    return tune.with_resources(tune.with_parameters(drive_stage, footprint=footprint, **common), DRIVER_RESOURCES)


def _handed_out_at_most(queue: StageQueue, places: Places, through_train: bool) -> int:
    """How many stages may be out at once: those that train, and as many more as there is free room for.

    Inside Tune trials as many again as all nodes hold: Tune lets them wait, and an actor that ends finds the next one
    there and need not import torch anew. A Ray Train driver would start at once, and wait for its workers: so an
    autoscaler does not see what waits in the queue, and is told of it.
    """
    if not through_train:
        return queue.started + places.free() + places.all()
    places.request(min(queue.running + queue.ready, _MOST_REQUESTED))
    return queue.started + places.free()


class _Bookkeeping(tune.Callback):
    """Tells the queue and the person how stages end; writes the records of those that ended without a word."""

    def __init__(self, queue: StageQueue, store: Store, execution: Execution, progress: StudyProgress):
        self._queue, self._store, self._execution, self._progress = queue, store, execution, progress

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that the store makes needless."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._queue.has_started(trial.config["stage"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._progress.ended(self._queue.finished(trial.config["stage"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        stage, again = self._queue.failed(trial.config["stage"])
        if not again:
            self._explain(stage, Path(trial.error_file).read_text() if trial.error_file else "")
        self._progress.failed(stage, again=again)

    def _explain(self, stage: Stage, report: str) -> None:
        last_line = report.strip().rpartition("\n")[2] or "its process died"
        failure = Failure(kind="TrialLost", message=f"ended without a record: {last_line}", traceback=report)
        for cell in self._queue.unexplained(stage):
            self._store.write_record(lost(cell, self._execution, failure))


def _sweep(plan: Plan, store: Store, driver: Driver) -> None:
    """Remove what no cell needs any more: states of shared stages and of runs under Ray Train, and killed drivers'."""
    if driver.others():
        return
    for name in store.files.folders(""):
        if name.startswith(_SCRATCH):
            store.files.delete_folder(name)
    shared, runs = store.stage_keys(), store.files.folders(TRAIN_RUNS)
    needed = still_needed(plan, store) if shared or runs else None
    if needed is None:
        return
    for key in set(shared) - needed:
        store.delete_stage(key)
    for key in set(runs) - needed:
        store.files.delete_folder(f"{TRAIN_RUNS}/{key}")
