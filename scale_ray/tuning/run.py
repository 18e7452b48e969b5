"""Run a search: Optuna proposes settings, Ray trains their cells, the store keeps what comes back.

One driver owns a search, by a lease on its name. It asks the store whether it still does before it asks Optuna for a
setting or tells it a result: a driver that was suspended may have lost the search. Cells are leased one by one, as
those of any study.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from scale_ray.config import ConfigError, Execution, Resources
from scale_ray.records import now
from scale_ray.store import Store, StoreError, StudyPlan
from scale_ray.store.leases import Driver
from scale_ray.store.orders import Orders
from scale_ray.sweep.engine import work_off
from scale_ray.sweep.leftovers import remove_leftovers
from scale_ray.sweep.plan import describe_leaving, leaving
from scale_ray.sweep.queue import StageQueue
from scale_ray.tuning.early_stop import EarlyStop
from scale_ray.tuning.optuna_study import folder, open_optuna_study
from scale_ray.tuning.planned import keys_of_search, planned_cells
from scale_ray.tuning.progress import SearchProgress, metric_of
from scale_ray.tuning.search import Search
from scale_ray.tuning.settings import SettingQueue
from scale_ray.tuning.source import SearchStages
from scale_ray.tuning.view import SearchView, view_of

# How often a search is asked for before it is refused, with up to a second between.
_TRIES = 4


@dataclass(frozen=True)
class Found:
    """What a search has found."""

    view: SearchView


@dataclass(frozen=True)
class Interrupted:
    """A search that ended before all of its settings did: after Ctrl-C, or by an order to stop."""

    progressed: bool  # whether this run has saved the state of a training, or has ended one


def run_search(
    search: Search,
    store: Store,
    url: str | None,
    execution: Execution,
    resources: Resources,
    console: Console,
    orders: Callable[[], Orders] | None = None,
) -> Found | Interrupted:
    """Train settings until as many as are wanted have ended. The same call goes on after Ctrl-C or a kill.

    Args:
        url: of the database that keeps the Optuna study; None keeps it in the store.
        orders: the latest ones to this search; None where nobody gives any.

    Raises:
        ConfigError: another driver runs this search, it was begun with another spec, or it cannot be trained like this.
        StoreError: another driver has taken the search over, so nothing was written since; or a file in the store
            cannot be read or written.
    """
    if resources.workers != search.base.parallel.workers:
        raise ConfigError(
            f"parallel.workers is {search.base.parallel.workers} and this run has {resources.workers}: set "
            "Resources.workers (--workers-per-trial)"
        )
    store.files.make_folders([folder(search.name)])
    with Driver(store.files) as driver:
        still_owned = _own(driver, search.name)
        optuna_study = open_optuna_study(store, search.name, url, search.spec())
        settings = SettingQueue(search, optuna_study, store, still_owned)
        if settings.begun:
            ended = settings.begun - settings.open
            console.print(f"going on: {ended} of {search.settings} settings ended before, {settings.open} were begun")

        if gone := leaving(store, search.name, keys_of_search(search, optuna_study)):
            console.print(f"warning: {describe_leaving(search.name, gone)}")

        def write_plan() -> None:
            cells = planned_cells(search, optuna_study)
            store.write_plan(StudyPlan(name=search.name, created=now(), cells=cells))

        progressed = False
        if not settings.over:
            write_plan()
            try:
                progressed = _work_off(settings, search, store, execution, resources, driver, console, orders)
            except Exception:
                still_owned()  # otherwise the error below may only follow from the loss
                raise
        still_owned()
        write_plan()
        remove_leftovers(store, driver, keys_of_search(search, optuna_study) if settings.over else frozenset())
        if settings.left:
            return Interrupted(progressed)
        return Found(view_of(optuna_study, store))


def _own(driver: Driver, name: str) -> Callable[[], None]:
    """Take the search; the result raises a StoreError once another driver has taken it over."""
    key = f"tuning-{name}"

    def who() -> str:
        holder = driver.holder(key)
        return f"{holder.host}, pid {holder.pid}, since {holder.since}" if holder else "one that has just begun"

    def still_owned() -> None:
        if not driver.alive_for_others():
            driver.beat()  # after a silence, which makes sure of the key
        if not driver.holds(key):
            raise StoreError(
                f"another driver has taken the search {name!r} over ({who()}), because this one was silent for too "
                "long: wait for its end; what ends here is not told to the search"
            )

    for _ in range(_TRIES):
        if driver.acquire(key):
            return still_owned
        time.sleep(random.random())  # two that begin at the same moment both give way
    raise ConfigError(
        f"another driver runs the search {name!r} on this store ({who()}): wait for its end, or give another --name; "
        "if it was killed on another machine, the search is free after a minute"
    )


def _work_off(
    settings: SettingQueue,
    search: Search,
    store: Store,
    execution: Execution,
    resources: Resources,
    driver: Driver,
    console: Console,
    orders: Callable[[], Orders] | None = None,
) -> bool:
    """Run the settings that are left; return whether that has saved the state of a training, or has ended one."""
    source = SearchStages(search, settings, StageQueue([], store, driver, beside=execution.beside))
    scheduler = None
    if search.early_stop != "none":
        scheduler = EarlyStop(
            search.early_stop,
            metric_of(search.validator),
            search.base,
            seed=search.seed,
            spared=settings.is_default,
            curves=settings.curves(),
            on_point=source.add_point,
            on_stop=source.stop,
        )
    progress = SearchProgress(settings, search, console)
    work_off(search.name, source, store, driver, execution, resources, progress, console, scheduler, orders=orders)
    return source.queue.progressed
