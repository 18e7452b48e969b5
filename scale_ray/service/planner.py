"""Plans a submission as the command line does, in a process of its own: planning takes torch, memory and time."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from threading import Lock

from pydantic import BaseModel, ConfigDict

from scale_ray.config import ConfigError
from scale_ray.costs import duration
from scale_ray.data.roots import read_root
from scale_ray.report.read.labels import count
from scale_ray.service.driver import Errand, write_errand
from scale_ray.service.settings import ServiceSettings
from scale_ray.service.submission import Submission, refuse_places
from scale_ray.store import Store
from scale_ray.sweep.plan import Plan, plan_study


class PlanAnswer(BaseModel):
    """What a submission comes to.

    Attributes:
        steps: training steps still to do, with what cells share counted once.
        steps_alone: the same if no cell shared anything.
        seconds: estimated, of one place; None where the store has no record that tells.
        text: all of it in a sentence.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    cells: int
    done: int
    to_do: int
    failed_before: int
    stages: int
    steps: int
    steps_alone: int
    seconds: float | None
    text: str


class Planner:
    """Plans one submission at a time."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._lock = Lock()

    def plan(self, submission: Submission, settings: ServiceSettings, *, keep: bool) -> PlanAnswer:
        """Plan it; with `keep`, leave plan and errand in its store, from where the study's driver reads them.

        Raises:
            UserError: it cannot be run as it is; the message says why.
        """
        with self._lock:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            try:
                return self._pool.submit(plan_submission, submission, settings, keep).result()
            except BrokenProcessPool:
                self._pool = None
                raise ConfigError(
                    "the process that plans studies has died, perhaps for lack of memory: submit a smaller study"
                ) from None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def plan_submission(submission: Submission, settings: ServiceSettings, keep: bool) -> PlanAnswer:
    """See `Planner.plan`; runs in its process."""
    location = _place("store", submission.store, settings.stores)
    root = None if submission.root is None else read_root(_place("root", submission.root, settings.roots), ())
    planned, most = submission.study.planned, settings.limits.cells
    if planned > most:
        raise ConfigError(f"{planned:,} cells, this service takes {most:,}: give fewer values")
    study = submission.study.study(settings.weights)
    for config in study.cells():
        refuse_places(config, settings.weights)
    execution, resources = submission.run.execution(root), submission.run.resources()
    store = Store(location, create=keep, missing_ok=not keep)
    plan = plan_study(study, store, execution.root, beside=execution.beside)
    if plan.leaving:
        raise ConfigError(
            f"study {study.name!r}: the store has an earlier plan of that name, which not this service made and whose "
            f"cells this one lacks ({len(plan.leaving):,} without a result): choose another name"
        )
    if keep:
        write_errand(store.files, Errand(study=study, execution=execution, resources=resources))
        store.write_plan(plan.study)
    return PlanAnswer(
        name=study.name,
        cells=len(plan.study.cells),
        done=len(plan.answered),
        to_do=len(plan.todo),
        failed_before=len(plan.failed_before),
        stages=len(plan.stages),
        steps=plan.steps_to_do,
        steps_alone=plan.steps_alone,
        seconds=plan.estimated_seconds if plan.todo else 0.0,
        text=_text(plan),
    )


def _text(plan: Plan) -> str:
    shared = f" ({plan.steps_alone:,} if none were shared)" if plan.steps_to_do < plan.steps_alone else ""
    seconds = plan.estimated_seconds
    cost = "its time is known once some steps are measured" if seconds is None else f"{duration(seconds)} one by one"
    return (
        f"{plan.study.name}: {count(len(plan.study.cells), 'cell')}, {len(plan.answered):,} done, "
        f"{len(plan.todo):,} to do, {plan.steps_to_do:,} steps{shared}{'; ' + cost if plan.todo else ''}"
    )


def _place(kind: str, name: str, known: Mapping[str, str]) -> str:
    if name not in known:
        raise ConfigError(
            f"{kind} {name!r}: the service knows none of that name: choose from {', '.join(known) or 'none'}, or ask "
            "its operator to add it"
        )
    return known[name]
