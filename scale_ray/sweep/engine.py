"""The one engine that works off stages on Ray: Ray Tune schedules them, a work source says which comes next.

A study is a fixed list of stages (`fixed`); a tuning search asks for stages as results come in (`tuning.source`). Both
are a `WorkSource`; starting Ray, counting slots, retries, records of lost trials and progress are the same for both.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import ray
from ray import tune
from ray.air._internal import usage
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from scale_ray.cell import Cell
from scale_ray.config import Execution, Resources
from scale_ray.records import Ran
from scale_ray.stage import Stage
from scale_ray.store import Store, StoreError
from scale_ray.store.leases import Driver
from scale_ray.store.orders import Orders
from scale_ray.sweep.cluster import Footprint, Slots, away_from_the_head, footprint, start_ray
from scale_ray.sweep.ending import ending_at_once, kill_ray
from scale_ray.sweep.handover import Handover
from scale_ray.sweep.leftovers import SCRATCH
from scale_ray.sweep.listener import Listener
from scale_ray.sweep.meter import Meter
from scale_ray.sweep.pickling import pickle_entries
from scale_ray.sweep.plan import prepare_data, prepare_features
from scale_ray.sweep.progress import StudyProgress
from scale_ray.sweep.push import share_data
from scale_ray.sweep.queue import StageQueue
from scale_ray.sweep.stopping import Stopping, end_if_ordered
from scale_ray.sweep.trainable import SAVED, train_stage
from scale_ray.training.failures import TrainingHung, explained, failed
from scale_ray.training.setup import find_device

logger = logging.getLogger(__name__)

# Seconds until the first message about work that cannot start, and between two such messages.
_FIRST_MESSAGE, _REPEAT_MESSAGE = 10.0, 60.0

# Seconds between two accounts of what trains, for the driver's heartbeats.
_TOLD_SECONDS = 2.0

# Bytes of memory that Ray counts for a driver of Ray Train and its helpers: what they take.
_DRIVER_MEMORY = 430 * 10**6


class WorkSource(Protocol):
    """Says which stage comes next, how many may run at once, and when everything has ended.

    Attributes:
        queue: leases stages and knows which of them run.
        reads: stages whose data and features are prepared before the first trial starts.
    """

    queue: StageQueue
    reads: Sequence[Stage]

    @property
    def over(self) -> bool:
        """Whether every stage has ended and no other will come."""

    def next(self) -> Stage | None:
        """The next stage to start, leased; None where all that is left has to wait."""

    def assignment(self, stage: Stage) -> dict[str, Any]:
        """The Tune trial's config: `stage` is the key."""

    def ended(self, stage: Stage, result: Mapping[str, Any] | None) -> None:
        """The stage has ended, with its last reported metrics; None where it failed."""

    def room(self, slots: Slots) -> int:
        """How many stages may be handed out at once."""


