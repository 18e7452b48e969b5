import itertools

import numpy as np
import pandas as pd
import pytest
from factorials import keyed, studies
from hypothesis import given, settings
from hypothesis import strategies as st

from scale_ray.report.effects.columns import interval_or_values
from scale_ray.report.effects.resampling import intervals
from scale_ray.report.tables.uncertainty import interval_over_seeds


def test_few_pairs_get_the_t_interval_of_their_means_by_hand() -> None:
    found = intervals(keyed(np.array([[1.0, 3.0, 2.0], [4.0, 6.0, 5.0], [8.0, 8.0, 8.0]]))).iloc[0]
    # Pair means 2, 5, 8: mean 5, sd 3, error 3 / sqrt(3), t(0.975, 2) = 4.30265.
    assert found["kind"] == "t over pairs"
    assert found["estimate"] == 5.0
    assert found["high"] - 5 == pytest.approx(4.3026527 * 3 / 3**0.5)
    assert 5 - found["low"] == pytest.approx(found["high"] - 5)
    # Within pairs: squares 2 + 2 + 0 on 6 degrees of freedom; t(0.975, 6) = 2.44691; error s / sqrt(9).
    assert found["these_high"] - 5 == pytest.approx(2.4469119 * (4 / 6) ** 0.5 / 9**0.5)
    assert (found["pairs"], found["keys"]) == (3, 9)


def test_one_pair_says_nothing_over_pairs_but_something_of_itself() -> None:
    found = intervals(keyed(np.array([[1.0, 2.0, 3.0]]))).iloc[0]
    assert found["kind"] == "one pair"
    assert found[["low", "high", "bootstrap_low", "bootstrap_high"]].isna().all()
    # sd 1, t(0.975, 2) = 4.30265.
    assert found["these_high"] == pytest.approx(2 + 4.3026527 / 3**0.5)


def test_one_seed_a_pair_has_no_interval_for_these_pairs() -> None:
    found = intervals(keyed(np.array([[1.0], [2.0]]))).iloc[0]
    assert found[["these_low", "these_high"]].isna().all()
    assert found["by_seed"] == "1.50"


def test_two_pairs_of_one_seed_are_resampled_as_all_four_draws_are() -> None:
    found = intervals(keyed(np.array([[0.0], [4.0]])), level=0.4).iloc[0]
    # Means 0, 2, 2, 4 with a quarter each: the quantiles 0.3 and 0.7 are both 2.
    assert (found["bootstrap_low"], found["bootstrap_high"]) == (2.0, 2.0)
    wide = intervals(keyed(np.array([[0.0], [4.0]])), level=0.6).iloc[0]
    assert (wide["bootstrap_low"], wide["bootstrap_high"]) == (0.0, 4.0)


def test_percentiles_follow_the_variance_of_two_stage_draws() -> None:
    rng = np.random.default_rng(3)
    data, _ = studies(rng, 40, 3, 0.0, 1, skewed=False)
    found = intervals(keyed(data)).iloc[0]
    # Of a mean of P drawn pairs: (variance of pair means + mean variance of seeds within / S) / P, both with ddof 0.
    variance = (data.mean(axis=1).var() + data.var(axis=1).mean() / 3) / 40
    assert found["bootstrap_high"] - found["bootstrap_low"] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.05)


def test_a_drawn_pair_has_as_many_seeds_as_it_came_with() -> None:
    values = keyed(np.random.default_rng(4).normal(size=(40, 12, 1)))
    pair, seed = (values.index.get_level_values(level) for level in ("pair", "seed"))
    values = values[(pair < 20) | (seed < 2)]
    by_pair = values[0].groupby(level="pair")
    variance = (by_pair.mean().var(ddof=0) + (by_pair.var(ddof=0) / by_pair.size()).mean()) / 40
    found = intervals(values).iloc[0]
    assert found["bootstrap_high"] - found["bootstrap_low"] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.05)


