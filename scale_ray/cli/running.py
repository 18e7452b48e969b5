"""A study on the command line is planned, run and reported."""

from typing import TYPE_CHECKING

import typer

from scale_ray.cli.console import console
from scale_ray.cli.interrupt import GO_ON, on_ctrl_c
from scale_ray.cli.options import GridOptions, StudyOptions
from scale_ray.cli.read import command_line
from scale_ray.cli.report import report
from scale_ray.cli.stop_signal import stop_signal
from scale_ray.cli.track import show_report
from scale_ray.config import ConfigError, Execution, Resources
from scale_ray.records import SET_VALIDATOR_NAMES
from scale_ray.report.read.labels import count
from scale_ray.store import Store
from scale_ray.study import Study
from scale_ray.sweep.meter import Meter

if TYPE_CHECKING:
    from scale_ray.sweep.plan import Plan
    from scale_ray.sweep.run import Outcome
    from scale_ray.track import Tracker


def run_and_report(
    study: Study,
    execution: Execution,
    grid: GridOptions,
    ray: StudyOptions,
    choose: str | None = None,
    meter: Meter | None = None,
    *,
    with_report: bool = True,
) -> None:
    """Print the plan of a study; unless it is a dry run, run what is missing and write the report, if it is wanted.

    Args:
        choose: the validator that names the method and setting to use, among the study's cells.
        meter: of the run's budget; None: no limit.
    """
    how = run_planned if study.until is None else _run_until
    outcome = how(study, execution, grid, ray, choose, meter)
    if outcome is None:
        return
    store = Store(ray.store)
    spent = meter is not None and meter.over
    if outcome.interrupted and not spent:
        console.print(
            f"interrupted with {outcome.interrupted} cells to do: run the same command again to go on; "
            f"`scale-ray report {store.location}` shows what is done"
        )
        raise typer.Exit(stop_signal.exit_status)
    if meter is not None:
        console.print(f"spent {meter.budget.told(meter.spent)} of {meter.budget.told()}")
    if with_report:
        on_ctrl_c(f"all records are kept; `scale-ray report {store.location}` makes the report")
        choose = choose if outcome.done else None  # of nothing there is no choice, and why is said below
        report(store.location, choose=choose, study=study.name if choose else None)
        show_report(ray.track or (), store, study.name)
    if outcome.interrupted:
        left = count(outcome.interrupted, "cell")
        again = "as large a budget again" if stop_signal.progressed else "a larger budget: nothing was trained"
        console.print(f"{left} to do: the same command goes on, with {again}")
    if outcome.failed:
        where = "the report" if with_report else f"`scale-ray report {store.location}`"
        console.print(
            f"{outcome.failed} cells failed, their reasons are in {where}: mend the causes, then run the same "
            "command again"
        )
        raise typer.Exit(1)


def run_planned(
    study: Study,
    execution: Execution,
    grid: GridOptions,
    ray: StudyOptions,
    choose: str | None = None,
    meter: Meter | None = None,
) -> "Outcome | None":
    """Print the plan of a study; unless it is a dry run, run what is missing.

    Args:
        choose: the validator that is to choose, whose predictions every cell must then have or get.
        meter: of the run's budget; None: no limit.

    Returns:
        How the cells ended; None for a dry run.
    """
    resources, trackers = ray.resources(study.base.parallel.workers), ray.trackers()
    plan = _plan(study, execution, grid, ray, choose, meter)
    return None if ray.dry_run else _run(plan, Store(ray.store), execution, resources, trackers, meter)


def _run_until(
    study: Study,
    execution: Execution,
    grid: GridOptions,
    ray: StudyOptions,
    choose: str | None,
    meter: Meter | None,
) -> "Outcome | None":
    """As `run_planned`, and then with more seeds for what is not decided."""
    from scale_ray.track import check_targets
    from scale_ray.until import Rounds, run_rounds

    rounds, resources = Rounds(study), ray.resources(study.base.parallel.workers)
    check_targets(ray.track or ())
    if ray.dry_run:
        _plan(study, execution, grid, ray, choose, meter)
        console.print(f"then more seeds for what is not decided: {rounds.most_cells():,} cells at most")
        return None
    store = Store(ray.store, create=True)

    return run_rounds(
        rounds,
        store,
        lambda each: _plan(each, execution, grid, ray, choose, meter),
        lambda plan: _run(plan, store, execution, resources, ray.trackers(), meter),
        lambda rounds: rounds.tell(console),
    )


def _plan(
    study: Study,
    execution: Execution,
    grid: GridOptions,
    ray: StudyOptions,
    choose: str | None,
    meter: Meter | None,
) -> "Plan":
    """The plan of a study, printed."""
    from scale_ray.cli.plans import print_budget, print_methods, print_plan
    from scale_ray.sweep.plan import describe_leaving, plan_study

    stop_signal.heed()
    store = Store(ray.store, create=not ray.dry_run, missing_ok=ray.dry_run)
    plan = plan_study(
        study,
        store,
        execution.root,
        limit=grid.limit,
        beside=execution.beside,
        share=grid.sharing,
        command=command_line(),
        seeds_first=meter is not None,
    )
    if choose in SET_VALIDATOR_NAMES and not execution.keep_predictions:
        _refuse_lacking(plan, store, choose)
    if ray.dry_run and "method" in study.axes:
        print_methods(study)
    print_plan(plan, store, whole=ray.dry_run)
    if meter is not None and plan.todo:
        print_budget(plan, meter.budget, ray.resources(study.base.parallel.workers), execution.device)
    if ray.dry_run and plan.leaving:
        console.print(f"warning: {describe_leaving(plan.study.name, plan.leaving)}")
    return plan


def _run(
    plan: "Plan",
    store: Store,
    execution: Execution,
    resources: Resources,
    trackers: "dict[str, Tracker]",
    meter: Meter | None,
) -> "Outcome":
    from scale_ray.tracked import run_tracked

    on_ctrl_c(GO_ON)
    outcome = run_tracked(plan, store, execution, resources, console, trackers, stop_signal, meter)
    stop_signal.progressed |= outcome.progressed
    return outcome


def _refuse_lacking(plan: "Plan", store: Store, choose: str) -> None:
    """Refuse a choice that reads predictions of cells that have none and will get none."""
    stored = set(store.predictions_ids())
    lacking = sum(cell.id not in stored for cell in plan.study.cells)
    if lacking:
        raise ConfigError(
            f"--choose {choose} reads stored predictions, which {lacking:,} of {len(plan.study.cells):,} cells lack: "
            "add --keep-predictions (cells that are done without them are trained again)"
        )
