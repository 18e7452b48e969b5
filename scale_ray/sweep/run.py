"""Run what a study still lacks; the store keeps what comes back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from scale_ray.config import ConfigError, Execution, Resources
from scale_ray.store import Store
from scale_ray.store.leases import EXPIRY_SECONDS, Driver
from scale_ray.store.orders import Orders
from scale_ray.study import describe
from scale_ray.sweep.engine import work_off
from scale_ray.sweep.fixed import FixedStages
from scale_ray.sweep.leftovers import remove_leftovers
from scale_ray.sweep.listener import Listener
from scale_ray.sweep.meter import Meter
from scale_ray.sweep.plan import Plan, describe_leaving, keys_of, keys_still_needed
from scale_ray.sweep.progress import StudyProgress
from scale_ray.sweep.queue import StageQueue


@dataclass(frozen=True)
class Outcome:
    """How many cells of a run ended in which way."""

    done: int  # of the whole study
    failed: int
    interrupted: int  # planned for this run, and neither done nor failed
    progressed: bool  # whether this run has stored images or the state of a training, or has ended one


def run_study(
    plan: Plan,
    store: Store,
    execution: Execution,
    resources: Resources,
    console: Console,
    orders: Callable[[], Orders] | None = None,
    listeners: Sequence[Listener] = (),
    meter: Meter | None = None,
) -> Outcome:
    """Train every cell that is to do; each leaves its record when it ends.

    A cell that fails leaves a record with its error, and the others go on. After Ctrl-C or a kill, the same call goes
    on: finished cells are not trained again, unfinished ones continue from their checkpoints.

    Args:
        orders: the latest ones to this study; None where nobody gives any.
        listeners: hear what becomes of the stages.
        meter: stops the run as an order does when its budget is spent; None: no budget.

    Raises:
        UserError: the data cannot be used, or no node can hold a trial. No cell has run then.
        StoreError: the store can no longer be written to.
    """
    _check_workers(plan, resources)
    done, lost, progressed = set(plan.answered), set[str](), False
    with Driver(store.files) as driver:
        for other in driver.others():
            console.print(
                f"another driver works on this store ({other.host}, pid {other.pid}, since {other.since}): "
                "this run leaves the cells that it trains to it"
            )
        if plan.leaving:
            told = describe_leaving(plan.study.name, plan.leaving)
            if driver.others():
                console.print(f"waiting for a sign of life of other drivers, {EXPIRY_SECONDS:.0f} s or so at most")
                if driver.heard():
                    raise ConfigError(f"another driver works on this store, perhaps for them: {told}")
            console.print(f"warning: {told}")
        store.write_plan(plan.study)
        if plan.stages:
            queue = _work_off(plan, store, execution, resources, driver, console, orders, listeners, meter)
            done, lost, progressed = done | queue.done, queue.failed_cells, queue.progressed
        todo = {cell.id for cell in plan.todo}
        if left := todo - done - lost:  # after Ctrl-C; some may have left their records just before it
            there = left.intersection(store.record_ids())
            done |= {cell for cell in there if store.answers(cell, beside=execution.beside)}
        remove_leftovers(store, driver, keys_of(plan) - keys_still_needed(plan, done))
    return Outcome(len(done), len(lost), len(todo - done - lost), progressed)


def _check_workers(plan: Plan, resources: Resources) -> None:
    """Refuse cells whose number of workers is not that of the run."""
    for cell in plan.todo:
        if cell.config.parallel.workers != resources.workers:
            raise ConfigError(
                f"parallel.workers is {cell.config.parallel.workers} in {describe(cell.config)} and "
                f"{resources.workers} in this run: it cannot be an axis: set Resources.workers "
                "(--workers-per-trial), and run one study for each number"
            )


def _work_off(
    plan: Plan,
    store: Store,
    execution: Execution,
    resources: Resources,
    driver: Driver,
    console: Console,
    orders: Callable[[], Orders] | None,
    listeners: Sequence[Listener],
    meter: Meter | None,
) -> StageQueue:
    """Run the plan's stages; the queue says how they ended."""
    progress = StudyProgress(plan.stages, len(plan.answered), console, plan.differing, plan.costs)
    ended_here = frozenset(plan.answered) | {cell.id for cell in plan.todo}
    queue = StageQueue(
        plan.stages,
        store,
        driver,
        beside=execution.beside,
        keep=keys_still_needed(plan, ended_here),
        failed_before=plan.failed_before,
        on_answered=progress.answered,
    )
    progress.elsewhere = lambda: queue.elsewhere
    source = FixedStages(plan.stages, queue)
    work_off(
        plan.study.name,
        source,
        store,
        driver,
        execution,
        resources,
        progress,
        console,
        orders=orders,
        listeners=listeners,
        meter=meter,
    )
    return queue