def work_off(
    name: str,
    source: WorkSource,
    store: Store,
    driver: Driver,
    execution: Execution,
    resources: Resources,
    progress: StudyProgress,
    console: Console,
    scheduler: TrialScheduler | None = None,
    orders: Callable[[], Orders] | None = None,
    listeners: Sequence[Listener] = (),
    meter: Meter | None = None,
) -> None:
    """Run the stages of a source on Ray until it is over, or until Ctrl-C, an order to stop or the end of its budget.

    Args:
        name: of the study or search, for Ray Tune.
        driver: this process's leases on the store.
        progress: shows what happens.
        scheduler: may stop trials early; by default none is stopped.
        orders: the latest ones to this study; None where nobody gives any.
        listeners: hear what becomes of the stages, as `progress` does.
        meter: orders to stop when its budget is spent; None: no budget.

    Raises:
        UserError: the data or the weights cannot be used, or no node can ever hold a trial. Nothing has run then.
        StoreError: the store can no longer be written to.
    """
    if resources.address == "local":
        find_device(execution.device)  # on a cluster, this machine need not have the device of the trials
    stopping = None if orders is None and meter is None else Stopping(f"scale_ray:stop:{driver.id}")
    given: Callable[[], Orders] = orders or Orders
    budget_alone: Callable[[], Orders] = Orders
    if meter is not None:
        given, budget_alone = meter.orders(given, source.queue), meter.orders(Orders, source.queue)
    check = partial(end_if_ordered, given, source.queue)
    # Without a cluster, nobody asks for the orders of others before the trainings: see `StopSignal`.
    check_budget = partial(end_if_ordered, budget_alone, source.queue)
    handover = Handover()
    try:
        joined = start_ray(resources, console)
        with ending_at_once(driver):
            needs = footprint(resources, execution.device, console, cluster=joined, check=check)
            if meter is not None:
                meter.begin(needs)
            if joined:
                share_data(source.reads, execution.root, store, driver, check)
            else:
                prepare_data(source.reads, execution.root, check_budget)
        if not joined and "GPU" not in needs.bundle:
            # All CPUs of this machine are still free. On a cluster or a GPU, the first trials compute features.
            prepare_features(source.reads, execution, store, check_budget)
        execution = execution.model_copy(update={"threads": resources.cpus})
        trainable = _trainable(handover, execution, store, needs, None if stopping is None else stopping.flag)
        slots = Slots(needs, cluster=joined, alone=lambda: driver.alone)
        events = _Events(
            name, driver, source, handover, slots, progress, listeners, store, execution, needs.ran, given, stopping
        )
        # A driver of Ray Train waits for its workers and does not notice a stop: with its actor, the workers end too.
        reuse_actors = scheduler is None or not needs.through_train
        with ending_at_once(driver):  # from here on: Ray installs signal handlers of its own when it starts
            search = _Search(handover, source, slots, given)
            _fit(name, trainable, search, events, store, driver, scheduler, reuse_actors=reuse_actors)
    except KeyboardInterrupt:
        # Tune would wait for what trains. A kill loses no more: steps since the last checkpoint.
        kill_ray(but_its_store=True)
    finally:
        if ray.is_initialized():
            for key in source.queue.handed_out:
                handover.take_back(key)
            if stopping is not None:
                stopping.end()
        ray.shutdown()  # a Ray that was started here ends


def _trainable(handover: Handover, execution: Execution, store: Store, needs: Footprint, stop_flag: str | None) -> Any:
    """What Ray Tune calls with each assignment."""
    common: dict[str, Any] = {
        "handover": handover.name,
        "execution": execution,
        "store": store.location,
        "entries": pickle_entries(),
        "stop_flag": stop_flag,
    }
    if not needs.through_train:
        return tune.with_resources(tune.with_parameters(train_stage, **common), dict(needs.bundle))
    from scale_ray.sweep.group_cleaner import start_cleaner
    from scale_ray.sweep.train_driver import drive_stage

    drive = tune.with_parameters(drive_stage, needs=needs, groups=start_cleaner(), **common)
    place = tune.PlacementGroupFactory([{"memory": _DRIVER_MEMORY}], bundle_label_selector=[away_from_the_head()])
    return tune.with_resources(drive, place)


def _fit(
    name: str,
    trainable: Any,
    search: Searcher,
    events: "_Events",
    store: Store,
    driver: Driver,
    scheduler: TrialScheduler | None,
    *,
    reuse_actors: bool,
) -> None:
    """Let Ray Tune run what the search suggests until it says that it has finished.

    Actors are reused, because a new one would import torch again. The driver's id names Tune's own files.
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
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            verbose=0,
            callbacks=[events],
            progress_reporter=tune.CLIReporter(),  # silent; in a notebook, Tune's default clears what is shown
        ),
    )
    # For its statistics of use, Tune would import every tracker that is installed: 1.3 s with MLflow and W&B.
    uncounted = mock.patch.object(usage, "tag_callbacks", return_value=False)
    try:
        with events.progress, uncounted:
            tuner.fit()
    except Exception:
        store.prove_writable()  # a full or read-only disk ends Ray Tune in many ways: report the cause instead
        raise
    try:
        store.files.delete_folder(scratch)
    except StoreError as error:
        logger.warning("%s", error)


class _Search(Searcher):
    """Hands the stages of a source to Ray Tune. Nothing is saved for a restore: the store says what is left to do."""

    def __init__(self, handover: Handover, source: WorkSource, slots: Slots, orders: Callable[[], Orders]):
        super().__init__()
        self._handover, self._source, self._slots, self._orders = handover, source, slots, orders

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        source = self._source
        if source.over:
            return Searcher.FINISHED
        if source.queue.running >= self._room():
            return None
        stage = source.next()
        if stage is not None:
            self._handover.give(stage)
            return source.assignment(stage)
        return Searcher.FINISHED if source.over else None

    def _room(self) -> int:
        orders, room = self._orders(), self._source.room(self._slots)
        return 0 if orders.stop else room if orders.places is None else min(room, orders.places)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a grid wants all of its cells, and a search stops trials by its scheduler."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `_Events` tells the source."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing, see the class."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see the class."""


