"""The sentence on the best: all its numbers are over the same keys, and it says how sure they are."""

import numpy as np
import pandas as pd
import pytest

from scale_ray.report.effects.columns import interval, whole
from scale_ray.report.page.ranking import differences, named, of_scope, without_holes

WAVES = (0.0, 0.4, -0.3, 0.7, -0.6, 0.2, 0.5, -0.4, 0.1, -0.2, 0.3, -0.7)


def table_of(gains: dict[str, float], pairs: int, seeds: int = 1, wave: float = 1.0) -> pd.DataFrame:
    """Accuracies 50 + a pair's ease + a gain; the gains of ssl-like labels differ between pairs by a wave."""
    index = pd.MultiIndex.from_product([[f"p{pair}" for pair in range(pairs)], range(seeds)], names=["pair", "seed"])
    ease = np.array([3.0 * int(pair[1:]) for pair, _ in index])
    ripple = np.array([wave * WAVES[int(pair[1:])] for pair, _ in index])
    return pd.DataFrame({label: 50 + ease + gain + ripple * (gain != 0) for label, gain in gains.items()}, index=index)


def test_the_best_is_the_highest_on_the_keys_that_are_printed() -> None:
    """Of 12 pairs `late` lacks one; on the 11 others `second` is ahead of `best`, which wins on the twelfth."""
    others = {f"m{number:02}": 1.0 + number / 10 for number in range(10)}
    table = table_of({"ce": 0.0, "best": 5.0, "second": 5.1, "late": 9.0} | others, 12, wave=0.0)
    table.loc[("p11", 0), "best"] += 20
    table.loc[("p11", 0), "late"] = np.nan
    told = of_scope("here", table, "ce")
    # ce: 50 + the mean of 0, 3, … 33 = 66.5; best: 66.5 + 5 + 20 / 12 = 73.2.
    assert told.startswith("here: best has the highest accuracy by target labels, 73.2 % on average over 12 pairs and")
    assert "6.7 points above the baseline ce." in told
    assert "The second, second, is 1.6 points below" in told
    assert told.endswith("late is not ranked, because it lacks some of these trainings.")


def test_labels_without_holes_are_compared_on_as_many_trainings_as_possible() -> None:
    table = table_of({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, 12)
    for place, label in enumerate(table):
        table.iloc[place, table.columns.get_loc(label)] = np.nan
    # All four have 8 keys (32 trainings); three have 9 (27).
    assert without_holes(table).shape == (8, 4)
    more_seeds = table_of({"a": 1.0, "b": 2.0, "c": 3.0}, 4, seeds=3)
    more_seeds.loc[more_seeds.index.get_level_values("seed") > 0, "c"] = np.nan
    assert list(without_holes(more_seeds)) == ["a", "b"]  # 24 trainings; with c, 12
    apart = pd.DataFrame({"a": [1.0, np.nan], "b": [np.nan, 1.0]}, index=table.index[:2])
    assert "no two of 2 have a pair and seed in common" in of_scope("here", apart, "a")


def test_a_baseline_that_is_not_ranked_gives_no_gain() -> None:
    table = table_of({"ce": 30.0, "a": 5.0, "b": 4.0}, 6)
    table.loc[[("p0", 0), ("p1", 0), ("p2", 0), ("p3", 0)], "ce"] = np.nan
    told = of_scope("here", table, "ce")
    assert "The baseline ce lacks some of these trainings, so there is no gain to state." in told
    assert "points above" not in told
    assert "ce is not ranked" in told


def test_a_difference_on_other_pairs_is_told_with_its_p_and_who_else_differs() -> None:
    told = of_scope("here", table_of({"ce": 0.0, "a": 5.0, "b": 4.0}, 12), "ce")
    # Of 2^12 flips 2 are as extreme: p = 2 / 4096, twice for two comparisons.
    assert "(95 %, of this comparison alone); it differs from the baseline (p < 0.001 after correction for 2" in told
    assert "Also shown to differ from the baseline there: b (+4.0)." in told


def test_an_interval_above_0_without_a_shown_difference_says_that_p_is_corrected() -> None:
    table = table_of({"ce": 0.0, "a": 5.0}, 9)
    table.iloc[0, 1] = table.iloc[0, 0] - 0.2
    rng = np.random.default_rng(0)
    for label in "bcdefgh":
        table[label] = table["ce"] + rng.normal(size=9)
    row = differences(table, "ce").loc["a"]
    # The one negative gain is the smallest, so of 2^9 flips 4 are as extreme: 0.0078, and 0.0625 for 8 comparisons.
    assert row["low"] > 0
    assert row["p_pairs_holm"] == pytest.approx(8 * 4 / 2**9)
    told = of_scope("here", table, "ce")
    assert "that it differs from the baseline is not shown (p = 0.06 after correction for 8 comparisons)." in told


def test_of_few_pairs_the_assumption_is_named_and_no_test() -> None:
    told = of_scope("here", table_of({"ce": 0.0, "a": 5.0}, 3), "ce")
    assert "points (95 %, if gains are normally distributed). With fewer than 6 pairs no test can show" in told
    six = table_of({"ce": 0.0, "a": 5.0, "b": 4.0}, 6)
    # 2 / 2^6 = 0.031, and 0.0625 for two comparisons.
    assert (
        "6 pairs are too few to show that it differs: p after correction for 2 comparisons cannot be below 0.05."
        in (of_scope("here", six, "ce"))
    )


def test_no_interval_is_infinite_or_of_no_width() -> None:
    """Five of six pairs have the same gain: many draws have no spread, and the upper end is without bound."""
    table = table_of({"ce": 0.0, "a": 5.0}, 6, wave=0.0)
    table.iloc[0, 1] += 6
    row = differences(table, "ce").loc["a"]
    assert np.isinf([row["low"], row["high"]]).any()
    told = of_scope("here", table, "ce")
    assert "inf" not in told
    assert "at least" in told or "at most" in told or "no bound" in told
    assert "no bound" in interval(row["low"], row["high"])
    assert (interval(5.0, 5.0), whole(np.inf)) == ("all the same", "—")

    alike = of_scope("here", table_of({"ce": 0.0, "a": 5.0}, 3, seeds=3, wave=0.0), "ce")
    assert "All seeds gave the same gain on these pairs" in alike
    assert "5.0 to 5.0" not in alike


def test_seeds_of_other_pairs_are_not_beside_each_other_without_saying_so() -> None:
    """Of six pairs the second seed has one alone, whose gain is 30."""
    table = table_of({"ce": 0.0, "a": 5.0}, 6, wave=0.0)
    more = table.iloc[:1].rename(index={0: 1}, level="seed")
    more["a"] += 25
    row = differences(pd.concat([table, more]), "ce").loc["a"]
    assert row["by_seed"] == "5.00, 30.00 (1 of 6 pairs)"


def test_many_names_are_cut() -> None:
    assert named(["a"]) == "a"
    assert named(["a", "b"]) == "a and b"
    assert named(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"
