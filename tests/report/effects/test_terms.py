"""Effects and Shapley values of whatever loss terms occur in the cells."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factorials import cells_of
from report_stores import config_of

from scale_ray.report import load, write_report
from scale_ray.report.build import Asked
from scale_ray.report.effects.combinations import combination, combinations, is_combination, optional_terms
from scale_ray.report.effects.contrasts import factorial_weights, main_effects, shapley_values, shapley_weights
from scale_ray.report.effects.measured import complete_factorials
from scale_ray.report.effects.tables import effects_tables
from scale_ray.store import Store

MAKE = Callable[..., Store]
GAIN = {"ssl": 2.0, "dist": 5.0, "reg": 0.5, "mine": -3.0}
FOUR = ("ssl", "dist", "reg", "mine")


def additive(label: str) -> float:
    """Accuracy with a gain of each term, and 4 points more for ssl with mine."""
    terms = set(label.split("+"))
    return 50 + sum(gain for term, gain in GAIN.items() if term in terms) + 4 * ({"ssl", "mine"} <= terms)


def cells(make_store: MAKE, labels: list[str], seeds: int = 2) -> pd.DataFrame:
    return load(
        make_store(
            [
                (config_of(source, "mnistm", label, "lenet", seed), additive(label) + index + seed)
                for label in labels
                for index, source in enumerate(["mnist", "fonts"])
                for seed in range(seeds)
            ]
        ).location
    )


def estimates(frame: pd.DataFrame, name: str) -> dict[str, float]:
    return {label: pytest.approx(value) for label, value in zip(frame[name], frame["estimate"], strict=True)}


def test_terms_are_those_of_plain_combinations_in_the_order_of_configs() -> None:
    labels = ["ce", "ce+mine", "ce+reg", "ce+ssl+zeta", "ce+0.5*dist", "ce+dist (scale bank)", "dann", "cdan+E"]
    assert optional_terms(labels) == ("ssl", "reg", "mine", "zeta")
    assert optional_terms(["ce", "dann (ce+reg)"]) == ()
    assert [label for label in labels if not is_combination(label)] == labels[4:]


def test_labels_of_a_factorial_are_those_of_configs() -> None:
    for label in combinations(FOUR):
        assert config_of("mnist", "mnistm", label, "lenet", 0).combination == label


@pytest.mark.parametrize("size", range(1, 6))
def test_shapley_weights_average_over_all_orders(size: int) -> None:
    terms = [f"t{number}" for number in range(size)]
    expected = pd.DataFrame(0.0, index=list(combinations(terms)), columns=terms)
    for order in itertools.permutations(terms):
        for position, term in enumerate(order):
            before = sorted(order[:position])
            expected.loc[combination(sorted([*before, term])), term] += 1 / math.factorial(size)
            expected.loc[combination(before), term] -= 1 / math.factorial(size)
    pd.testing.assert_frame_equal(shapley_weights(terms), expected)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_weights_of_effects_are_orthogonal_contrasts(size: int) -> None:
    weights = factorial_weights(FOUR[:size])
    assert weights.shape == (2**size, 2**size - 1)
    np.testing.assert_allclose(weights.T @ weights, np.eye(2**size - 1) * 2 ** (2 - size), atol=1e-12)
    np.testing.assert_allclose(weights.sum(), 0, atol=1e-12)


def test_four_terms_have_sixteen_combinations(make_store: MAKE) -> None:
    effects = effects_tables(cells(make_store, list(combinations(FOUR))))
    frames = effects.frames
    assert effects.notes == []
    # Of 4 points for ssl with mine, each of the two has half: it counts in half of the combinations and of the orders.
    expected = {"ssl": 4.0, "dist": 5.0, "reg": 0.5, "mine": -1.0}
    assert estimates(frames["shapley"], "term") == expected
    found = estimates(frames["effects"], "effect")
    assert len(found) == 15
    assert {name: found.pop(name) for name in [*expected, "ssl x mine"]} == expected | {"ssl x mine": 2.0}
    assert set(map(abs, frames["effects"].set_index("effect")["estimate"][list(found)].round(9))) == {0.0}
    assert list(frames["effects"]["effect"])[-1] == "ssl x dist x reg x mine"
    # The claims are the paper's, about its own terms.
    assert frames["claims"]["estimate"].tolist() == pytest.approx([2.0, 0.5, 7.0, 0.0, 0.5])


def test_two_terms_and_one_alone_have_effects_of_their_own(make_store: MAKE) -> None:
    two = cells(make_store, ["ce", "ce+ssl", "ce+dist", "ce+ssl+dist"])
    frames = effects_tables(two).frames
    assert estimates(frames["effects"], "effect") == {"ssl": 2.0, "dist": 5.0, "ssl x dist": 0.0}
    assert estimates(frames["shapley"], "term") == {"ssl": 2.0, "dist": 5.0}
    one = effects_tables(two[two["losses"].isin(["ce", "ce+ssl"])])
    assert estimates(one.frames["effects"], "effect") == {"ssl": 2.0}
    assert estimates(one.frames["shapley"], "term") == {"ssl": 2.0}
    assert one.notes == []


def test_without_an_optional_term_there_are_no_effects_and_no_note(make_store: MAKE) -> None:
    effects = effects_tables(cells(make_store, ["ce"]))
    assert effects.frames["effects"].empty
    assert effects.frames["shapley"].empty
    assert effects.notes == []


def test_facets_have_the_terms_of_their_own_cells(make_store: MAKE) -> None:
    outcomes = [
        (config_of("mnist", "mnistm", label, "lenet", 0, **{"optim.steps": steps}), additive(label))
        for steps, labels in ((600, ["ce", "ce+ssl"]), (900, ["ce", "ce+mine"]))
        for label in labels
    ]
    shapley = effects_tables(load(make_store(outcomes).location)).frames["shapley"]
    assert dict(zip(shapley["facet"], shapley["term"], strict=True)) == {
        "optim.steps=600": "ssl",
        "optim.steps=900": "mine",
    }


def test_what_the_larger_factorial_lacks_is_named(make_store: MAKE) -> None:
    labels = [*combinations(FOUR[:3]), "ce+ssl+dist+reg+mine"]
    effects = effects_tables(cells(make_store, labels, seeds=1))
    assert effects.frames["shapley"].empty
    assert effects.notes == [
        "digits: lenet: no effects or Shapley values: no cell of ce+mine, ce+ssl+mine, ce+dist+mine, ce+reg+mine, "
        "ce+ssl+dist+mine, ce+ssl+reg+mine, ce+dist+reg+mine is done."
    ]


def test_an_incomplete_factorial_of_many_terms_costs_nothing() -> None:
    terms = tuple(f"t{number:02}" for number in range(40))
    found = cells_of(lambda label, pair, seed: 50.0, 1, 1, ["ce", *(combination([term]) for term in terms)])
    assert optional_terms(found["label"]) == terms
    complete, notes = complete_factorials(found, terms)
    assert complete.empty
    assert main_effects(complete, terms).empty
    assert shapley_values(complete, terms).empty
    (note,) = notes
    assert "no cell of ce+t00+t01, ce+t00+t02" in note
    assert note.endswith(f"ce+t00+t08 and {2**40 - 41 - 8:,} more is done.")


def test_a_report_of_two_terms_draws_and_lists_them(make_store: MAKE, tmp_path: Path) -> None:
    two = ["ce", "ce+mine", "ce+ssl", "ce+ssl+mine"]
    store = make_store([(config_of("mnist", "mnistm", label, "lenet", 0), additive(label)) for label in two])
    paths = write_report(store.location, tmp_path / "out", Asked(most_drawn=1))
    assert "shapley-digits.svg" in {path.name for path in paths.figures}
    assert pd.read_csv(tmp_path / "out" / "shapley.csv")["term"].tolist() == ["ssl", "mine"]
    page = paths.page.read_text(encoding="utf-8")
    assert '<section id="shapley">' in page
    assert "What each loss term adds" in page