class _Events(tune.Callback):
    """What Ray Tune reports, passed on to the queue, the source and the listeners, of which the display is one."""

    def __init__(
        self,
        name: str,
        driver: Driver,
        source: WorkSource,
        handover: Handover,
        slots: Slots,
        progress: StudyProgress,
        listeners: Sequence[Listener],
        store: Store,
        execution: Execution,
        ran: Ran,
        orders: Callable[[], Orders],
        stopping: Stopping | None,
    ):
        self.progress, self._told = progress, (progress, *listeners)
        self._name, self._driver, self._next_told = name, driver, 0.0
        self._orders, self._stopping = orders, stopping
        self._source, self._queue, self._handover, self._slots = source, source.queue, handover, slots
        self._store, self._execution, self._ran = store, execution, ran
        self._next_message = time.monotonic() + _FIRST_MESSAGE

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() > self._next_message and not self._queue.started:
            self._next_message = time.monotonic() + _REPEAT_MESSAGE
            if lack := self._slots.lack():
                self.progress.say(f"waiting: {lack}")
        self.progress.tick()
        if time.monotonic() > self._next_told:
            self._next_told = time.monotonic() + _TOLD_SECONDS
            self._driver.doing = self.progress.doing(self._name)
        if self._stopping is not None and (orders := self._orders()).stop:
            if not self._stopping.begun:
                self.progress.say(f"{orders.why}: every training saves its state first")
            self._stopping.begin()
            self._stopping.check(self._queue.training)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        stage = self._queue.stage(trial.config["stage"])
        for each in self._told:
            each.begun(stage)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        key = trial.config["stage"]
        self._queue.has_reported(key, int(result.get("step", 0)))
        if SAVED in result:
            self._queue.has_saved()
            if self._stopping is not None:
                self._stopping.saved(key)
        stage = self._queue.stage(key)
        for each in self._told:
            each.reported(stage, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial.config["stage"]
        self._handover.take_back(key)
        if self._queue.is_stopped(key):
            stage = self._queue.stopped(key)
            self._source.ended(stage, trial.last_result)
            for each in self._told:
                each.stopped(stage)
        else:
            stage = self._queue.finished(key)
            self._source.ended(stage, trial.last_result)
            for each in self._told:
                each.ended(stage)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial.config["stage"]
        report = Path(trial.error_file).read_text() if trial.error_file else ""
        self._handover.take_back(key)
        stage, again = self._queue.failed(key, lambda cells: self._explain(cells, report))
        self._source.ended(stage, None)
        reason = self._reason(stage)
        if again and not reason.startswith(TrainingHung.__name__):
            reason = ""  # of an earlier run
        for each in self._told:
            each.failed(stage, again=again, reason=reason)

    def _reason(self, stage: Stage) -> str:
        """`ValueError: its message` of the first cell's failure."""
        record = self._store.read_record(stage.waiting[0].id)
        if record is None or record.failure is None:
            return ""
        return f"{record.failure.kind}: {record.failure.message.partition(chr(10))[0]}"

    def _explain(self, cells: Sequence[Cell], report: str) -> None:
        """Write failed records for these cells, whose process ended without writing one."""
        last_line = report.strip().rpartition("\n")[2] or "its process died"
        failure = explained("TrialLost", f"ended without a record: {last_line}", report)
        for cell in cells:
            self._store.write_record(failed(cell, self._execution, failure, self._ran))
