"""The plan of a run: the cells of a study, and which of them the store does not answer yet."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scale_ray.cell import Cell
from scale_ray.config import Beside, ConfigError, Execution, Root, field_paths
from scale_ray.costs import CostKey, Measured, cost_key, estimate_seconds
from scale_ray.data.work import cpus
from scale_ray.records import now
from scale_ray.stage import Stage
from scale_ray.store import Store, StudyPlan, is_current
from scale_ray.study import Study, change_of, describe, differing_fields
from scale_ray.sweep.order import seed_after_seed
from scale_ray.training.features import features_key, open_data, open_inputs
from scale_ray.training.resolve import forget_inputs, resolve, without_unread
from scale_ray.training.setup import freed_memory_kept
from scale_ray.training.stages import alone, stage_tree, stages_to_do


@dataclass(frozen=True)
class Plan:
    """All cells of a study, and those that this run is to do, in the same order."""

    study: StudyPlan
    todo: list[Cell]
    answered: frozenset[str]  # ids of the cells that need no training
    failed_before: frozenset[str]  # ids whose last run left a failure; they are to do again
    lacking: Mapping[str, tuple[Beside, ...]]  # id of a cell to do that has its record -> what it lacks beside it
    tree: list[Stage]  # of all cells, each after its parent, even where this run shares nothing
    stages: list[Stage]  # what must run for the cells to do, each after its parent
    differing: list[str]  # fields in which the cells differ, for their titles
    leaving: frozenset[str]  # ids of cells without a result that the study's earlier plan has and this one lacks
    costs: Mapping[CostKey, float]  # seconds of a step, by the records of the store; empty where nothing is to do

    @property
    def steps_to_do(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def steps_alone(self) -> int:
        """The steps of the cells to do if no cell shared anything."""
        return sum(alone(cell).steps for cell in self.todo)

    @property
    def estimated_seconds(self) -> float | None:
        """Seconds of the training still to do, one stage after the other, estimated from the store's records.

        None where the records do not allow an estimate (see `costs.estimate_seconds`).
        """
        return estimate_seconds(((cost_key(stage.config), stage.steps) for stage in self.stages), self.costs)


def plan_study(
    study: Study,
    store: Store,
    root: Root | None,
    *,
    limit: int | None = None,
    beside: Collection[Beside] = (),
    share: bool = True,
    command: str | None = None,
    seeds_first: bool = False,
) -> Plan:
    """Expand a study, resolve every cell, and ask the store what is missing.

    Args:
        study: the cells that are wanted.
        store: holds the records.
        root: folder of an image benchmark.
        limit: run only the first `limit` cells; the others stay planned and are holes in the report.
        beside: train a cell again that lacks one of these files beside its record.
        share: train once what cells have in common.
        command: the command line, which the report shows so that a reader can run it again.
        seeds_first: train seed after seed, because the run may end before all of it (see `order.seed_after_seed`).

    Raises:
        UserError: a cell names something that does not exist, or its data cannot be read. Nothing has run then.
        StoreError: a record cannot be read.
    """
    forget_inputs()
    configs = study.cells()
    several = any("method" in change_of(axis, value) for axis, values in study.axes.items() for value in values[:1])
    configs = [without_unread(config, study.base, of_methods=several) for config in configs]
    cells = [resolve(config, root) for config in configs]
    _refuse_twins(study.name, cells)
    ids, measured = [cell.id for cell in cells], Measured()
    answered, failed_before, lacking = _ask(store, ids, beside, measured)
    todo = [cell for cell in cells[:limit] if cell.id not in answered]
    tree = stage_tree(cells)
    stored = frozenset(store.stage_keys())
    stages = stages_to_do(tree, todo, stored) if share else [alone(cell) for cell in todo]
    if seeds_first and stages:
        stages = seed_after_seed(stages, cells, None if study.until is None else study.until.baseline)
    if todo:  # what other studies have measured counts too
        for record in store.records({*store.record_ids()}.difference(ids)):
            measured.add(record)
    of_axes = {path for axis, values in study.axes.items() for value in values for path in change_of(axis, value)}
    told = {path for fields in study.usual.values() for path in fields} - of_axes  # by the method's name
    return Plan(
        study=StudyPlan(name=study.name, created=now(), cells=cells, until=study.until, command=command),
        todo=todo,
        answered=answered,
        failed_before=failed_before,
        lacking={cell.id: lacking[cell.id] for cell in todo if cell.id in lacking},
        tree=tree,
        stages=stages,
        differing=[path for path in differing_fields([cell.config for cell in cells]) if path not in told],
        leaving=leaving(store, study.name, set(ids)),
        costs=measured.seconds_per_step() if todo else {},
    )


def leaving(store: Store, study: str, planned: Collection[str]) -> frozenset[str]:
    """Ids of the cells without a result that the store's plan of this study has, and that are not `planned` now.

    A report shows them as holes for as long as a plan has them.
    """
    before = {cell.id for plan in store.plan_files([study]) for cell in plan.cells}
    gone = before.difference(planned)
    return frozenset(gone).difference(_ask(store, gone)[0]) if gone else frozenset()


def describe_leaving(study: str, cells: Collection[str]) -> str:
    """What leaving cells mean for the user."""
    number = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    return (
        f"the earlier plan of study {study!r} has {number} without a result that this one lacks: give another --name "
        "to keep both plans"
    )


def _ask(
    store: Store, cells: Iterable[str], beside: Collection[Beside] = (), measured: Measured | None = None
) -> tuple[frozenset[str], frozenset[str], dict[str, tuple[Beside, ...]]]:
    """Ids of the cells that the store answers, of those whose last run left a failure, and of those that lack files.

    Records are read one after the other: those of 100,000 cells together would take gigabytes. `measured` gets each.
    """
    answered, failed = set[str](), set[str]()
    lacking: dict[str, tuple[Beside, ...]] = {}
    for record in store.records(cells):
        if measured is not None:
            measured.add(record)
        if record.status == "failed":
            failed.add(record.id)
        if not is_current(record):
            continue
        if lacks := tuple(kind for kind in beside if not store.has_beside(record.id, [kind])):
            lacking[record.id] = lacks
        else:
            answered.add(record.id)
    return frozenset(answered), frozenset(failed), lacking


def _refuse_twins(study: str, cells: Sequence[Cell]) -> None:
    """Refuse two configs with one id, such as two numbers of workers where BatchNorm is frozen."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.id, cell)
        if twin is not cell:
            fields = [path for path in field_paths() if twin.config.value(path) != cell.config.value(path)]
            raise ConfigError(
                f"study {study!r} plans one trial twice ({describe(cell.config)}): its cells differ only in "
                f"{', '.join(fields)}, which does not change the result here: keep one value"
            )


