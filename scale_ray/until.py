"""Seeds where they are needed: after the planned seeds of a study, more go to what is not decided yet."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from scale_ray.cell import Cell
from scale_ray.config import ConfigError, TrialConfig
from scale_ray.report import load
from scale_ray.report.effects.measured import tidy
from scale_ray.report.effects.sequential import Decision, decisions, looks
from scale_ray.store import Store
from scale_ray.study import Study, Until, change_of

if TYPE_CHECKING:
    from scale_ray.sweep.plan import Plan
    from scale_ray.sweep.run import Outcome

# What the axes of a study may set: comparisons are between approaches, on all pairs and within each backbone.
_AXES = {"seed", "data.source", "data.target", "method", "losses.terms", "model.backbone", "model.weights"}

Kind = tuple[str, str]  # network and approach of a config


class Rounds:
    """The rounds of a study: the planned seeds, then twice as many for what is open, and so on.

    They depend on records alone, so that an interrupted study goes on where it was.

    Args:
        asked: the study with its planned seeds and `until`.

    Attributes:
        until: with what the study leaves open: the first number of seeds and the baseline.
        decisions: of the round that has ended last, see `sequential.decisions`; empty before.

    Raises:
        ConfigError: there is nothing to compare, an axis sets something else, or more seeds are planned than allowed.
    """

    def __init__(self, asked: Study):
        assert asked.until is not None
        planned = list(asked.axes.get("seed", [asked.base.seed]))
        configs = asked.cells()
        self.until = _completed(asked, configs, len(planned))
        following = max(planned) + 1
        self._asked = asked.model_copy(update={"until": self.until})
        self._seeds = [*planned, *range(following, following + self.until.most_seeds - len(planned))]
        self._given: dict[Kind, int] = dict.fromkeys(map(_kind, configs), len(planned))
        self.decisions: list[Decision] = []

    @property
    def study(self) -> Study:
        """The study of this round."""
        given = dict(self._given)
        most = max(given.values())
        if most == self.until.first:
            return self._asked
        place = {seed: number for number, seed in enumerate(self._seeds[:most])}
        longer = self._asked.with_axes({"seed": self._seeds[:most]})
        return longer.where(lambda config: place[config.seed] < given[_kind(config)])

    def advance(self, store: Store, cells: Collection[Cell]) -> bool:
        """Decide by what the store has of this round's cells; return whether there is another round.

        Raises:
            ReportError: the records do not belong in one table.
        """
        loaded = load(store.location)
        loaded = loaded[loaded["cell"].isin({cell.id for cell in cells})]
        self.decisions = decisions(loaded, self.until)
        kinds = _kinds(loaded, cells)
        before = dict(self._given)
        for each in self.decisions:
            if not each.open:
                continue
            seeds = next(number for number in self._looks() if number > each.seeds)
            for label in (each.label, each.baseline):
                for kind in kinds[each.backbone, label]:
                    self._given[kind] = max(self._given[kind], seeds)
        return self._given != before

    def tell(self, console: Console) -> None:
        """Print the decisions, one line each."""
        for decision in self.decisions:
            console.print(decision.told(self.until), highlight=False)

    def most_cells(self) -> int:
        """The cells of the study if nothing is decided before the last look."""
        return len(self._asked.with_axes({"seed": self._seeds}).cells())

    def _looks(self) -> list[int]:
        assert self.until.first is not None
        return looks(self.until.first, self.until.most_seeds)


def run_rounds(
    study: Study,
    store: Store,
    plan: Callable[[Study], "Plan"],
    run: Callable[["Plan"], "Outcome"],
    tell: Callable[[Rounds], None],
) -> "Outcome":
    """Run a study round after round, until all is decided that more seeds can decide.

    Args:
        plan: makes the plan of a round's study.
        run: trains what a plan lacks.
        tell: is called after each round that was run, and after the last one.

    Returns:
        How the cells of the last round ended.
    """
    rounds = Rounds(study)
    while True:
        planned = plan(rounds.study)
        if not planned.todo and rounds.advance(store, planned.study.cells):
            continue  # of an earlier run
        outcome = run(planned)
        if outcome.interrupted:
            return outcome
        again = rounds.advance(store, planned.study.cells)
        tell(rounds)
        if not again:
            return outcome


def _completed(asked: Study, configs: list[TrialConfig], planned: int) -> Until:
    """What a study was asked to decide, with what it leaves open filled in."""
    assert asked.until is not None
    set_by_axes = {path for axis, values in asked.axes.items() for value in values for path in change_of(axis, value)}
    if others := sorted(set_by_axes - _AXES):
        raise ConfigError(f"until compares approaches, and an axis also sets {', '.join(others)}: leave that axis out")
    approaches = list(dict.fromkeys(config.approach for config in configs))
    baseline = asked.until.baseline or ("ce" if "ce" in approaches else approaches[0])
    if baseline not in approaches or len(approaches) < 2:
        raise ConfigError(
            f"until compares approaches with {baseline!r}, and the study has {', '.join(approaches)}: name two or more"
        )
    if planned > asked.until.most_seeds:
        raise ConfigError(
            f"until: {planned} seeds are planned, and a comparison may get {asked.until.most_seeds}: plan fewer, or "
            "allow more"
        )
    return asked.until.model_copy(update={"first": planned, "baseline": baseline})


def _kind(config: TrialConfig) -> Kind:
    return config.model.label, config.approach


def _kinds(loaded: pd.DataFrame, cells: Collection[Cell]) -> Mapping[tuple[str, str], set[Kind]]:
    """Backbone and label, as tables name them, -> the kinds of configs that they are."""
    configs = {cell.id: cell.config for cell in cells}
    found: dict[tuple[str, str], set[Kind]] = defaultdict(set)
    tidied = tidy(loaded)
    for cell, backbone, label in zip(
        loaded.loc[tidied.index, "cell"], tidied["backbone"], tidied["label"], strict=True
    ):
        found[str(backbone), str(label)].add(_kind(configs[cell]))
    return found
