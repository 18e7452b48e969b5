"""What a study wants, and what of it the store does not answer yet."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scale_ray.config import ConfigError, Execution, TrialConfig, field_paths
from scale_ray.data.cache import cpus
from scale_ray.identity import identity
from scale_ray.records import now
from scale_ray.store import PlannedCell, Store, StudyPlan, is_current
from scale_ray.study import Study, describe, estimate_seconds, seconds_per_step
from scale_ray.training.check import check_trial, open_data, trial_inputs
from scale_ray.training.features import features_key, open_inputs
from scale_ray.training.setup import freed_memory_kept
from scale_ray.training.stages import Stage, alone, stage_tree, stages_to_do


@dataclass(frozen=True)
class Plan:
    """All cells of a study, and those that this run is to do, in the same order."""

    study: StudyPlan
    todo: list[PlannedCell]
    answered: frozenset[str]  # ids of the cells that need no training
    failed_before: frozenset[str]  # ids whose last run left a failure; they are to do again
    tree: list[Stage]  # of all cells, each after its parent, whether or not this run shares
    stages: list[Stage]  # what must run for the cells to do, each after its parent

    @property
    def steps_to_do(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def steps_alone(self) -> int:
        """What the cells to do would take if none shared anything."""
        return sum(alone(cell).steps for cell in self.todo)

    def estimated_seconds(self, store: Store) -> float | None:
        """Seconds of training still to do, one after the other, judged by the store's records; None: no telling."""
        return estimate_seconds(
            ((stage.config, stage.steps) for stage in self.stages), seconds_per_step(store.records())
        )


def plan_study(
    study: Study,
    store: Store,
    root: Path | None,
    *,
    limit: int | None = None,
    with_models: bool = False,
    share: bool = True,
    command: str | None = None,
) -> Plan:
    """Expand a study, check every cell, and ask the store what is missing.

    Args:
        study: what is wanted.
        store: what there is.
        root: folder of an image benchmark.
        limit: do only the first so many cells; the others stay planned, and so are holes in the report.
        with_models: a cell whose model is not stored is to do again.
        share: train what cells have in common once.
        command: what a person typed, for the report to say what to run again.

    Raises:
        ConfigError: a cell names something that does not exist. Nothing has run then.
        StoreError: a record cannot be read.
    """
    cells = []
    for config in study.cells():
        checked = check_trial(config)
        cells.append(PlannedCell(id=identity(checked, trial_inputs(checked, root)), config=checked))
    _refuse_twins(study.name, cells)
    answered, failed_before = _ask(store, cells, with_models)
    todo = [cell for cell in cells[:limit] if cell.id not in answered]
    tree = stage_tree(cells, root)
    stored = frozenset(store.stage_keys())
    return Plan(
        study=StudyPlan(name=study.name, created=now(), cells=cells, command=command),
        todo=todo,
        answered=answered,
        failed_before=failed_before,
        tree=tree,
        stages=stages_to_do(tree, todo, stored) if share else [alone(cell) for cell in todo],
    )


def _ask(store: Store, cells: Sequence[PlannedCell], with_models: bool) -> tuple[frozenset[str], frozenset[str]]:
    """Ids of the cells that the store answers, and of those whose last run left a failure.

    No record is kept: those of 100,000 cells would take gigabytes.
    """
    present = set(store.record_ids())
    answered, failed = set(), set()
    for record in store.records(cell.id for cell in cells if cell.id in present):
        if record.status == "failed":
            failed.add(record.id)
        if is_current(record) and (not with_models or store.has_model(record.id)):
            answered.add(record.id)
    return frozenset(answered), frozenset(failed)


def _refuse_twins(study: str, cells: Sequence[PlannedCell]) -> None:
    """Two configs can be one trial: another number of workers is no other one where BatchNorm is frozen."""
    seen: dict[str, PlannedCell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.id, cell)
        if twin is not cell:
            fields = [path for path in field_paths() if twin.config.value(path) != cell.config.value(path)]
            raise ConfigError(
                f"study {study!r} plans one trial twice ({describe(cell.config)}): its cells differ only in "
                f"{', '.join(fields)}, which changes no result here; keep one value"
            )


def keys_still_needed(plan: Plan, done: Collection[str]) -> frozenset[str]:
    """Keys under which the store may hold states that some cell, not `done`, goes on from: stages, and cells alone."""
    undone = {cell.id for cell in plan.study.cells} - set(done)
    return frozenset(undone).union(stage.key for stage in plan.tree if any(cell.id in undone for cell in stage.waiting))


def keys_of(plan: Plan) -> frozenset[str]:
    """Keys under which the store may hold states for any of this plan's cells."""
    return keys_still_needed(plan, ())


def prepare_data(plan: Plan, root: Path | None) -> None:
    """Decode what the stages to do will read, once, so that trials only map it.

    Raises:
        ValueError: folders, classes or images are not as they must be. Nothing has run then.
    """
    seen = set()
    for stage in plan.stages:
        data = stage.config.data
        key = (data.benchmark, data.source, stage.targets, data.resize, data.corrupt)
        if key not in seen:
            seen.add(key)
            open_data(stage.config, stage.targets, root)


def prepare_features(wanted: Iterable[tuple[TrialConfig, Sequence[str]]], execution: Execution, store: Store) -> None:
    """Compute, on every CPU of this process, the features that trainings of a frozen encoder will read.

    Args:
        wanted: configs, each with its targets; one whose encoder is trained asks for nothing.

    Raises:
        ValueError: the weights cannot be used. No cell has run then.
    """
    seen: frozenset[str] = frozenset()
    here = execution.model_copy(update={"threads": cpus(), "device": "cpu"})
    with freed_memory_kept():
        for config, targets in wanted:
            if config.model.encoder == "trained":
                continue
            keys = frozenset(features_key(config, domain, execution.root) for domain in (config.data.source, *targets))
            if not keys <= seen:
                seen |= keys
                open_inputs(config, targets, here, store)
