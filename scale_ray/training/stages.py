"""Work that cells share: the cells of a study as a tree of stages (docs/method.md, section 9).

A cell is a training of `optim.steps` steps, or of none where its method does not learn. Two kinds of work are exactly
the same for several cells:

- The warm-up of cells that train the same until its end: all combinations without `ssl` share one warm-up per source,
  all combinations with `ssl` share one per domain pair.
- A training that reads no target images: it is trained once and measured on every target.

A stage is trained once. Where other stages go on from it, it leaves its state in the store; where cells end in it, it
leaves their records. The randomness of a step is a function of (seed, stream, step), so records are bit for bit those
of cells that are trained alone.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.identity import identity
from scale_ray.methods import METHODS
from scale_ray.stage import Stage
from scale_ray.training.entries import read_by

_ANY_TARGET = "*"  # stands in a stage's key for a target that the training does not read


def alone(cell: Cell) -> Stage:
    """A cell that shares nothing: one stage from its first step to its last."""
    return Stage(cell.id, cell.config, 0, _steps(cell.config), None, _digests([cell]), (cell,), (cell,))


def branch(cell: Cell) -> list[Stage]:
    """A cell as its warm-up and the rest, for cells that come one by one, when the other cells are not known yet.

    Cells with the same warm-up and the same loss combination give it the same key.
    """
    final = alone(cell)
    prefix = METHODS[cell.config.method].warm_up(cell.config)
    if prefix is None or not 0 < _warm_steps(prefix) < final.last:
        return [final]
    trunk = _trunk(prefix, [final])
    return [trunk, replace(final, first=trunk.last, parent=trunk.key)]


def stage_tree(cells: Sequence[Cell]) -> list[Stage]:
    """The stages of these cells: each after its parent, otherwise in the order of the cells.

    Args:
        cells: all cells of a study, finished ones too: the tree of a study must not change while it is worked off.
    """
    finals = _merge_targets(cells)
    warm_ups: dict[str, list[Stage]] = {}
    prefixes: dict[str, TrialConfig] = {}
    for stage in finals:
        prefix = METHODS[stage.config.method].warm_up(stage.config)
        if prefix is not None and 0 < _warm_steps(prefix) < stage.last:
            name = _training(prefix, stage.waiting[0].inputs)
            prefixes.setdefault(name, prefix)
            warm_ups.setdefault(name, []).append(stage)
    trunks: dict[str, Stage] = {}
    for name, children in warm_ups.items():
        if len(children) > 1:
            trunk = _trunk(prefixes[name], children)
            trunks.update((stage.key, trunk) for stage in children)
    stages: dict[str, Stage] = {}
    for stage in finals:
        if stage.key in trunks:
            trunk = trunks[stage.key]
            stages.setdefault(trunk.key, trunk)
            stage = replace(stage, first=trunk.last, parent=trunk.key)
        stages[stage.key] = stage
    return list(stages.values())


def stages_to_do(tree: Sequence[Stage], todo: Sequence[Cell], stored: frozenset[str]) -> list[Stage]:
    """The stages of a tree that must run so that the cells `todo` get their records.

    A warm-up is not run by itself where its state is stored, or where only one stage still needs it.

    Args:
        tree: from `stage_tree`.
        todo: the cells that no record answers.
        stored: keys of the stages whose state the store has.
    """
    wanted = {cell.id for cell in todo}

    def only_wanted(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple(cell for cell in cells if cell.id in wanted)

    finals = {stage.key: stage for stage in tree if any(cell.id in wanted for cell in stage.ends)}
    children: dict[str, int] = {}
    for stage in finals.values():
        if stage.parent is not None:
            children[stage.parent] = children.get(stage.parent, 0) + 1
    trunks = {key for key, number in children.items() if number > 1 and key not in stored}
    kept = []
    for stage in tree:
        if stage.key in trunks:
            kept.append(replace(stage, waiting=only_wanted(stage.waiting)))
        elif stage.key in finals:
            shared = stage.parent in trunks or stage.parent in stored
            cells = only_wanted(stage.ends)
            first, parent = (stage.first, stage.parent) if shared else (0, None)
            kept.append(replace(stage, first=first, parent=parent, ends=cells, waiting=cells))
    return kept


def _merge_targets(cells: Sequence[Cell]) -> list[Stage]:
    """One stage for each training that ends in records: a cell, or all cells that differ only in an unread target."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        key = cell.id if _reads_target(cell.config) else _training(cell.config, cell.inputs)
        groups.setdefault(key, []).append(cell)
    stages = []
    for key, group in groups.items():
        first, members = group[0], tuple(group)
        name = first.id if len(group) == 1 else _state_key(key, members)
        stages.append(Stage(name, first.config, 0, _steps(first.config), None, _digests(members), members, members))
    return stages


def _trunk(prefix: TrialConfig, children: Sequence[Stage]) -> Stage:
    """The warm-up that all these stages go on from, with the state that any of them keeps (teacher, statistics)."""
    terms = dict(prefix.losses.terms)
    for child in children:
        for name in child.config.losses.terms:
            terms.setdefault(name, 1.0)
    config = prefix.replace({"losses.terms": terms})
    waiting = tuple(cell for child in children for cell in child.waiting)
    last = _warm_steps(prefix)
    inputs = {role: digest for cell in waiting for role, digest in cell.inputs.items()}
    key = f"{_state_key(_training(config, inputs, prefix), waiting)}.{last}"
    return Stage(key, config, 0, last, None, _digests(waiting), (), waiting, prefix.approach)


def _warm_steps(config: TrialConfig) -> int:
    """Terms that wait act where step > warmup_steps, so the warm-up has the steps 0 .. warmup_steps."""
    return config.optim.warmup_steps + 1


def _training(config: TrialConfig, inputs: Mapping[str, str], prefix: TrialConfig | None = None) -> str:
    """Names a training by its identity, without the target where it (or its part `prefix`) does not read one."""
    inputs = read_by(config, inputs)
    if _reads_target(prefix or config):
        return identity(config, inputs)
    others = {role: digest for role, digest in inputs.items() if role != "target"}
    data = config.data.model_copy(update={"target": _ANY_TARGET})
    return identity(config.model_copy(update={"data": data}), others)


def _state_key(training: str, cells: Iterable[Cell]) -> str:
    """Names the state of a training, which also holds the accuracies on the targets of these cells."""
    measured = sorted({cell.inputs["target"] for cell in cells})
    return hashlib.sha256("".join([training, *measured]).encode()).hexdigest()


def _steps(config: TrialConfig) -> int:
    return config.optim.steps if METHODS[config.method].learns else 0


def _digests(cells: Sequence[Cell]) -> dict[str, str]:
    """Content digests of the source of these cells, and of their targets in the cells' order."""
    source = {cells[0].config.data.source: cells[0].inputs["source"]}
    return source | {cell.config.data.target: cell.inputs["target"] for cell in cells}


def _reads_target(config: TrialConfig) -> bool:
    return METHODS[config.method].reads_target(config)
