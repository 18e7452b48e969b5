from math import inf, nan

import numpy as np
import pytest
from factorials import COMBINATIONS, cells_of

from scale_ray.report.effects.claims import CLAIMS, Claim, claims, verdict_of

PAPER = dict(zip(COMBINATIONS, [61.0, 61.0, 66.0, 61.5, 74.0, 62.0, 70.0, 75.25], strict=True))
RANGE = Claim("", {}, -1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.5, 0.5, "holds"),
        (-1.0, 1.0, "holds"),
        (1.1, 3.0, "does not hold"),
        (-9.0, -1.5, "does not hold"),
        (0.5, 1.5, "too few cells"),
        (-30.0, 30.0, "too few cells"),
        (nan, nan, "too few cells"),
    ],
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert verdict_of(low, high, RANGE)[0] == verdict


def test_the_reason_has_the_numbers() -> None:
    assert verdict_of(5.2, 7.0, Claim("", {}, 5.0, inf)) == ("holds", "[5.20, 7.00] lies in [5, ∞)")


def test_every_claim_speaks_of_combinations_that_exist() -> None:
    assert all(set(claim.weights) <= set(COMBINATIONS) and sum(claim.weights.values()) == 0 for claim in CLAIMS)


def test_a_world_as_the_paper_says_it_is() -> None:
    rng = np.random.default_rng(0)
    found = claims(cells_of(lambda label, pair, seed: PAPER[label] + pair + rng.normal(0, 0.2), 12, 3))
    assert found["verdict"].tolist() == ["holds"] * 5
    assert found["verdict_these_pairs"].tolist() == ["holds"] * 5
    assert (found["p_tost"] < 0.025).all()
    assert found["estimate"].tolist() == pytest.approx([0, 0.5, 13, 8, 1.25], abs=0.2)


def test_a_world_where_ssl_does_it_all() -> None:
    rng = np.random.default_rng(0)
    cells = cells_of(lambda label, pair, seed: 40 + 40 * ("ssl" in label) + rng.normal(0, 0.2), 12, 3)
    found = claims(cells).set_index("claim")
    assert found["verdict"].tolist()[:3] == ["does not hold", "holds", "holds"]
    assert found["verdict"].iloc[4] == "does not hold"
    # The gain over the sum of its parts is 0: on the edge of its range, so that no number of cells tells.
    assert found["verdict"].iloc[3] == "too few cells"


def test_too_few_cells_say_what_is_lacking() -> None:
    rng = np.random.default_rng(0)

    def accuracy(label: str, pair: int, seed: int) -> float:
        return PAPER[label] + rng.normal(0, 0.2)

    without = claims(cells_of(accuracy, 12, 3, [label for label in COMBINATIONS if label != "ce+reg"]))
    assert without["why"][1] == "no cell of ce+reg"
    assert without["verdict"].tolist() == ["holds", "too few cells", "holds", "holds", "holds"]
    one = claims(cells_of(accuracy, 1, 5))
    assert set(one["verdict"]) == {"too few cells"}
    assert one["why"][0] == "fewer than three pairs: no interval over pairs"
    assert one["verdict_these_pairs"][2] == "holds"


def test_only_keys_with_all_of_a_claims_combinations_count() -> None:
    cells = cells_of(lambda label, pair, seed: PAPER[label] + 0.1 * pair * len(label), 3, 1)
    holed = cells[~((cells["label"] == "ce+ssl") & (cells["pair"] == "pair2"))]
    found = claims(holed)
    assert found["left_out"].tolist() == [1, 0, 0, 1, 0]
    assert found["pairs"].tolist() == [2, 3, 3, 2, 3]
    apart = cells[~cells["pair"].where(cells["label"] == "ce+ssl", "x").isin(["pair0", "pair1"])]
    apart = apart[~((apart["label"] == "ce") & (apart["pair"] == "pair2"))]
    assert claims(apart)["why"][0] == "no key that all of ce+ssl, ce have"
