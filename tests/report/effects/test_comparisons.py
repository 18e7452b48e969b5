import itertools
from math import inf, isnan

import numpy as np
import pandas as pd
import pytest
from factorials import cells_of, keyed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from scale_ray.report.effects.comparisons import COLUMNS, against_baseline, holm, seeds_needed, sign_flip


def p_of(numbers: list[float]) -> tuple[float, float]:
    found = sign_flip(pd.DataFrame({"d": numbers})).loc["d"]
    return found["p"], found["smallest"]


def test_sign_flips_of_four_by_hand() -> None:
    # Sums of +-1 +-2 +-3 +-4 that reach 1 + 2 + 3 + 4 = 10: 1 of 16; twice that.
    assert p_of([1, 2, 3, 4]) == (2 / 16, 2 / 16)
    # -1 + 2 + 3 + 4 = 8 is reached by 10 and by 8: 2 of 16, twice.
    assert p_of([-1, 2, 3, 4])[0] == 4 / 16
    # 1 - 2 + 3 - 4 = -2: sums <= -2 are -10 -8 -6 -4 -4 -2 -2: 7 of 16.
    assert p_of([1, -2, 3, -4])[0] == 14 / 16


def test_three_never_go_under_a_quarter_and_one_says_nothing() -> None:
    assert p_of([40.0, 41.0, 42.0]) == (0.25, 0.25)
    assert p_of([40.0]) == (1.0, 1.0)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=2, max_size=7))
def test_sign_flips_are_those_of_full_enumeration(numbers: list[int]) -> None:
    sums = [sum(flips) for flips in itertools.product(*[(-number, number) for number in numbers])]
    tails = [np.mean([total >= sum(numbers) for total in sums]), np.mean([total <= sum(numbers) for total in sums])]
    assert p_of([float(number) for number in numbers])[0] == pytest.approx(min(1.0, 2 * min(tails)))


def test_many_observations_are_flipped_at_random_and_the_same_each_time() -> None:
    numbers = list(np.random.default_rng(0).normal(0.4, 1, size=30))
    p, smallest = p_of(numbers)
    assert smallest == 0.001
    assert p == p_of(numbers)[0]
    # A permutation test of 30 normal numbers is close to the t-test.
    assert p == pytest.approx(stats.ttest_1samp(numbers, 0).pvalue, abs=0.02)


def test_columns_are_tested_on_the_observations_they_have() -> None:
    found = sign_flip(pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, 2.0, 3.0, np.nan]}))
    assert found["p"].tolist() == [0.125, 0.25]


def test_holm_by_the_textbook_and_as_statsmodels() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 -> never falling: 0.06.
    p = pd.Series([0.01, 0.04, 0.03, 0.005])
    assert holm(p).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(max_examples=5, deadline=None)  # each call of multipletests collects garbage
@given(st.lists(st.floats(0.0001, 1), min_size=2, max_size=12))
def test_holm_is_that_of_statsmodels(numbers: list[float]) -> None:
    np.testing.assert_allclose(holm(pd.Series(numbers)), multipletests(numbers, method="holm")[1])


def one_pair(*numbers: float) -> pd.Series:
    return keyed(np.array([numbers]))[0]


def test_seeds_needed_by_hand() -> None:
    # sd 1. 6 seeds: t(0.975, 5) / sqrt(6) = 2.5706 / 2.4495 = 1.049; 7 seeds: 2.4469 / 2.6458 = 0.925.
    needed = seeds_needed(one_pair(-1, 0, 1), 1.0)
    assert needed.spread == 1.0
    assert (needed.seeds, needed.over_pairs) == (7, pytest.approx(np.nan, nan_ok=True))
    # The sd's interval with 2 degrees of freedom is 0.52 to 6.28: three seeds hardly tell how many it takes.
    # 0.5207: 4 seeds give 3.1824 * 0.5207 / 2 = 0.83, 3 give 1.29. 6.285: 155 give 1.9755 * 6.285 / sqrt(155) = 0.997.
    assert (needed.low, needed.high) == (4, 155)
    assert seeds_needed(one_pair(-1, 0, 1), 50.0).seeds == 2


@settings(max_examples=40, deadline=None)
@given(pairs=st.integers(1, 6), seeds=st.integers(2, 6), half_width=st.floats(0.05, 5), seed=st.integers(0, 99))
def test_seeds_needed_are_enough_and_no_more(pairs: int, seeds: int, half_width: float, seed: int) -> None:
    needed = seeds_needed(keyed(np.random.default_rng(seed).normal(size=(pairs, seeds)))[0], half_width)

    def half(number: float) -> float:
        return stats.t.ppf(0.975, pairs * (number - 1)) * needed.spread / (pairs * number) ** 0.5

    assert half(needed.seeds) <= half_width
    assert needed.seeds == 2 or half(needed.seeds - 1) > half_width
    assert needed.low <= needed.seeds <= needed.high


