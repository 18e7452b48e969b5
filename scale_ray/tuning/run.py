"""Run a search: Optuna proposes settings, Ray trains their cells, the store keeps what comes back.

One driver owns a search, by a lease on its name. Cells are leased one by one, as those of any study.
"""

from dataclasses import dataclass

from rich.console import Console

from scale_ray.config import ConfigError, Execution, Resources
from scale_ray.records import now
from scale_ray.store import Store, StudyPlan
from scale_ray.store.leases import Driver
from scale_ray.sweep.engine import work_off
from scale_ray.sweep.leftovers import remove_leftovers
from scale_ray.sweep.queue import StageQueue
from scale_ray.tuning.early_stop import EarlyStop
from scale_ray.tuning.optuna_study import folder, open_optuna_study
from scale_ray.tuning.progress import SearchProgress, metric_of
from scale_ray.tuning.results import importance, keys_of_search, planned_cells, settings_of
from scale_ray.tuning.search import Search
from scale_ray.tuning.setting import Setting
from scale_ray.tuning.settings import SettingQueue
from scale_ray.tuning.source import SearchStages


@dataclass(frozen=True)
class Found:
    """What a search has found so far."""

    settings: list[Setting]
    importance: dict[str, float]  # by dotted path, with the sum 1; empty where too few settings are done
    left: int  # settings that have not ended, including those that were not asked for yet


def run_search(
    search: Search, store: Store, url: str | None, execution: Execution, resources: Resources, console: Console
) -> Found:
    """Train settings until as many as are wanted have ended. The same call goes on after Ctrl-C or a kill.

    Args:
        url: of the database that keeps the Optuna study; None keeps it in the store.

    Raises:
        ConfigError: another driver runs this search, it was begun with another spec, or it cannot be trained like this.
    """
    if resources.workers != search.base.parallel.workers:
        raise ConfigError(
            f"parallel.workers is {search.base.parallel.workers} and this run has {resources.workers}: set "
            "Resources.workers (--workers-per-trial)"
        )
    store.files.make_folders([folder(search.name)])
    with Driver(store.files) as driver:
        _own(driver, search.name)
        optuna_study = open_optuna_study(store, search.name, url, search.spec())
        settings = SettingQueue(search, optuna_study, store)
        if settings.begun:
            ended = settings.begun - settings.open
            console.print(f"going on: {ended} of {search.settings} settings ended before, {settings.open} were begun")

        def write_plan() -> None:
            cells = planned_cells(search, optuna_study)
            store.write_plan(StudyPlan(name=search.name, created=now(), cells=cells))

        if not settings.over:
            write_plan()
            _work_off(settings, search, store, execution, resources, driver, console)
        write_plan()
        remove_leftovers(store, driver, keys_of_search(search, optuna_study) if settings.over else frozenset())
        return Found(settings_of(search, optuna_study, store), importance(optuna_study), settings.left)


def _own(driver: Driver, name: str) -> None:
    key = f"tuning-{name}"
    if driver.acquire(key):
        return
    holder = driver.holder(key)
    who = f"{holder.host}, pid {holder.pid}, since {holder.since}" if holder else "one that has just begun"
    raise ConfigError(
        f"another driver runs the search {name!r} on this store ({who}): wait for its end, or give another --name; if "
        "it was killed on another machine, the search is free after a minute"
    )


def _work_off(
    settings: SettingQueue,
    search: Search,
    store: Store,
    execution: Execution,
    resources: Resources,
    driver: Driver,
    console: Console,
) -> None:
    source = SearchStages(search, settings, StageQueue([], store, driver, with_models=execution.keep_model))
    scheduler = None
    if search.early_stop != "none":
        scheduler = EarlyStop(
            search.early_stop,
            metric_of(search.validator),
            search.base,
            seed=search.seed,
            curves=settings.curves(),
            on_point=source.add_point,
            on_stop=source.stop,
        )
    progress = SearchProgress(settings, search, console)
    work_off(search.name, source, store, driver, execution, resources, progress, console, scheduler)
