"""Run what a study still lacks: Ray Tune schedules, Optuna hands out the stages, the store keeps what comes back."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from scale_ray.config import ConfigError, Execution
from scale_ray.records import Failure
from scale_ray.store import Store, StoreError
from scale_ray.store.leases import Driver
from scale_ray.study import describe
from scale_ray.sweep.cluster import (
    DRIVER_RESOURCES,
    TRAIN_RUNS,
    Footprint,
    Places,
    Resources,
    footprint,
    leave_ray,
    start_ray,
)
from scale_ray.sweep.plan import Plan, keys_of, keys_still_needed, prepare_data, prepare_features
from scale_ray.sweep.progress import StudyProgress
from scale_ray.sweep.queue import StageQueue
from scale_ray.sweep.search import StageSearch
from scale_ray.sweep.trainable import train_stage
from scale_ray.training.setup import find_device
from scale_ray.training.stages import Stage
from scale_ray.training.trial import Ran, failed

# Ray Tune's own files, by driver; nothing is ever read from them, for the store says all that a next run needs.
SCRATCH = ".tune_"

logger = logging.getLogger(__name__)

# Seconds between two words about a study that cannot start.
_TELL = 60.0

# An autoscaler has its own limit; this one keeps the request small where a study has many thousand cells.
_MOST_REQUESTED = 1000


@dataclass(frozen=True)
class Outcome:
    """How the cells of a run ended."""

    done: int  # of the whole study
    failed: int
    interrupted: int  # to do, and neither done nor failed


def run_study(plan: Plan, store: Store, execution: Execution, resources: Resources, console: Console) -> Outcome:
    """Train every cell that is to do; each leaves its record as it ends.

    A cell that fails leaves a record with its error and the others go on. After Ctrl-C or a kill the same call goes on:
    finished cells are not run again, unfinished ones continue from their checkpoint.

    Raises:
        ValueError: the data cannot be used, or no node has a trial's resources. No cell has run then.
        StoreError: the store can no longer be written to.
    """
    _check_workers(plan, resources)
    store.write_plan(plan.study)
    done, lost = set(plan.answered), set[str]()
    with Driver(store.files) as driver:
        for other in driver.others():
            console.print(
                f"another driver works on this store ({other.host}, pid {other.pid}, since {other.since}): "
                "the cells that it trains are left to it"
            )
        if plan.stages:
            queue = _work_off(plan, store, execution, resources, driver, console)
            done, lost = done | queue.done, queue.failed_cells
        _sweep(plan, store, driver, done)
    todo = {cell.id for cell in plan.todo}
    return Outcome(done=len(done), failed=len(lost), interrupted=len(todo - done - lost))


def _check_workers(plan: Plan, resources: Resources) -> None:
    """All trials of a run have the same number of workers: that of the run."""
    for cell in plan.todo:
        if cell.config.parallel.workers != (resources.workers or 1):
            raise ConfigError(
                f"parallel.workers is {cell.config.parallel.workers} in {describe(cell.config)} and "
                f"{resources.workers or 1} in this run: it is no axis, give --workers-per-trial and run one study each"
            )


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """A closed terminal or a polite kill ends a study as Ctrl-C does: in order, and nodes asked for are given back."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    names = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(name, lambda *_: os.kill(os.getpid(), signal.SIGINT)) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


def _work_off(
    plan: Plan, store: Store, execution: Execution, resources: Resources, driver: Driver, console: Console
) -> StageQueue:
    """Run the plan's stages on Ray; what the queue says then is how they ended."""
    if resources.address == "local":
        find_device(execution.device)  # elsewhere the driver's machine need not have what the trials' have
    prepare_data(plan, execution.root)
    stages = {stage.key: stage for stage in plan.stages}
    progress = StudyProgress(stages, len(plan.answered), console)
    ended_here = frozenset(plan.answered) | {cell.id for cell in plan.todo}
    queue = StageQueue(
        plan.stages,
        store,
        driver,
        with_models=execution.keep_model,
        keep=keys_still_needed(plan, ended_here),
        on_answered=progress.answered,
    )
    progress.elsewhere = lambda: queue.elsewhere
    try:
        cluster = start_ray(resources, console)
        needs = footprint(resources, execution.device, console, cluster=cluster)
        if computes_features_first(cluster, needs):
            prepare_features(((stage.config, stage.targets) for stage in plan.stages), execution, store)
        execution = execution.model_copy(update={"threads": resources.cpus})
        trainable = stage_trainable(stages, execution, store, needs)
        places = Places(needs)
        search = StageSearch(queue, partial(room, queue, places, needs.through_train))
        bookkeeping = Bookkeeping(queue, places, progress, store, execution, needs.ran)
        with ending_like_ctrl_c():  # not sooner: Ray takes the signals for itself as it starts
            fit(plan.study.name, trainable, search, [progress, bookkeeping], store, driver)
    except KeyboardInterrupt:  # before Ray Tune has begun; later it takes care of that
        return queue
    finally:
        leave_ray()
    return queue


