"""Work that cells share: a study's cells as a tree of stages (METHOD 9).

A cell is a training of `optim.steps` steps, or of none where its method does not learn. Two kinds of it are common to
several cells, exactly:

- until the end of the warm-up, the cells that train the same so far: every combination without `ssl` is one training a
  source, every combination with `ssl` one a domain pair;
- a training that reads no target images at all is the same for every target: one training, measured on each.

A stage is trained once. One that goes on in others leaves its state in the store; one in which cells end leaves their
records. As the randomness of a step is a function of (seed, stream, step), records are bit for bit those of cells
trained alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scale_ray.config import TrialConfig
from scale_ray.identity import identity
from scale_ray.methods import METHODS
from scale_ray.store import PlannedCell
from scale_ray.training.check import trial_inputs

_ANY_TARGET = "*"  # in a stage's key, in place of a target that the training does not read


@dataclass(frozen=True)
class Stage:
    """Steps `first` to `last` of a training.

    Attributes:
        key: names its state in the store; of a cell that shares nothing, the cell's id.
        config: what trains it.
        parent: key of the stage that has trained the steps before `first`; None where it starts afresh.
        targets: the domains on which it is measured: of all cells of the study that go through it, done ones too, for
            its state may be wanted for any of them.
        ends: the cells whose records it leaves, one a target domain; none where it goes on in other stages.
        waiting: every cell that cannot be finished without it, `ends` included.
    """

    key: str
    config: TrialConfig
    first: int
    last: int
    parent: str | None
    targets: tuple[str, ...]
    ends: tuple[PlannedCell, ...]
    waiting: tuple[PlannedCell, ...]

    @property
    def steps(self) -> int:
        return self.last - self.first

    @property
    def title(self) -> str:
        """In one line: `mnist>mnistm ce+ssl lenet seed 0`; `…, warm-up of 4` where cells go on from it."""
        config = self.config
        prefix = METHODS[config.method].warm_up(config) if not self.ends else None
        approach = prefix.approach if prefix else config.approach
        pair = f"{config.data.source}>{','.join(_targets(self.waiting))}"
        name = f"{pair} {approach} {config.model.label} seed {config.seed}"
        return f"{name}, warm-up of {len(self.waiting)}" if prefix else name


def alone(cell: PlannedCell) -> Stage:
    """A cell that shares nothing: one stage from its first step to its last."""
    target = cell.config.data.target
    return Stage(cell.id, cell.config, 0, _steps(cell.config), None, (target,), (cell,), (cell,))


def branch(cell: PlannedCell, root: Path | None) -> list[Stage]:
    """A cell as its warm-up and what follows it, for cells that come one by one: none knows who will share its warm-up.

    Cells whose warm-ups are the same training name it the same, as long as their combinations are.
    """
    final = alone(cell)
    prefix = METHODS[cell.config.method].warm_up(cell.config)
    if prefix is None or not 0 < _warm_steps(prefix) < final.last:
        return [final]
    trunk = _trunk(prefix, [final], root)
    return [trunk, replace(final, first=trunk.last, parent=trunk.key)]


def stage_tree(cells: Sequence[PlannedCell], root: Path | None) -> list[Stage]:
    """The stages of these cells, each after its parent, otherwise in the cells' order.

    Args:
        cells: all cells of a study, those that are done too: the tree of a study must not change as it is worked off.
        root: folder of an image benchmark, whose content is part of a stage's key.
    """
    finals = _merge_targets(cells, root)
    warm_ups: dict[str, list[Stage]] = {}
    prefixes: dict[str, TrialConfig] = {}
    for stage in finals:
        prefix = METHODS[stage.config.method].warm_up(stage.config)
        if prefix is not None and 0 < _warm_steps(prefix) < stage.last:
            name = _training(prefix, root)
            prefixes.setdefault(name, prefix)
            warm_ups.setdefault(name, []).append(stage)
    trunks: dict[str, Stage] = {}
    for name, children in warm_ups.items():
        if len(children) > 1:
            trunk = _trunk(prefixes[name], children, root)
            trunks.update((stage.key, trunk) for stage in children)
    stages: dict[str, Stage] = {}
    for stage in finals:
        if stage.key in trunks:
            trunk = trunks[stage.key]
            stages.setdefault(trunk.key, trunk)
            stage = replace(stage, first=trunk.last, parent=trunk.key)
        stages[stage.key] = stage
    return list(stages.values())


def stages_to_do(tree: Sequence[Stage], todo: Sequence[PlannedCell], stored: frozenset[str]) -> list[Stage]:
    """What of a tree must run so that the cells `todo` get their records.

    A warm-up whose state is stored, or that one stage alone still wants, is not run by itself.

    Args:
        tree: from `stage_tree`.
        todo: the cells that no record answers.
        stored: keys of the stages whose state the store has.
    """
    wanted = {cell.id for cell in todo}

    def only_wanted(cells: tuple[PlannedCell, ...]) -> tuple[PlannedCell, ...]:
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
            begin = (stage.first, stage.parent) if shared else (0, None)
            kept.append(replace(stage, first=begin[0], parent=begin[1], ends=cells, waiting=cells))
    return kept


def _merge_targets(cells: Sequence[PlannedCell], root: Path | None) -> list[Stage]:
    """One stage a training that ends in records: a cell, or all cells that differ in an unread target alone."""
    groups: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        key = cell.id if _reads_target(cell.config) else _training(cell.config, root)
        groups.setdefault(key, []).append(cell)
    stages = []
    for key, group in groups.items():
        first, members = group[0], tuple(group)
        name = first.id if len(group) == 1 else _state_key(key, members, root)
        stages.append(Stage(name, first.config, 0, _steps(first.config), None, _targets(members), members, members))
    return stages


def _trunk(prefix: TrialConfig, children: Sequence[Stage], root: Path | None) -> Stage:
    """The warm-up that all these stages go on from, with what any of them carries (teacher, statistics)."""
    terms = dict(prefix.losses.terms)
    for child in children:
        for name in child.config.losses.terms:
            terms.setdefault(name, 1.0)
    config = prefix.replace({"losses.terms": terms})
    waiting = tuple(cell for child in children for cell in child.waiting)
    last = _warm_steps(prefix)
    key = f"{_state_key(_training(config, root, prefix), waiting, root)}.{last}"
    return Stage(key, config, 0, last, None, _targets(waiting), (), waiting)


def _warm_steps(config: TrialConfig) -> int:
    """Terms that wait act where step > warmup_steps (METHOD 2), so steps 0 .. warmup_steps are the warm-up."""
    return config.optim.warmup_steps + 1


def _training(config: TrialConfig, root: Path | None, prefix: TrialConfig | None = None) -> str:
    """Names a training: its identity, without its target where it (or the part of it that `prefix` is) reads none."""
    inputs = trial_inputs(config, root)
    if _reads_target(prefix or config):
        return identity(config, inputs)
    del inputs["target"]
    data = config.data.model_copy(update={"target": _ANY_TARGET})
    return identity(config.model_copy(update={"data": data}), inputs)


def _state_key(training: str, cells: Sequence[PlannedCell], root: Path | None) -> str:
    """Names a training's state: it also holds the accuracies on the targets of these cells."""
    measured = sorted({trial_inputs(cell.config, root)["target"] for cell in cells})
    return hashlib.sha256("".join([training, *measured]).encode()).hexdigest()


def _steps(config: TrialConfig) -> int:
    return config.optim.steps if METHODS[config.method].learns else 0


def _targets(cells: Sequence[PlannedCell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.config.data.target for cell in cells))


def _reads_target(config: TrialConfig) -> bool:
    return METHODS[config.method].reads_target(config)
