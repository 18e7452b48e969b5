"""More seeds until decided: which comparisons go on, to which look, and that an interruption changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_stores import cell_of, config_of, record_of
from scipy import stats

from scale_ray.cell import Cell
from scale_ray.config import ConfigError, TrialConfig
from scale_ray.report import load, write_report
from scale_ray.report.build import Asked
from scale_ray.report.effects.decided import with_equal_seeds
from scale_ray.report.effects.sequential import Decision, interval, looks
from scale_ray.store import Store, StudyPlan
from scale_ray.study import Study, Until, combinations, pairs
from scale_ray.sweep.run import Outcome
from scale_ray.until import Rounds, run_rounds

NOISE = np.random.default_rng(0).normal(size=(100, 2))  # of a seed, on two pairs


def study(*losses: str, seeds: int = 3, most: int = 20, half_width: float = 1.0) -> Study:
    base = config_of("mnist", "mnistm", "ce", "lenet", 0)
    axes = {"pair": pairs("mnist:mnistm", "fonts:mnist"), "losses": combinations(*losses), "seed": range(seeds)}
    return Study("s", base, axes, until=Until(half_width=half_width, most_seeds=most))


def accuracy(config: TrialConfig) -> float:
    """ce 50; +ssl 10 more, in all seeds nearly the same; +dist 0.1 more, with the noise of seeds; +reg likewise."""
    pair = 0 if config.data.source == "mnist" else 1
    noise = NOISE[config.seed, pair]
    gain = {"ce": 0.0, "ce+ssl": 10 + 0.1 * noise, "ce+dist": 0.1 + 3 * noise, "ce+reg": 1.2 * noise}
    return 50 + gain[config.combination]


@dataclass
class Planned:
    """As much of a `sweep.plan.Plan` as the rounds read."""

    study: StudyPlan
    todo: list[Cell]
    failed_before: frozenset[str]
    lacking: dict[str, tuple[str, ...]]


class Here:
    """Trains by writing records; `stop` after so many trainings, as Ctrl-C would."""

    def __init__(self, folder: Path, of: Callable[[TrialConfig], float | None] = accuracy):
        self.store, self._of = Store(folder, create=True), of
        self.trained: list[str] = []
        self.left = 10**9

    def plan(self, study: Study) -> Planned:
        cells = [cell_of(config) for config in study.cells()]
        return Planned(
            StudyPlan(name=study.name, created="", cells=cells, until=study.until),
            [cell for cell in cells if self.store.read_done(cell.id) is None],
            frozenset(cell.id for cell in cells if self.store.status(cell.id) == "failed"),
            {},
        )

    def run(self, plan: Planned) -> Outcome:
        self.store.write_plan(plan.study)
        for number, cell in enumerate(plan.todo):
            if self.left == 0:
                return Outcome(0, 0, len(plan.todo) - number, progressed=True)
            self.left -= 1
            self.trained.append(cell.id)
            self.store.write_record(record_of(cell.config, self._of(cell.config)))
        return Outcome(len(plan.study.cells), 0, 0, progressed=True)

    def decide(self, study: Study) -> list[Decision]:
        told: list[Rounds] = []
        run_rounds(Rounds(study), self.store, self.plan, self.run, told.append)  # type: ignore[arg-type]
        return told[-1].decisions if told else []


def seeds_of(here: Here) -> dict[str, int]:
    """The number of seeds by loss combination."""
    configs = [record.config for record in here.store.records()]
    names = {config.combination for config in configs}
    return {name: len({config.seed for config in configs if config.combination == name}) for name in sorted(names)}


def test_looks_double() -> None:
    assert looks(3, 20) == [3, 6, 12, 20]
    assert looks(3, 3) == [3]
    assert looks(1, 8) == [1, 2, 4, 8]


def test_an_interval_by_hand() -> None:
    """Two pairs of three seeds: means 2 and 5, squares 2 + 8 on 4 degrees of freedom, so s = sqrt(2.5)."""
    index = pd.MultiIndex.from_product([["a", "b"], [0, 1, 2]], names=["pair", "seed"])
    estimate, half, seeds = interval(pd.Series([1.0, 2.0, 3.0, 3.0, 5.0, 7.0], index), 0.01)
    assert (estimate, seeds) == (3.5, 3)
    assert half == pytest.approx(stats.t.ppf(0.995, 4) * sqrt(2.5) * sqrt(1 / 3 + 1 / 3) / 2)


def test_only_what_is_open_gets_more_seeds(tmp_path: Path) -> None:
    here = Here(tmp_path)
    of = {each.approach: each for each in here.decide(study("ce", "ce+ssl", "ce+dist", "ce+reg"))}
    ssl, dist, reg = (of[label] for label in ("ce+ssl", "ce+dist", "ce+reg"))
    assert ssl.verdict == "higher"
    count = reg.seeds
    assert seeds_of(here) == {"ce": 20, "ce+dist": 20, "ce+reg": count, "ce+ssl": 3}
    assert count in (6, 12)
    assert {each.approach: each.verdict for each in (dist, reg)} == {"ce+dist": "undecided", "ce+reg": "known"}
    assert not dist.open
    assert not reg.open
    # 4 looks at 3 comparisons.
    values = [1.2 * NOISE[:count, pair] for pair in range(2)]
    freedom = 2 * (count - 1)
    spread = sqrt(sum(((each - each.mean()) ** 2).sum() for each in values) / freedom)
    half = stats.t.ppf(1 - 0.05 / (4 * 3) / 2, freedom) * spread * sqrt(2 / count) / 2
    assert (reg.estimate, reg.high - reg.estimate) == pytest.approx((np.mean(values), half))


def test_what_is_decided_at_first_gets_no_more(tmp_path: Path) -> None:
    here = Here(tmp_path)
    (decision,) = here.decide(study("ce", "ce+ssl"))
    assert decision.verdict == "higher"
    assert seeds_of(here) == {"ce": 3, "ce+ssl": 3}


@pytest.mark.parametrize("after", [7, 20, 30])
def test_an_interrupted_study_goes_on_to_the_same_decisions(tmp_path: Path, after: int) -> None:
    wanted = study("ce", "ce+ssl", "ce+dist", "ce+reg")
    whole, parts = Here(tmp_path / "whole"), Here(tmp_path / "parts")
    expected = whole.decide(wanted)
    parts.left = after
    parts.decide(wanted)
    parts.left = 10**9
    assert parts.decide(wanted) == expected
    assert sorted(parts.trained) == sorted(whole.trained)
    assert parts.decide(wanted) == expected
    assert sorted(parts.trained) == sorted(whole.trained)


def test_cells_that_fail_leave_a_comparison_undecided_and_end(tmp_path: Path) -> None:
    here = Here(tmp_path, lambda config: None if config.combination == "ce+dist" else accuracy(config))
    dist, reg = here.decide(study("ce", "ce+dist", "ce+reg"))
    assert (dist.approach, dist.verdict, dist.seeds) == ("ce+dist", "undecided", 0)
    assert (reg.approach, reg.verdict) == ("ce+reg", "known")


def test_a_seed_that_fails_again_and_again_ends_the_rounds(tmp_path: Path) -> None:
    def of(config: TrialConfig) -> float | None:
        return None if (config.seed, config.combination) == (4, "ce+dist") else accuracy(config)

    (decision,) = Here(tmp_path, of).decide(study("ce", "ce+dist"))
    assert (decision.verdict, decision.seeds, decision.open) == ("undecided", 5, True)


def test_a_pair_without_a_result_leaves_a_comparison_undecided(tmp_path: Path) -> None:
    def of(config: TrialConfig) -> float | None:
        return None if (config.data.source, config.combination) == ("fonts", "ce+ssl") else accuracy(config)

    (ssl,) = Here(tmp_path, of).decide(study("ce", "ce+ssl"))
    assert (ssl.verdict, ssl.seeds) == ("undecided", 0)


def test_targets_without_labels_decide_nothing_and_say_so(tmp_path: Path) -> None:
    here = Here(tmp_path)
    asked = study("ce", "ce+ssl")
    cells = here.plan(asked).study.cells
    for cell in cells:
        record = record_of(cell.config, 50.0)
        assert record.result is not None
        unlabelled = record.result.model_copy(update={"target_accuracy": None})
        here.store.write_record(record.model_copy(update={"result": unlabelled}))
    with pytest.raises(ConfigError, match="no target has labels: leave it out"):
        Rounds(asked).advance(here.store, cells)


def test_what_was_decided_early_can_still_be_chosen(tmp_path: Path) -> None:
    here = Here(tmp_path / "store")
    here.decide(study("ce", "ce+ssl", "ce+dist"))
    compared = with_equal_seeds(load(here.store.location), list(here.store.plan_files()))
    seeds = compared.groupby("losses")["seed"].unique().map(sorted).to_dict()
    assert seeds == {"ce": [0, 1, 2], "ce+dist": [0, 1, 2], "ce+ssl": [0, 1, 2]}


def test_without_an_interval_a_comparison_is_open(tmp_path: Path) -> None:
    here = Here(tmp_path)
    rounds = Rounds(study("ce", "ce+dist", seeds=1, most=2))
    here.run(here.plan(rounds.study))
    assert rounds.advance(here.store, here.plan(rounds.study).study.cells)
    (decision,) = rounds.decisions
    assert isnan(decision.low)
    assert decision.told(rounds.until) == (
        f"lenet: ce+dist against ce: {decision.estimate:+.2f} points, 1 seed: not decided, more seeds follow"
    )


def test_further_seeds_follow_the_largest_planned_one() -> None:
    asked = study("ce", "ce+dist").with_axes({"seed": [7, 5]})
    rounds = Rounds(asked)
    assert [config.seed for config in rounds.study.cells()][:2] == [7, 5]
    assert rounds.most_cells() == 2 * 2 * 20
    rounds._given = dict.fromkeys(rounds._given, 4)
    assert sorted({config.seed for config in rounds.study.cells()}) == [5, 7, 8, 9]


def test_a_report_has_what_seeds_have_decided(tmp_path: Path) -> None:
    here = Here(tmp_path / "store")
    expected = here.decide(study("ce", "ce+ssl", "ce+dist"))
    paths = write_report(here.store.location, tmp_path / "report", Asked(most_drawn=0))
    found = pd.read_csv(tmp_path / "report" / "decisions.csv")
    assert found["approach"].tolist() == [each.approach for each in expected]
    assert found["verdict"].tolist() == [each.verdict for each in expected]
    assert found["low"].tolist() == pytest.approx([each.low for each in expected])
    page = paths.page.read_text()
    assert "Decided by seeds" in page
    note = "seeds were added, 3 to 20 on a pair, until a difference from ce was shown or known to within ±1 points"
    assert f"study s: {note}" in page
    assert note in (tmp_path / "report" / "decisions.md").read_text()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda study: study.with_axes({"losses.threshold": [0.5, 0.8]}), "an axis also sets losses.threshold: leave"),
        (lambda study: study.with_axes({"losses": combinations("ce")}), "with 'ce', and the study has ce: name two"),
        (lambda study: study.with_axes({"seed": range(30)}), "30 seeds are planned, and a comparison may get 20"),
        (lambda study: study.with_axes({"losses.contrast": ["dist", "bank"]}), "several cells are .*: keep one"),
        (
            lambda study: study.model_copy(update={"until": Until(half_width=1, baseline="dann")}),
            "compares approaches with 'dann', and the study has ce, ce\\+dist: name two or more",
        ),
    ],
)
def test_studies_that_cannot_be_decided_are_refused(change: Callable[[Study], Study], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Rounds(change(study("ce", "ce+dist")))


def test_a_study_keeps_what_it_is_to_decide() -> None:
    asked = study("ce", "ce+dist")
    assert Study.model_validate_json(asked.model_dump_json()) == asked
    assert asked.where(lambda config: True).until == asked.until
    assert "until" not in Study("s", asked.base, {}).model_dump()
