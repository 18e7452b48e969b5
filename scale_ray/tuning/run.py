"""Run a search: Optuna asks for settings, Ray Tune trains their cells, the store keeps what comes back.

One driver owns a search, by a lease on its name; the cells are leased one by one, as those of any study.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.tune.search import Searcher
from rich.console import Console

from scale_ray.config import ConfigError, Execution
from scale_ray.records import ORACLE, now
from scale_ray.store import Store, StudyPlan
from scale_ray.store.leases import Driver
from scale_ray.study import Setting
from scale_ray.sweep.cluster import Places, Resources, footprint, leave_ray, start_ray
from scale_ray.sweep.plan import prepare_features
from scale_ray.sweep.progress import StudyProgress, duration
from scale_ray.sweep.queue import StageQueue
from scale_ray.sweep.run import (
    Bookkeeping,
    computes_features_first,
    ending_like_ctrl_c,
    fit,
    stage_trainable,
    sweep_store,
)
from scale_ray.training.check import open_data
from scale_ray.training.setup import find_device
from scale_ray.training.stages import Stage, alone, branch
from scale_ray.tuning.early_stop import EarlyStop
from scale_ray.tuning.optuna_study import folder, open_study
from scale_ray.tuning.results import importance, keys_of_search, planned_cells, settings_of
from scale_ray.tuning.search import Search
from scale_ray.tuning.settings import Settings
from scale_ray.tuning.space import warm_ups_meet


@dataclass(frozen=True)
class Found:
    """What a search has found so far."""

    settings: list[Setting]
    importance: dict[str, float]  # by dotted path, sums to 1; empty where too few settings are done
    left: int  # settings that have not ended, or were not asked for yet


def run_search(
    search: Search, store: Store, url: str | None, execution: Execution, resources: Resources, console: Console
) -> Found:
    """Train settings until as many as are wanted have ended. The same call goes on after Ctrl-C or a kill.

    Args:
        url: of the data base that keeps the Optuna study; None keeps it in the store.

    Raises:
        ConfigError: another driver runs this search, it was begun as another one, or nothing can be trained like this.
    """
    if (resources.workers or 1) != search.base.parallel.workers:
        raise ConfigError("parallel.workers: give --workers-per-trial")
    store.files.make_folders([folder(search.name)])
    with Driver(store.files) as driver:
        _own(driver, search.name)
        study = open_study(store, search.name, url, search.spec())
        settings = Settings(search, study, store)
        if settings.begun:
            ended = settings.begun - settings.open
            console.print(f"going on: {ended} of {search.settings} settings ended before, {settings.open} were begun")
        if not settings.over:
            store.write_plan(StudyPlan(name=search.name, created=now(), cells=planned_cells(search, study)))
            _work_off(settings, search, store, execution, resources, driver, console)
        store.write_plan(StudyPlan(name=search.name, created=now(), cells=planned_cells(search, study)))
        sweep_store(store, driver, keys_of_search(search, study) if settings.over else frozenset())
        return Found(settings_of(search, study, store), importance(study), settings.left)


def _own(driver: Driver, name: str) -> None:
    key = f"tuning-{name}"
    if driver.acquire(key):
        return
    holder = driver.holder(key)
    who = f"{holder.host}, pid {holder.pid}, since {holder.since}" if holder else "one that has just begun"
    raise ConfigError(
        f"another driver runs the search {name!r} on this store ({who}): wait for its end, or give another --name; "
        "if it was killed elsewhere, its search is free after a minute"
    )


def _work_off(
    settings: Settings,
    search: Search,
    store: Store,
    execution: Execution,
    resources: Resources,
    driver: Driver,
    console: Console,
) -> None:
    if resources.address == "local":
        find_device(execution.device)  # elsewhere the driver's machine need not have what the trials' have
    cells = [search.cell({}, repeat) for repeat in search.repeats]
    for cell in cells:
        open_data(cell.config, [cell.config.data.target], search.root)
    queue = StageQueue([], store, driver, with_models=execution.keep_model)
    progress = SearchProgress(settings, search, console)
    bridge = _Bridge(settings, queue)
    scheduler = None
    if search.early_stop != "none":
        scheduler = EarlyStop(
            search.early_stop,
            metric_of(search.validator),
            search.base,
            seed=search.seed,
            curves=settings.curves(),
            on_point=bridge.point,
            on_stop=bridge.stop,
        )
    try:
        cluster = start_ray(resources, console)
        needs = footprint(resources, execution.device, console, cluster=cluster)
        if computes_features_first(cluster, needs):
            prepare_features(((cell.config, [cell.config.data.target]) for cell in cells), execution, store)
        execution = execution.model_copy(update={"threads": resources.cpus})
        places = Places(needs)
        searcher = CellSearch(
            search,
            settings,
            queue,
            partial(_room, queue, places, search.parallel, needs.through_train),
            progress.announce,
        )
        bookkeeping = _SettingsBookkeeping(bridge, settings, queue, places, progress, store, execution, needs.ran)
        with ending_like_ctrl_c():
            trainable = stage_trainable({}, execution, store, needs)
            # A driver of Ray Train waits for its workers and hears of no stop: with its actor, they end too.
            reuse = scheduler is None or not needs.through_train
            fit(search.name, trainable, searcher, [progress, bookkeeping], store, driver, scheduler, reuse)
    except KeyboardInterrupt:  # before Ray Tune has begun; later it takes care of that
        return
    finally:
        leave_ray()


def _room(queue: StageQueue, places: Places, parallel: int | None, through_train: bool) -> int:
    """How many stages may be out at once: one more than fit, so that an actor that ends finds the next one there.

    No more: every result may make what comes next another. And one at least: where all trials have ended Tune does
    nothing but ask for the next, so that what a stopped one still holds would never be given back.
    """
    fitting = max(1, queue.started + places.free() + (0 if through_train else 1))
    return fitting if parallel is None else min(fitting, parallel)


def metric_of(validator: str) -> str:
    """What a point of the curve calls the validator's score as Ray Tune sees it."""
    return "target_accuracy" if validator == ORACLE else f"validator_{validator}"