def computes_features_first(cluster: bool, needs: Footprint) -> bool:
    """Before any trial, while all CPUs of this machine are still free; on a cluster or GPU the first trials do."""
    return not cluster and "GPU" not in needs.bundle


def fit(
    name: str,
    trainable: Any,
    search: Searcher,
    callbacks: Sequence[StudyProgress | tune.Callback],
    store: Store,
    driver: Driver,
    scheduler: TrialScheduler | None = None,
    reuse_actors: bool = True,
) -> None:
    """Let Ray Tune run what the search suggests, until it says that it has finished.

    Args:
        callbacks: the first shows progress.
        driver: its id names Tune's own files.
        scheduler: may stop trials early; by default none is.
        reuse_actors: a new actor a stage would import torch again each time.
    """
    scratch = f"{SCRATCH}{driver.id}"
    path, filesystem = store.arrow_storage(scratch)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=-1,  # until the search says that it has finished
            reuse_actors=reuse_actors,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=name, storage_path=path, storage_filesystem=filesystem, verbose=0, callbacks=list(callbacks)
        ),
    )
    progress = callbacks[0]
    assert isinstance(progress, StudyProgress)
    try:
        with progress:
            tuner.fit()
    except Exception:
        store.prove_writable()  # a full or read-only disk ends Ray Tune in many ways: say this and not those
        raise
    try:
        store.files.delete_folder(scratch)
    except StoreError as error:
        logger.warning("%s", error)


def stage_trainable(stages: dict[str, Stage], execution: Execution, store: Store, footprint: Footprint) -> Any:
    """What Ray Tune calls with each point: one that names one of these stages, or brings its own along."""
    common: dict[str, Any] = {"stages": stages, "execution": execution, "store": store.location}
    if not footprint.through_train:
        return tune.with_resources(tune.with_parameters(train_stage, **common), dict(footprint.bundle))
    from scale_ray.sweep.train_worker import drive_stage

    return tune.with_resources(tune.with_parameters(drive_stage, footprint=footprint, **common), DRIVER_RESOURCES)


def room(queue: StageQueue, places: Places, through_train: bool) -> int:
    """How many stages may be out at once: those that train, and as many more as there is free room for.

    Inside Tune trials as many again as all nodes hold: Tune lets them wait, and an actor that ends finds the next one
    there and need not import torch anew. A Ray Train driver would start at once, and wait for its workers.
    """
    return queue.started + places.free() + (0 if through_train else places.all())


class Bookkeeping(tune.Callback):
    """Between Ray Tune and the queue: how stages end, what the autoscaler should know, what a person should."""

    def __init__(
        self, queue: StageQueue, places: Places, progress: StudyProgress, store: Store, execution: Execution, ran: Ran
    ):
        self._queue, self._places, self._progress = queue, places, progress
        self._store, self._execution, self._ran = store, execution, ran
        self._told = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that the store makes needless."""
        return {}

    def demand(self) -> int:
        """How many stages could run at once, had Ray the places."""
        return self._queue.running + self._queue.ready

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        # What waits in the queue has no demand of its own that an autoscaler could see.
        self._places.request(min(self.demand(), _MOST_REQUESTED))
        if time.monotonic() - self._told > _TELL and not self._queue.started:
            self._told = time.monotonic()
            if lack := self._places.lack():
                self._progress.say(f"waiting: {lack}")

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
        """Write the records of the cells that ended without a word."""
        last_line = report.strip().rpartition("\n")[2] or "its process died"
        failure = Failure(kind="TrialLost", message=f"ended without a record: {last_line}", traceback=report)
        for cell in self._queue.unexplained(stage):
            self._store.write_record(failed(cell, self._execution, failure, self._ran))


def _sweep(plan: Plan, store: Store, driver: Driver, done: set[str]) -> None:
    """Remove what no cell needs any more: states of this study's stages and trainings, and what killed drivers left."""
    sweep_store(store, driver, keys_of(plan) - keys_still_needed(plan, done))


def sweep_store(store: Store, driver: Driver, gone: frozenset[str]) -> None:
    """Remove the states under the keys `gone`, and what killed drivers left; another live driver may want them."""
    if driver.others():
        return
    for name in store.files.folders(""):
        if name.startswith(SCRATCH):
            store.files.delete_folder(name)
    for key in gone.intersection(store.stage_keys()):
        store.delete_stage(key)
    for key in gone.intersection(store.checkpoint_keys()):
        store.delete_checkpoint(key)
    for key in gone.intersection(store.files.folders(TRAIN_RUNS)):
        store.files.delete_folder(f"{TRAIN_RUNS}/{key}")
