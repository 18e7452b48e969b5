"""A plan that is run while trackers show it."""

from collections.abc import Callable, Mapping

from rich.console import Console

from scale_ray.config import Execution, Resources
from scale_ray.store import Store
from scale_ray.store.orders import Orders
from scale_ray.sweep.meter import Meter
from scale_ray.sweep.plan import Plan
from scale_ray.sweep.run import Outcome, run_study
from scale_ray.track import Tracker, Tracking


def run_tracked(
    plan: Plan,
    store: Store,
    execution: Execution,
    resources: Resources,
    console: Console,
    trackers: Mapping[str, Tracker],
    orders: Callable[[], Orders] | None = None,
    meter: Meter | None = None,
) -> Outcome:
    """Run what a plan lacks, as `run_study` does, and tell trackers of it.

    At its end, that of its budget included, trackers show all that the study has. After an interruption they show
    what they have been told by then.

    Args:
        trackers: from `open_trackers`.
    """
    with Tracking(trackers, plan.study.name, plan.study.cells, store, console.print) as tracking:
        outcome = run_study(plan, store, execution, resources, console, orders, [tracking], meter)
        if not outcome.interrupted or (meter is not None and meter.over):
            tracking.complete(plan.answered)
    return outcome
