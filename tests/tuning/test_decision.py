"""Which setting is chosen: the default, unless another one is reliably above it; and what lies at an edge."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from scale_ray.config import TrialConfig
from scale_ray.tuning.decision import Decision, decide, edges
from scale_ray.tuning.setting import Setting
from scale_ray.tuning.space import contains, default_setting, read_space

BASE = TrialConfig()


def setting(number: int, scores: list[float], *, default: bool = False, state: str = "done") -> Setting:
    return Setting(
        number,
        {"losses.threshold": 0.5 + number / 10},
        state,  # type: ignore[arg-type]
        validators={"im": sum(scores) / len(scores)},
        by_repeat={"im": scores},
        repeats=len(scores),
        default=default,
    )


def decided(*settings: Setting) -> Decision:
    found = decide(settings, "im")
    assert found is not None
    return found


def test_a_setting_that_is_above_the_default_on_every_repeat_is_chosen() -> None:
    """Gains 1.0, 1.1, 0.9, 1.0: mean 1, sd 0.0816, t = 24.5 on 3 degrees of freedom: p 0.00007, one comparison."""
    found = decided(setting(0, [1.0, 2.0, 3.0, 4.0], default=True), setting(1, [2.0, 3.1, 3.9, 5.0]))
    assert (found.chosen.number, found.highest.number) == (1, 1)
    assert "setting 1 scores 1 above the default (one-sided paired t over 4 repeats, p 7.5e-05" in found.why


def test_a_gain_that_is_within_the_spread_of_repeats_keeps_the_default() -> None:
    found = decided(setting(0, [1.0, 2.0, 3.0], default=True), setting(1, [4.0, 1.0, 3.5]))
    assert (found.chosen.number, found.highest.number) == (0, 1)
    assert "which is not reliable" in found.why
    assert "so the default is kept" in found.why


def test_many_settings_need_a_larger_gain_than_one() -> None:
    """Gains 1.0, 1.3, 0.7: t = 5.77 on 2 degrees of freedom, one-sided p 0.0144: enough alone, not among ten."""
    usual, best = setting(0, [1.0, 2.0, 3.0], default=True), setting(1, [2.0, 3.3, 3.7])
    others = [setting(number, [0.0, 0.0, 0.0]) for number in range(2, 11)]
    assert decided(usual, best).chosen.number == 1
    assert decided(usual, best, *others).chosen.number == 0


@pytest.mark.parametrize("repeats", [1, 2])
def test_fewer_than_three_repeats_can_show_nothing(repeats: int) -> None:
    found = decided(setting(0, [1.0] * repeats, default=True), setting(1, [9.0] * repeats))
    assert found.chosen.number == 0
    assert "cannot show that this is reliable (3 at least: --seeds, --pairs)" in found.why


def test_where_the_default_scores_highest_it_is_kept() -> None:
    found = decided(setting(0, [3.0, 3.0, 3.0], default=True), setting(1, [1.0, 1.0, 1.0]))
    assert found.chosen.number == 0
    assert found.why == "the default setting scores highest, so it is kept"


def test_without_a_default_that_is_done_the_highest_is_taken_and_that_is_said() -> None:
    failed = setting(0, [9.0, 9.0, 9.0], default=True, state="failed")
    found = decided(failed, setting(1, [1.0, 1.0, 1.0]))
    assert found.chosen.number == 1
    assert "the default setting is not done" in found.why
    assert decide([failed], "im") is None


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
    assert line.endswith("try --space optim.batch_size=int:40:88:16")


def test_a_field_that_takes_no_value_beyond_the_edge_says_so() -> None:
    space = {"optim.momentum": FloatDistribution(0.0, 0.9)}
    (line,) = edges(space, {"optim.momentum": 0.0}, BASE)
    assert line.endswith("the field takes no value beyond it")


def test_words_have_no_edge() -> None:
    assert not edges({"views.strong": CategoricalDistribution(["a", "b"])}, {"views.strong": "a"}, BASE)


@pytest.mark.parametrize(
    ("text", "value", "inside"),
    [
        ("losses.threshold=float:0.5:0.95:0.05", 0.8, True),
        ("losses.threshold=float:0.5:0.7", 0.8, False),
        ("losses.threshold=float:0.5:0.95:0.09", 0.8, False),
        ("losses.threshold=0.7|0.9", 0.8, False),
        ("losses.threshold=0.7|0.8", 0.8, True),
        ("losses.terms=ce+ssl|ce+ssl+dist+reg", "ce+ssl+dist+reg", True),
    ],
)
def test_the_default_setting_is_known_inside_and_outside_of_a_range(text: str, value: object, inside: bool) -> None:
    base = BASE.replace({"data.benchmark": "digits", "data.source": "mnist", "data.target": "mnistm"})
    space = read_space([text], base)
    usual = default_setting(space, base)
    assert list(usual.values()) == [value]
    assert contains(space, usual) == inside