class _Bridge:
    """Between the queue, which knows stages, and the settings, which know cells."""

    def __init__(self, settings: Settings, queue: StageQueue):
        self._settings, self._queue = settings, queue
        self.stopped: set[str] = set()  # stages that end early, and have not ended yet

    def look(self) -> None:
        """Tell the settings of all cells that have ended, here or with another driver."""
        for cell in self._settings.out:
            if cell in self._queue.done or cell in self._queue.failed_cells:
                self._settings.ended(cell)

    def point(self, stage: str, step: int, value: float) -> None:
        self._settings.add_point(stage, step, value)  # a cell's last stage has the cell's id as its key

    def stop(self, stage: str, step: int) -> None:
        self._settings.stop(stage, step)
        self.stopped.add(stage)


class CellSearch(Searcher):
    """Suggests the stages of the cells that the settings want next.

    Args:
        search: what is searched.
        settings: say which cell is next.
        queue: says which of its stages may run.
        places: how many stages may be out at once.
        on_stage: told of each stage before it is suggested, with its title.
    """

    def __init__(
        self,
        search: Search,
        settings: Settings,
        queue: StageQueue,
        places: Callable[[], int],
        on_stage: Callable[[Stage, str], None] = lambda stage, title: None,
    ):
        super().__init__()
        self._settings, self._queue, self._places, self._on_stage = settings, queue, places, on_stage
        self._bridge = _Bridge(settings, queue)
        self._share = warm_ups_meet(search.space, search.base)
        self._root = search.root

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore that the Optuna study makes needless."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        while True:
            self._bridge.look()
            if self._settings.over and self._queue.over:
                return Searcher.FINISHED
            if self._queue.running >= self._places():
                return None
            stage = self._queue.next()
            if stage is not None:
                return self._point(stage)
            self._bridge.look()
            if self._queue.ready:  # another driver works on it
                return None
            cell = self._settings.next()
            if cell is not None:
                added = branch(cell, self._root) if self._share else [alone(cell)]
                self._queue.add(added, keep=[each.key for each in added[:-1]])
            elif not (self._settings.over and self._queue.over):
                return None

    def _point(self, stage: Stage) -> dict[str, Any]:
        """The stage travels in the point: trials were told what is common to all when none of it was known."""
        cell = stage.waiting[0].id
        title = self._settings.title(cell)
        self._on_stage(stage, title if stage.ends else f"{title}, warm-up")
        setting, repeat = self._settings.place(cell)
        point = {"stage": stage.key, "work": stage}
        return point | {"setting": setting} if stage.ends and repeat == 0 else point

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler decides on curves."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the store says how cells ended."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a repeated run goes on from the Optuna study."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


class _SettingsBookkeeping(Bookkeeping):
    """What a study's does, and it tells the settings."""

    def __init__(
        self,
        bridge: _Bridge,
        settings: Settings,
        queue: StageQueue,
        places: Places,
        progress: "SearchProgress",
        *rest: Any,
    ):
        super().__init__(queue, places, progress, *rest)
        self._bridge, self._settings, self._shown = bridge, settings, progress

    def demand(self) -> int:
        return self._settings.left  # all could be trained at once

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial.config["stage"]
        if key in self._bridge.stopped:
            self._bridge.stopped.remove(key)
            self._shown.stopped(self._queue.stopped(key))
            return
        stage = self._queue.finished(key)
        self._bridge.look()
        self._shown.ended(stage)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        super().on_trial_error(iteration, trials, trial, **info)
        self._bridge.look()


class SearchProgress(StudyProgress):
    """Counts settings, and shows the validator's score and no accuracy: who watches should not choose by that."""

    def __init__(self, settings: Settings, search: Search, console: Console):
        self._settings, self._metric = settings, metric_of(search.validator)
        self._validator = "oracle (target labels)" if search.validator == ORACLE else search.validator
        self._wanted, self._left_at_first = search.settings, settings.left
        self._of_search: dict[str, Stage] = {}
        self._titles: dict[str, str] = {}
        super().__init__(self._of_search, 0, console)

    def announce(self, stage: Stage, title: str) -> None:
        """This stage is the next to run."""
        self._of_search[stage.key] = stage
        self._titles[stage.key] = title

    def stopped(self, stage: Stage) -> None:
        """The rule has ended the stage at a point of its curve, and with it the setting."""
        result = self._end(stage)
        self.say(
            f"{self._title(stage)}: stopped at step {result['step']:,}, {self._figures(result)} [{self._counts()}]"
        )

    def _title(self, stage: Stage) -> str:
        return self._titles[stage.key]

    def _figures(self, result: Mapping[str, Any]) -> str:
        return f"{self._validator} {result[self._metric]:.4g}" if self._metric in result else "no score yet"

    def _share(self) -> tuple[int, int]:
        return self._wanted - self._settings.left, self._wanted

    def _counts(self) -> str:
        ended, wanted = self._share()
        best = self._settings.best()
        counts = f"{ended} of {wanted} settings ended, {self._settings.open} open"
        if best is not None:
            counts += f", best {self._validator} {best[1]:.4g} of setting {best[0]}"
        left = self._seconds_left()
        return f"{counts}, about {duration(left)} left" if left else counts

    def _seconds_left(self) -> float | None:
        """By the pace of this session's settings; None before the first has ended."""
        ended = self._left_at_first - self._settings.left
        return (time.monotonic() - self._began) / ended * self._settings.left if ended else None
