"""Seeds where they are needed: after the planned seeds of a study, more go to what is not decided yet."""

from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from rich.console import Console

from scale_ray.cell import Cell
from scale_ray.config import VARIANTS, ConfigError, TrialConfig
from scale_ray.report import load
from scale_ray.report.effects.sequential import Decision, decisions, looks
from scale_ray.store import Store
from scale_ray.study import Study, Until, change_of, describe
from scale_ray.sweep.order import baseline_of

if TYPE_CHECKING:
    from scale_ray.sweep.plan import Plan
    from scale_ray.sweep.run import Outcome

# What the axes of a study may set: comparisons are between approaches, on all pairs and within each backbone.
_AXES = {"seed", "data.source", "data.target", "method", "losses.terms", "model.backbone", "model.weights", *VARIANTS}

Row = tuple[str, str]  # backbone and approach of a config


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
        self._given: dict[Row, int] = dict.fromkeys(map(_row, configs), len(planned))
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
        return longer.where(lambda config: place[config.seed] < given[_row(config)])

    def advance(self, store: Store, cells: Collection[Cell]) -> bool:
        """Decide by what the store has of this round's cells; return whether there is another round.

        Args:
            cells: those of `study`, in its order.

        Raises:
            ConfigError: the targets have no labels, without which there is no accuracy.
        """
        # As the study has them: what resolving a cell changes, such as the spelling of a backbone, is no matter here.
        configs = {cell.id: config for cell, config in zip(cells, self.study.cells(), strict=True)}
        loaded = load(store.location)
        done = loaded[loaded["cell"].isin(configs) & (loaded["status"] == "done")]
        if len(done) and done["target_accuracy"].isna().all():
            raise ConfigError(
                "until compares accuracies, and no target has labels: leave it out; validators choose without labels"
            )
        measured = done[done["target_accuracy"].notna()]
        accuracies = dict(zip(measured["cell"], measured["target_accuracy"], strict=True))
        self.decisions = decisions(configs, accuracies, self.until)
        before = dict(self._given)
        for each in self.decisions:
            if not each.open:
                continue
            seeds = next(number for number in self._looks() if number > each.seeds)
            for approach in (each.approach, each.baseline):
                row = each.backbone, approach
                self._given[row] = max(self._given[row], seeds)
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
    rounds: Rounds,
    store: Store,
    plan: Callable[[Study], "Plan"],
    run: Callable[["Plan"], "Outcome"],
    tell: Callable[[Rounds], None],
) -> "Outcome":
    """Run a study round after round, until all is decided that more seeds can decide.

    Args:
        plan: makes the plan of a round's study.
        run: trains what a plan lacks.
        tell: is called after each round that was run.

    Returns:
        How the cells of the last round ended.
    """
    while True:
        planned = plan(rounds.study)
        cells = planned.study.cells
        # Where an earlier run has been: what it left to do, because it failed or lacks a file, is in later rounds too.
        been = planned.failed_before | planned.lacking.keys()
        if all(cell.id in been for cell in planned.todo) and rounds.advance(store, cells):
            continue
        outcome = run(planned)
        if outcome.interrupted:
            return outcome
        again = rounds.advance(store, cells)
        tell(rounds)
        if not again:
            return outcome


def _completed(asked: Study, configs: list[TrialConfig], planned: int) -> Until:
    """What a study was asked to decide, with what it leaves open filled in."""
    assert asked.until is not None
    set_by_axes = {path for axis, values in asked.axes.items() for value in values for path in change_of(axis, value)}
    if beside := sorted(set_by_axes - _AXES):
        raise ConfigError(f"until compares approaches, and an axis also sets {', '.join(beside)}: leave that axis out")
    if any(
        "seed" in change_of(axis, value) for axis, values in asked.axes.items() if axis != "seed" for value in values
    ):
        raise ConfigError("until adds seeds, and an axis moves the seed with other fields: make `seed` an axis")
    keys = Counter((*_row(config), config.pair, config.seed) for config in configs)
    if twice := next((config for config in configs if keys[(*_row(config), config.pair, config.seed)] > 1), None):
        raise ConfigError(f"until compares approaches, and several cells are {describe(twice)}: keep one of them")
    approaches = list(dict.fromkeys(config.approach for config in configs))
    baseline = baseline_of(approaches, asked.until.baseline)
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


def _row(config: TrialConfig) -> Row:
    return config.model.label, config.approach