def test_studentised_draws_are_those_of_a_plain_loop() -> None:
    """Skewed, so that the two sides differ: the wrong way round would show."""
    data = np.array([[0.0, 0.4], [0.2, 0.1], [0.5, 0.3], [0.1, 0.9], [1.0, 1.8], [0.3, 0.0], [4.0, 6.0]])
    found = intervals(keyed(data)).iloc[0]
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(20_000):
        means = [rng.choice(data[pair], size=2).mean() for pair in rng.integers(7, size=7)]
        ratios.append((np.mean(means) - data.mean()) / (np.std(means, ddof=1) / 7**0.5))
    lower, upper = np.quantile(ratios, [0.025, 0.975])
    error = data.mean(axis=1).std(ddof=1) / 7**0.5
    assert found["kind"] == "studentised bootstrap"
    assert found["high"] - found["estimate"] > 2 * (found["estimate"] - found["low"])
    # Each side's length within 5 %: the quantiles of 4,000 and of 20,000 draws differ by some 2 %.
    assert found["estimate"] - found["low"] == pytest.approx(upper * error, rel=0.05)
    assert found["high"] - found["estimate"] == pytest.approx(-lower * error, rel=0.05)


@pytest.mark.parametrize(
    ("pairs", "kind"), [(1, "one pair"), (2, "two pairs"), (3, "t over pairs"), (5, "t over pairs")]
)
def test_studentised_draws_need_six_pairs(pairs: int, kind: str) -> None:
    data = np.random.default_rng(0).normal(size=(6, 3))
    assert intervals(keyed(data[:pairs]))["kind"].tolist() == [kind]
    assert intervals(keyed(data))["kind"].tolist() == ["studentised bootstrap"]


def test_pairs_weigh_the_same_whatever_their_numbers_of_seeds() -> None:
    values = keyed(np.array([[0.0, 0.0, 0.0], [6.0, 7.0, 8.0]])).drop(index=[(1, 1), (1, 2)])
    found = intervals(values).iloc[0]
    assert (found["estimate"], found["keys"]) == (3.0, 4)


def test_columns_use_their_own_keys_and_the_same_draws() -> None:
    values = keyed(np.random.default_rng(0).normal(size=(7, 3, 2)))
    values[2] = values[0] + values[1]
    values[3] = values[0].where(values.index.get_level_values("pair") > 0)
    values[4] = np.nan
    found = intervals(values)
    assert list(found.index) == [0, 1, 2, 3]
    assert found["pairs"].tolist() == [7, 7, 7, 6]
    pd.testing.assert_frame_equal(found.loc[[3]], intervals(values[[3]].dropna()))
    pd.testing.assert_frame_equal(found.loc[[0]], intervals(values[[0]]))


def test_no_spread_is_no_width() -> None:
    found = intervals(keyed(np.full((8, 3), 40.1))).iloc[0]
    assert found[["low", "high", "these_low", "these_high"]].tolist() == pytest.approx([40.1] * 4)


def test_a_key_twice_is_refused() -> None:
    values = keyed(np.ones((2, 2)))
    with pytest.raises(ValueError, match="unique"):
        intervals(pd.concat([values, values]))


@settings(max_examples=20, deadline=None)
@given(
    pairs=st.sampled_from([1, 2, 5, 6, 9]),
    seeds=st.integers(1, 4),
    factor=st.floats(0.1, 10),
    shift=st.floats(-50, 50),
    seed=st.integers(0, 99),
)
def test_intervals_move_with_their_data(pairs: int, seeds: int, factor: float, shift: float, seed: int) -> None:
    data = np.random.default_rng(seed).normal(size=(pairs, seeds))
    plain, moved = intervals(keyed(data)).iloc[0], intervals(keyed(factor * data + shift)).iloc[0]
    for name in ("estimate", "low", "high", "bootstrap_low", "bootstrap_high", "these_low", "these_high"):
        assert moved[name] == pytest.approx(factor * plain[name] + shift, abs=1e-6, nan_ok=True)
    if pairs > 2:
        assert plain["low"] <= plain["estimate"] <= plain["high"]


@pytest.mark.slow
@pytest.mark.parametrize(("pairs", "seeds"), [(3, 3), (12, 3), (12, 5)])
def test_coverage_is_near_nominal(pairs: int, seeds: int) -> None:
    """benchmarks/interval_coverage.py prints the figures. Skewed pair effects cost some points, but no more."""
    rng = np.random.default_rng([pairs, seeds])
    for between, skewed in itertools.product([0.0, 1.0, 3.0], [False, True]):
        data, of_these = studies(rng, pairs, seeds, between, 4000, skewed)
        found = intervals(keyed(data))
        covered = ((found["low"] <= 0) & (found["high"] >= 0)).mean()
        # 4,000 studies: standard error 0.35 points.
        assert (0.88 if skewed else 0.93) < covered < 0.965, (between, skewed, covered)
        covered = ((found["these_low"] <= of_these) & (found["these_high"] >= of_these)).mean()
        assert 0.935 < covered < 0.965, (between, skewed, covered)


