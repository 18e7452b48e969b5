"""What lies at the edge of what was searched, and the range that is advised then."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from scale_ray.config import TrialConfig
from scale_ray.tuning.edges import edges
from scale_ray.tuning.space import read_space

BASE = TrialConfig()
DIGITS = BASE.replace({"data.benchmark": "digits", "data.source": "mnist", "data.target": "mnistm"})


@pytest.mark.parametrize(
    ("distribution", "value", "words"),
    [
        (
            FloatDistribution(0.5, 0.95),
            0.5,
            "lower edge of what was searched: try --space losses.threshold=float:0.275:0.725",
        ),
        (FloatDistribution(0.5, 0.95), 0.51, "lower edge"),
        (FloatDistribution(0.5, 0.95), 0.94, "upper edge"),
        (FloatDistribution(0.5, 0.95), 0.7, None),
        (CategoricalDistribution([0.7, 0.8, 0.9]), 0.9, "upper edge of what was searched: try values above it as well"),
        (CategoricalDistribution([0.7, 0.8, 0.9]), 0.8, None),
    ],
)
def test_an_edge_is_flagged_with_the_range_to_try(distribution: object, value: float, words: str | None) -> None:
    lines = edges({"losses.threshold": distribution}, {"losses.threshold": value}, BASE)  # type: ignore[dict-item]
    assert (words is None) == (not lines)
    if words is not None:
        assert words in lines[0]


def test_an_edge_on_a_logarithmic_scale_and_of_whole_numbers() -> None:
    """0.032 is 2 % of the way from 0.03 to 1; half of the range below 0.03 is a factor of the root of 33.3."""
    space = {"losses.temperature": FloatDistribution(0.03, 1.0, log=True)}
    (line,) = edges(space, {"losses.temperature": 0.032}, BASE)
    assert line.endswith("try --space losses.temperature=float:0.0052:0.173:log")
    whole = {"optim.batch_size": IntDistribution(16, 64, step=16)}
    (line,) = edges(whole, {"optim.batch_size": 64}, BASE)
    assert line.endswith("try --space optim.batch_size=int:32:96:16")  # of the same steps


def test_a_field_that_takes_no_value_beyond_the_edge_says_so() -> None:
    space = {"optim.momentum": FloatDistribution(0.0, 0.9)}
    (line,) = edges(space, {"optim.momentum": 0.0}, BASE)
    assert line.endswith("the field takes no value beyond it")


@pytest.mark.parametrize(
    ("text", "value", "advice"),
    [
        ("optim.batch_size=int:2:3", 2, "the field takes no value beyond it"),
        (
            "optim.batch_size=int:3:9",
            3,
            "try --space optim.batch_size=int:2:6",
        ),  # 0 is too small, the field's own bound
        ("optim.batch_size=int:2:3", 3, "try --space optim.batch_size=int:2:4"),
        ("losses.threshold=float:0.5:0.99", 0.99, "try --space losses.threshold=float:0.745:0.998"),  # 1 is excluded
        ("losses.threshold=float:0.1:0.9", 0.1, "try --space losses.threshold=float:0:0.5"),
        ("losses.threshold=float:0.5:0.9:0.1", 0.5, "try --space losses.threshold=float:0.3:0.7:0.1"),
        ("losses.threshold=float:0.5:0.9:0.1", 0.9, "the field takes no value beyond it"),  # a step ahead is 1
    ],
)
def test_the_advised_range_reaches_beyond_the_old_one(text: str, value: float, advice: str) -> None:
    space = read_space([text], DIGITS)
    (line,) = edges(space, {text.partition("=")[0]: value}, DIGITS)
    assert line.endswith(advice)


@given(low=st.floats(0.001, 0.9), width=st.floats(0.01, 0.5), form=st.sampled_from(["", ":log"]), upper=st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_advised_range_is_one_that_a_search_takes(low: float, width: float, form: str, upper: bool) -> None:
    high = min(0.999, low + width)
    space = read_space([f"losses.threshold=float:{low}:{high}{form}"], DIGITS)
    (line,) = edges(space, {"losses.threshold": high if upper else low}, DIGITS)
    words = line.partition("try --space ")[2]
    if not words:
        assert upper or not form  # down a logarithmic scale there is always room
        return
    advised = read_space([words], DIGITS)["losses.threshold"]
    assert (advised.high > high, advised.low < low) == (upper, not upper)
    assert advised.low < (high if upper else low) < advised.high  # the edge itself lies inside


def test_without_a_base_config_no_limit_is_claimed() -> None:
    (line,) = edges({"optim.momentum": FloatDistribution(0.0, 0.9)}, {"optim.momentum": 0.0}, None)
    assert line.endswith("try values below it as well")


def test_words_have_no_edge() -> None:
    assert not edges({"views.strong": CategoricalDistribution(["a", "b"])}, {"views.strong": "a"}, BASE)
