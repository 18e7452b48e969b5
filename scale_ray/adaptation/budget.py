"""What a time budget allows: some steps of each candidate are measured, and the cheapest are taken first."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from scale_ray.cell import Cell
from scale_ray.config import ConfigError, Execution, Resources, TrialConfig
from scale_ray.errors import shown
from scale_ray.methods import METHODS
from scale_ray.store import Store
from scale_ray.store.files import replace_file
from scale_ray.study import Change, Study
from scale_ray.sweep.measure import measure
from scale_ray.sweep.plan import Plan, plan_study
from scale_ray.training.candidates import affordable, cheapest
from scale_ray.training.resolve import resolve, without_unread
from scale_ray.training.stages import alone

_BESIDE = 1.2  # what evaluations, batches of other sizes and Ray add to the steps


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Decision(_Part):
    """Which candidates a budget allows, and why the others are left out."""

    kept: list[str]
    left_out: dict[str, str]


class Measurements(_Part):
    """Of trainings that run in one way.

    Attributes:
        slots: trainings at a time.
        seconds: id of a cell -> what its training takes.
    """

    slots: int = 1
    seconds: dict[str, float] = {}


class Notes(_Part):
    """What was measured and decided, so that the same command plans the same candidates.

    Attributes:
        measured: by how trainings run.
        decided: by the budget, how trainings run, and the cells of all candidates.
    """

    measured: dict[str, Measurements] = {}
    decided: dict[str, Decision] = {}


def within_budget(
    study: Study,
    budget: float | None,
    path: Path,
    store: Store,
    execution: Execution,
    resources: Resources,
    console: Console,
    *,
    leave: bool,
) -> tuple[Study, dict[str, str]]:
    """The study with the candidates that fit, cheapest first, and why the others do not.

    Args:
        study: without its axis `method`.
        budget: seconds that the trainings may take; None is no limit.
        path: of the notes.
        store: may have trainings that are done. They cost nothing.
        execution, resources: of the trainings.
        console: where it is printed what a training takes and what is left out.
        leave: write the notes and features.

    Raises:
        ConfigError: none fits, or the notes cannot be read.
    """
    found = affordable(study.base, study.usual)
    names = {_name_of(change, study): change for change in found.changes}
    left_out = dict(found.left_out)
    if budget is not None and names:
        plan = plan_study(_with(study, names), store, execution.root, beside=execution.beside)
        notes, ran = _read(path), _described(execution, resources)
        asked = json.dumps([budget, ran, sorted(cell.id for cell in plan.study.cells)])
        key = hashlib.sha256(asked.encode()).hexdigest()
        if key not in notes.decided:
            measured = notes.measured.setdefault(ran, Measurements())
            _measure(plan, measured, store if leave else None, execution, resources, console)
            notes.decided[key] = _decide(plan, measured, budget, console)
            if leave:
                replace_file(path, notes.model_dump_json(indent=1).encode())
        decided = notes.decided[key]
        names, left_out = {name: names[name] for name in decided.kept}, left_out | decided.left_out
    for name, reason in left_out.items():
        console.print(f"left out: {name}: {reason}")
    if not names:
        raise ConfigError("no candidate is left: raise --budget, or mend the settings that are named above")
    return _with(study, names), left_out


def _with(study: Study, names: Mapping[str, Change]) -> Study:
    return study.with_axes({"method": list(names.values())})


def _name_of(change: Change, study: Study) -> str:
    config = study.base.replace({**study.usual.get(str(change["method"]), {}), **change})
    return _name(without_unread(config, study.base))


def _name(config: TrialConfig) -> str:
    return config.approach if config.method == "scale" else config.variant


def _described(execution: Execution, resources: Resources) -> str:
    """How trainings run, as far as it changes what they take."""
    of_trainings = execution.model_dump(include={"device", "channels_last", "compile"})
    return json.dumps(of_trainings | resources.model_dump())


def _read(path: Path) -> Notes:
    try:
        return Notes.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Notes()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{shown(path)}: cannot be read ({type(error).__name__}): remove it; candidates are then measured again"
        ) from None


def _firsts(plan: Plan) -> dict[str, Cell]:
    """The first cell of each candidate, which stands for its others."""
    firsts: dict[str, Cell] = {}
    for cell in plan.study.cells:
        firsts.setdefault(_name(cell.config), cell)
    return firsts


def _measure(
    plan: Plan,
    known: Measurements,
    store: Store | None,
    execution: Execution,
    resources: Resources,
    console: Console,
) -> None:
    """Add what is not known of the candidates with trainings to do that train by steps.

    One worker stands for several: it does all the steps of a batch, so that the estimate is an upper bound.
    """
    todo = {_name(cell.config) for cell in plan.todo}
    wanted = {
        cell.id: alone(resolve(cell.config.replace({"parallel.workers": 1}), execution.root))
        for name, cell in _firsts(plan).items()
        if name in todo and METHODS[cell.config.method].learns and cell.id not in known.seconds
    }
    if wanted:
        found = measure(wanted, store, execution, resources, console)
        known.slots = found.slots
        for cell, seconds in found.seconds.items():
            known.seconds[cell] = seconds * wanted[cell].config.optim.steps * _BESIDE


def _decide(plan: Plan, measured: Measurements, budget: float, console: Console) -> Decision:
    """What the trainings that are to do take together decides."""
    todo = Counter(_name(cell.config) for cell in plan.todo)
    costs = {}
    for name, cell in _firsts(plan).items():
        seconds = measured.seconds.get(cell.id, 0.0) if todo[name] else 0.0
        console.print(f"{name}: about {seconds:,.0f} s a training" if todo[name] else f"{name}: trained already")
        costs[name] = seconds * todo[name] / measured.slots
    return affordable_within(costs, budget)


def affordable_within(costs: Mapping[str, float], budget: float) -> Decision:
    """The candidates that fit, cheapest first, and why the others do not.

    Args:
        costs: candidate -> seconds that its trainings still take.
        budget: seconds.
    """
    kept, left_out = cheapest(
        costs, budget, lambda cost, left: f"it takes about {cost:,.0f} s, and {left:,.0f} s of the budget are left"
    )
    return Decision(kept=kept, left_out=left_out)
