"""Which setting is chosen: the default, unless another one is reliably above it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scale_ray.config import TrialConfig
from scale_ray.tuning.decision import Decision, decide, units_of
from scale_ray.tuning.setting import Setting
from scale_ray.tuning.space import contains, default_setting, read_space


def setting(
    number: int, scores: Sequence[float], *, default: bool = False, state: str = "done", pairs: int = 1
) -> Setting:
    """Scores in the order of seeds, those of the first pair first."""
    seeds = len(scores) // pairs
    repeats = [f"domain {place // seeds}>b seed {place % seeds}" for place in range(len(scores))]
    return Setting(
        number,
        {"losses.threshold": 0.5 + number / 10},
        state,  # type: ignore[arg-type]
        validators={"im": sum(scores) / len(scores)} if scores else {},
        by_repeat={"im": dict(zip(repeats, scores, strict=True))} if scores else {},
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
    assert found.why == (
        "setting 1 scores 1 above the default, reliably for other seeds on this pair only (one-sided paired t over 4 "
        "seeds of 1 pair, p 7.5e-05 after correction for 1 setting): a gain in im, not in accuracy"
    )


def test_a_gain_that_is_within_the_spread_of_repeats_keeps_the_default() -> None:
    found = decided(setting(0, [1.0, 2.0, 3.0], default=True), setting(1, [4.0, 1.0, 3.5]))
    assert (found.chosen.number, found.highest.number) == (0, 1)
    assert "not reliably for other seeds on this pair only" in found.why
    assert "so the default is kept" in found.why


def test_many_settings_need_a_larger_gain_than_one() -> None:
    """Gains 1.0, 1.3, 0.7: t = 5.77 on 2 degrees of freedom, one-sided p 0.0144: enough alone, not among ten."""
    usual, best = setting(0, [1.0, 2.0, 3.0], default=True), setting(1, [2.0, 3.3, 3.7])
    others = [setting(number, [0.0, 0.0, 0.0]) for number in range(2, 11)]
    assert decided(usual, best).chosen.number == 1
    assert decided(usual, best, *others).chosen.number == 0


@pytest.mark.parametrize("state", ["stopped", "pruned", "failed", "open", "incomplete"])
def test_settings_that_ended_early_count_as_comparisons(state: str) -> None:
    """As above: each of the nine could have been the highest."""
    usual, best = setting(0, [1.0, 2.0, 3.0], default=True), setting(1, [2.0, 3.3, 3.7])
    found = decided(usual, best, *(setting(number, [], state=state) for number in range(2, 11)))
    assert found.chosen.number == 0
    assert "p 0.14 after correction for 10 settings" in found.why


def test_scores_are_paired_by_repeat_and_not_by_their_place() -> None:
    """Gains 1.0, 1.1, 0.9, 1.0 as in the first test; paired by place they would be 4, 0.1, -0.1, 0."""
    usual, best = setting(0, [1.0, 2.0, 3.0, 4.0], default=True), setting(1, [2.0, 3.1, 3.9, 5.0])
    turned = dict(reversed(best.by_repeat["im"].items()))
    assert decided(usual, replace(best, by_repeat={"im": turned})).why == decided(usual, best).why


def test_seeds_are_tested_within_their_pairs() -> None:
    """Gains 1, 2 and 11, 12: within pairs sd 0.707 on 2 degrees of freedom, error 0.354, t = 6.5 / 0.354 = 18.4."""
    found = decided(setting(0, [0.0] * 4, default=True, pairs=2), setting(1, [1.0, 2.0, 11.0, 12.0], pairs=2))
    assert found.chosen.number == 1
    assert (
        "reliably for other seeds on these pairs only (one-sided paired t over 4 seeds of 2 pairs, p 0.0015 after"
        in (found.why)
    )


def test_from_six_pairs_on_their_means_are_tested() -> None:
    """Means 1, 1, 1, 1, 1, -3: t = 0.333 / 0.667 = 0.5, though the seeds of each pair differ by 0.002 alone."""
    gains = [gain for mean in (1.0, 1.0, 1.0, 1.0, 1.0, -3.0) for gain in (mean - 0.001, mean + 0.001)]
    usual, best = setting(0, [0.0] * 12, default=True, pairs=6), setting(1, gains, pairs=6)
    found = decided(usual, best)
    assert found.chosen.number == 0
    assert "not reliably for other pairs like these (one-sided paired t over 6 pairs, p 0.32 after" in found.why


@pytest.mark.parametrize(
    ("pairs", "seeds", "over"),
    [
        (1, 2, None), (2, 1, None), (1, 3, "3 seeds of 1 pair"), (2, 2, "4 seeds of 2 pairs"), (3, 1, "3 pairs"),
        (3, 3, "9 seeds of 3 pairs"), (5, 1, "5 pairs"), (5, 3, "15 seeds of 5 pairs"), (6, 3, "6 pairs"),
    ],
)  # fmt: skip
def test_what_a_gain_is_tested_over(pairs: int, seeds: int, over: str | None) -> None:
    units = units_of([f"{pair}>b seed {seed}" for seed in range(seeds) for pair in range(pairs)])
    assert (units and units.text) == over


@pytest.mark.parametrize("repeats", [1, 2])
def test_fewer_than_three_repeats_can_show_nothing(repeats: int) -> None:
    found = decided(setting(0, [1.0] * repeats, default=True), setting(1, [9.0] * repeats))
    assert found.chosen.number == 0
    assert "cannot show that this is reliable (3 at least: --seeds, --pairs)" in found.why


def test_where_the_default_scores_highest_it_is_kept() -> None:
    found = decided(setting(0, [3.0, 3.0, 3.0], default=True), setting(1, [1.0, 1.0, 1.0]))
    assert found.chosen.number == 0
    assert found.why == "the default setting scores highest, so it is kept"


@pytest.mark.parametrize("state", ["stopped", "pruned", "failed", "open", "incomplete"])
def test_a_default_that_cannot_be_compared_is_kept(state: str) -> None:
    """None of these is evidence that another one is better, whatever its score."""
    usual = setting(0, [0.0, 0.0], default=True, state=state)
    found = decided(usual, setting(1, [9.0, 9.1, 9.2]))
    assert (found.chosen.number, found.highest.number) == (0, 1)
    assert found.why == (
        f"setting 1 scores highest, but the default setting is {state}, so nothing can be compared with it, and it is "
        "kept"
    )
    assert decide([usual], "im") is None


def test_where_the_default_is_not_known_nothing_is_said_of_a_gain() -> None:
    """A search that an earlier version began."""
    found = decided(setting(0, [1.0, 2.0, 3.0]), setting(1, [2.0, 3.1, 3.9]))
    assert found.chosen.number == 1
    assert found.why == "it scores highest; which setting is the default is not known"


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
    base = TrialConfig().replace({"data.benchmark": "digits", "data.source": "mnist", "data.target": "mnistm"})
    space = read_space([text], base)
    usual = default_setting(space, base)
    assert list(usual.values()) == [value]
    assert contains(space, usual) == inside