def keys_still_needed(plan: Plan, done: Collection[str]) -> frozenset[str]:
    """Keys of all states in the store that a cell which is not `done` may go on from: of stages and of cells."""
    undone = {cell.id for cell in plan.study.cells} - set(done)
    return frozenset(undone).union(stage.key for stage in plan.tree if any(cell.id in undone for cell in stage.waiting))


def keys_of(plan: Plan) -> frozenset[str]:
    """Keys of all states in the store that may belong to a cell of this plan."""
    return keys_still_needed(plan, ())


def prepare_data(stages: Sequence[Stage], root: Root | None, check: Callable[[], None] = lambda: None) -> None:
    """Decode everything that the stages read, once, so that trials only map it into memory.

    Args:
        check: is called between two domain pairs. What it raises ends this.

    Raises:
        DataError: folders, classes or images are not as they must be. Nothing has run then.
    """
    for stage in reading_differently(stages):
        check()
        open_data(stage, root, None)


def reading_differently(stages: Sequence[Stage]) -> list[Stage]:
    """One stage of all those that read the same pixels."""
    seen: dict[tuple[object, ...], Stage] = {}
    for stage in stages:
        data = stage.config.data
        seen.setdefault((data.benchmark, *stage.digests.items(), data.resize, data.fit, data.corrupt), stage)
    return list(seen.values())


def prepare_features(
    stages: Sequence[Stage], execution: Execution, store: Store | None, check: Callable[[], None] = lambda: None
) -> None:
    """Compute the features that stages with a frozen encoder read, on all CPUs of this process.

    Args:
        check: is called between two domain pairs. What it raises ends this.

    Raises:
        UserError: the weights cannot be used. No cell has run then.
    """
    seen: frozenset[str] = frozenset()
    here = execution.model_copy(update={"threads": cpus(), "device": "cpu"})
    with freed_memory_kept():
        for stage in stages:
            if stage.config.model.encoder == "trained":
                continue
            keys = frozenset(features_key(stage, domain) for domain in stage.digests)
            if not keys <= seen:
                seen |= keys
                check()
                open_inputs(stage, here, store)