def test_an_entrys_interval_is_the_one_for_these_very_pairs_on_the_scale_of_log_odds() -> None:
    """At 50 % the scale is straight: odds of 1 have the slope 4 per unit, so a small interval is that of t."""
    rng = np.random.default_rng(3)
    drawn = {(pair, seed): float(rng.normal(50, 0.4)) for pair in ("a>b", "b>c", "c>a") for seed in range(4)}
    series = pd.Series(drawn, name="x")
    series += 50 - series.mean()
    series.index.names = ["pair", "seed"]
    values = dict(zip(drawn, series, strict=True))
    found = intervals(series.to_frame()).loc["x"]
    interval = interval_over_seeds(values, dict.fromkeys(values, 1 / 12))
    assert interval is not None
    assert interval == pytest.approx((found["these_low"], found["these_high"]), abs=0.001)
    two = {("a>b", 0): 1.0, ("a>b", 1): 3.0, ("b>c", 0): 2.0, ("b>c", 1): 2.0}
    assert interval_over_seeds(two, dict.fromkeys(two, 0.25)) is None


def test_an_entrys_interval_by_hand() -> None:
    """90, 94, 98: mean 94, standard deviation 4, error 4 / sqrt(3); t(0.975, 2) = 4.3026527."""
    values = {("a>b", seed): accuracy for seed, accuracy in enumerate((90.0, 94.0, 98.0))}
    half = 4.3026527 * 0.04 / 3**0.5 / (0.94 * 0.06)
    odds = [np.log(0.94 / 0.06) + side * half for side in (-1, 1)]
    assert interval_over_seeds(values, dict.fromkeys(values, 1 / 3)) == pytest.approx(
        [100 / (1 + np.exp(-each)) for each in odds]
    )


@given(st.lists(st.floats(0, 100), min_size=3, max_size=8))
def test_no_interval_of_accuracies_leaves_0_to_100(accuracies: list[float]) -> None:
    values = {("a>b", seed): accuracy for seed, accuracy in enumerate(accuracies)}
    interval = interval_over_seeds(values, dict.fromkeys(values, 1 / len(values)))
    assert interval is not None
    mean = np.mean(accuracies)
    assert 0 <= interval[0] <= mean + 1e-9
    assert mean - 1e-9 <= interval[1] <= 100


@pytest.mark.parametrize(("mean", "spread"), [(50.0, 3.0), (90.0, 2.0), (97.0, 0.8)])
def test_an_entrys_interval_covers_the_true_mean_as_often_as_it_says(mean: float, spread: float) -> None:
    """4,000 studies of three seeds; a standard error is 0.35 points."""
    rng = np.random.default_rng(1)
    held = 0
    for accuracies in rng.normal(mean, spread, (4000, 3)).clip(0, 100):
        values = {("a>b", seed): float(accuracy) for seed, accuracy in enumerate(accuracies)}
        low, high = interval_over_seeds(values, dict.fromkeys(values, 1 / 3)) or (np.nan, np.nan)
        held += low <= mean <= high
    assert 0.93 < held / 4000 < 0.965


def test_of_two_units_the_values_stand_in_the_place_of_an_interval() -> None:
    found = intervals(keyed(np.array([[1.0, 2.0], [3.0, 6.0]]))).iloc[0]
    assert found["kind"] == "two pairs"
    assert found[["low", "high", "these_low", "these_high"]].isna().all()
    assert (found["by_pair"], found["by_seed"]) == ("1.50, 4.50", "2.00, 4.00")
    assert interval_or_values(found["low"], found["high"], found["by_pair"]) == "only 1.50, 4.50"
    three = intervals(keyed(np.array([[1.0, 2.0, 3.0]] * 3))).iloc[0]
    assert (three["by_pair"], three["by_seed"]) == ("", "")