def test_no_number_of_seeds_makes_up_for_few_pairs() -> None:
    # Pair means 0 and 10 without any spread within: t(0.975, 1) * sd / sqrt(2) = 12.7062 * 5.
    needed = seeds_needed(keyed(np.array([[0.0, 0.0], [10.0, 10.0]]))[0], 1.0)
    assert needed.seeds == 2
    assert needed.over_pairs == pytest.approx(12.7062047 * 5)
    # Means 0 and 10 again, of variance 50; seeds of variance 2 put 2 / 2 of it there, which more seeds would take away.
    noisy = seeds_needed(keyed(np.array([[-1.0, 1.0], [9.0, 11.0]]))[0], 1.0)
    assert noisy.over_pairs == pytest.approx(12.7062047 * (49 / 2) ** 0.5)
    alone = seeds_needed(keyed(np.array([[0.0], [10.0]]))[0], 1.0)
    assert alone.seeds == inf
    assert isnan(alone.spread)


def test_half_width_must_be_positive() -> None:
    with pytest.raises(ValueError, match="half-width 0"):
        seeds_needed(one_pair(1, 2), 0)


def test_three_pairs_carry_no_star_and_twelve_do() -> None:
    gain = {"ce": 0.0, "ce+ssl": 10.0, "dann": 5.0}
    rng = np.random.default_rng(1)
    few = against_baseline(cells_of(lambda label, pair, seed: 60 + gain[label] + rng.normal(), 3, 3, gain))
    assert list(few.columns) == COLUMNS
    assert few["label"].tolist() == ["dann", "ce+ssl"]
    assert few["verdict"].tolist() == ["n too small"] * 2
    assert few["p_pairs"].tolist() == few["p_pairs_smallest"].tolist() == [0.25, 0.25]
    assert few["p_pairs_holm"].tolist() == [0.5, 0.5]
    assert few["p_keys_smallest"].tolist() == [2 / 2**9] * 2  # nine keys could: but they are no nine pairs
    many = against_baseline(cells_of(lambda label, pair, seed: 60 + gain[label] + rng.normal(), 12, 2, gain))
    assert many["verdict"].tolist() == ["differs"] * 2
    assert many["p_pairs_holm"].tolist() == [2 * 2 / 2**12] * 2


def test_eight_pairs_are_enough_for_one_comparison_but_not_for_seven() -> None:
    # The least p of 8 pairs is 2 / 2^8 = 0.0078; Holm over 7 leaves 0.0547 at best.
    labels = ["ce", *(f"ce+{index}*ssl" for index in range(2, 9))]
    rng = np.random.default_rng(3)
    cells = cells_of(lambda label, pair, seed: 60 + 20 * (label != "ce") + rng.normal(), 8, 1, labels)
    assert set(against_baseline(cells)["verdict"]) == {"n too small"}
    assert against_baseline(cells[cells["label"].isin(labels[:2])])["verdict"].tolist() == ["differs"]


def test_no_difference_is_not_shown() -> None:
    rng = np.random.default_rng(2)
    found = against_baseline(cells_of(lambda label, pair, seed: 60 + rng.normal(), 12, 3, ["ce", "ce+reg"])).iloc[0]
    assert found["verdict"] == "not shown"
    assert found["p_pairs"] > 0.05


def test_a_row_uses_the_keys_that_it_shares_with_the_baseline() -> None:
    level = {"ce": 50.0, "dann": 52.0, "ce+ssl": 60.0}
    cells = cells_of(lambda label, pair, seed: level[label] + seed, 2, 2, level)
    holed = cells[~((cells["label"] == "dann") & (cells["pair"] == "pair1"))]
    found = against_baseline(holed).set_index("label")
    assert found.loc["dann", ["estimate", "pairs", "keys", "left_out"]].tolist() == [2.0, 1, 2, 2]
    assert found.loc["ce+ssl", ["estimate", "pairs", "keys", "left_out"]].tolist() == [10.0, 2, 4, 0]


def test_another_baseline_and_none() -> None:
    cells = cells_of(lambda label, pair, seed: {"ce": 50.0, "dann": 52.0}[label], 2, 1, ["ce", "dann"])
    found = against_baseline(cells, "dann")
    assert found[["label", "baseline", "estimate"]].values.tolist() == [["ce", "dann", -2.0]]
    nothing = against_baseline(cells, "cdan")
    assert (len(nothing), list(nothing.columns)) == (0, COLUMNS)
