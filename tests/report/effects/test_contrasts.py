import itertools
import math

import numpy as np
import pandas as pd
import pytest
from factorials import COMBINATIONS, TERMS, cells_of
from hypothesis import given, settings
from hypothesis import strategies as st

from scale_ray.config import LossesConfig
from scale_ray.report.effects.combinations import combination
from scale_ray.report.effects.contrasts import (
    accuracies,
    factorial_weights,
    main_effects,
    shapley_values,
    shapley_weights,
)
from scale_ray.report.read.errors import ReportError

HAND = dict(zip(COMBINATIONS, [60.0, 60, 66, 62, 74, 63, 70, 75], strict=True))


def test_combinations_are_written_as_configs_write_them() -> None:
    assert ["ce", *TERMS] == list(LossesConfig().terms)
    assert COMBINATIONS[0] == "ce"
    assert COMBINATIONS[5] == "ce+ssl+reg"
    assert combination(["ssl", "reg"]) == "ce+ssl+reg"
    assert len(set(COMBINATIONS)) == 8


def test_effects_by_hand() -> None:
    found = main_effects(cells_of(lambda label, pair, seed: HAND[label] + pair, 2, 1), TERMS).set_index("effect")[
        "estimate"
    ]
    # ssl: (60 - 60 + 74 - 66 + 63 - 62 + 75 - 70) / 4. ssl x dist: ((8 + 5) / 2 - (0 + 1) / 2) / 2.
    # Three-way: half of (ssl x dist with reg, (5 - 1) / 2, minus without, (8 - 0) / 2).
    assert found["ssl"] == pytest.approx(3.5)
    assert found["ssl x dist"] == pytest.approx(3.0)
    assert found["ssl x dist x reg"] == pytest.approx(-1.0)


def test_shapley_by_hand() -> None:
    found = shapley_values(cells_of(lambda label, pair, seed: HAND[label] - seed, 2, 2), TERMS).set_index("term")[
        "estimate"
    ]
    # ssl joins first (2 of 6 orders): 0; after dist: 8; after reg: 1; last (2 of 6): 5. (2*0 + 8 + 1 + 2*5) / 6.
    assert found["ssl"] == pytest.approx(19 / 6)
    # dist: first 6 twice, after ssl 14, after reg 8, last 12 twice.
    assert found["dist"] == pytest.approx((12 + 14 + 8 + 24) / 6)
    assert found.sum() == pytest.approx(75 - 60)


def test_shapley_weights_are_those_of_the_subset_formula() -> None:
    weights = shapley_weights(TERMS)
    for term in TERMS:
        others = [other for other in TERMS if other != term]
        for size in range(3):
            for subset in itertools.combinations(others, size):
                share = math.factorial(size) * math.factorial(2 - size) / math.factorial(3)
                assert weights.loc[combination(sorted([*subset, term], key=TERMS.index)), term] == pytest.approx(share)
                assert weights.loc[combination(subset), term] == pytest.approx(-share)


def test_factorial_weights_are_orthogonal_contrasts() -> None:
    weights = factorial_weights(TERMS)
    np.testing.assert_allclose(weights.T @ weights, np.eye(7) / 2, atol=1e-12)
    np.testing.assert_allclose(weights.sum(), 0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=7, max_size=7), st.integers(0, 9))
def test_a_simulated_factorial_is_recovered(effects: list[float], seed: int) -> None:
    """y = pair + seed + sum of effect / 2 * product of signs: half, for an effect is the step from -1 to +1."""
    rng = np.random.default_rng(seed)
    pair_level, seed_level = rng.normal(60, 10, size=3), rng.normal(0, 2, size=(3, 2))
    signs = factorial_weights(TERMS) * 4
    half = (signs * np.array(effects) / 2).sum(axis=1)
    cells = cells_of(lambda label, pair, seed: pair_level[pair] + seed_level[pair, seed] + half[label], 3, 2)
    found = main_effects(cells, TERMS)
    # What combinations share cancels key by key, so nothing of the levels is left in estimate or interval.
    np.testing.assert_allclose(found["estimate"], effects, atol=1e-9)
    np.testing.assert_allclose(found["low"], found["high"], atol=1e-6)
    accuracy = cells.groupby("label")["accuracy"].mean()
    shapley = shapley_values(cells, TERMS)["estimate"]
    assert shapley.sum() == pytest.approx(accuracy["ce+ssl+dist+reg"] - accuracy["ce"], abs=1e-9)


def test_noise_is_averaged_out_and_stays_in_the_interval() -> None:
    rng = np.random.default_rng(7)
    cells = cells_of(lambda label, pair, seed: 60 + 4 * ("dist" in label) + rng.normal(), 12, 20)
    found = main_effects(cells, TERMS).set_index("effect")
    truth = pd.Series({effect: 4.0 if effect == "dist" else 0.0 for effect in found.index})
    # Error of an effect: 2 / sqrt(8 * 240) = 0.046; five of them.
    np.testing.assert_allclose(found["estimate"], truth, atol=0.23)
    assert (found["high"] - found["low"]).between(0.09, 0.4).all()


def test_what_is_missing_is_named() -> None:
    cells = cells_of(lambda label, pair, seed: HAND[label], 2, 2)
    holed = cells.drop(cells[(cells["label"] == "ce+reg") & (cells["pair"] == "pair1") & (cells["seed"] == 0)].index)
    with pytest.raises(ReportError, match=r"no accuracy for ce\+reg on pair1 seed 0:"):
        main_effects(holed, TERMS)
    with pytest.raises(ReportError, match=r"ce\+ssl\+reg on pair0 seed 0, .*pair1 seed 1"):
        shapley_values(cells[cells["label"] != "ce+ssl+reg"], TERMS)
    with pytest.raises(ReportError, match="no accuracy for dann"):
        accuracies(cells, ["dann"])


def test_two_backbones_are_two_blocks_and_never_mixed() -> None:
    small = cells_of(lambda label, pair, seed: HAND[label], 2, 1)
    large = cells_of(lambda label, pair, seed: 2 * HAND[label], 2, 1, backbone="resnet101")
    found = shapley_values(pd.concat([large, small]), TERMS).set_index(["backbone", "term"])["estimate"]
    assert list(found.index.unique("backbone")) == ["resnet50", "resnet101"]
    assert found["resnet101", "dist"] == pytest.approx(2 * found["resnet50", "dist"])
    with pytest.raises(ReportError, match=r"two accuracies for .*one backbone"):
        accuracies(pd.concat([large, small]), COMBINATIONS)
