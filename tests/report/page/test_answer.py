"""What a report says first, on stores whose numbers are simple."""

from collections.abc import Callable

import pandas as pd
import pytest
from report_stores import cell_of, config_of, record_of

from scale_ray.config import TrialConfig
from scale_ray.report.effects.tables import effects_tables
from scale_ray.report.page.answer import NO_ACCURACY, Answer, answer
from scale_ray.report.read.completeness import check
from scale_ray.report.read.load import load
from scale_ray.store import Store, StudyPlan

MAKE = Callable[..., Store]
PAIRS = [("mnist", "mnistm"), ("fonts", "mnistm"), ("usps", "mnist"), ("fonts", "mnist"), ("fonts", "usps")]
COMMAND = "scale-ray ablate --benchmark digits --seeds 3 --store runs/x"


def outcomes(
    gains: dict[str, float], pairs: int, seeds: int, wobble: float = 0.0
) -> list[tuple[TrialConfig, float | None]]:
    """Accuracy 50 + 3 a pair + the gain; the gains of the seeds differ by the wobble, except those of ce."""
    return [
        (
            config_of(source, target, losses, "lenet", seed),
            50.0 + 3 * index + gain + (wobble * seed if gain else 0.0),
        )
        for index, (source, target) in enumerate(PAIRS[:pairs])
        for losses, gain in gains.items()
        for seed in range(seeds)
    ]


def answered(store: Store, command: str | None = COMMAND) -> Answer:
    cells, _ = check(load(store.location))
    return answer(cells, effects_tables(cells), commands={"s": command}, location=store.location)


def test_the_best_its_gain_over_the_baseline_and_how_sure_that_is(make_store: MAKE) -> None:
    """Gains of 12 + 0, 1, 2 of three seeds on each of three pairs: mean 13; the second gains 5 + the same."""
    found = answered(make_store(outcomes({"ce": 0.0, "ce+ssl": 5.0, "ce+ssl+dist": 12.0}, 3, 3, wobble=1.0)))
    (sentence,) = found.sentences
    assert sentence.startswith(
        "digits, lenet: ce+ssl+dist is best by target labels, 66.0 % on average over 3 pairs and 3 seeds, 13.0 points "
        "above the baseline ce."
    )
    # Nine keys of three pairs: sd 1 on 6 degrees of freedom, 13 ± 2.447 / 3.
    assert "On these pairs, other seeds would give 12.2 to 13.8 points (95 %)." in sentence
    assert "without that assumption 3 pairs are too few to show anything." in sentence
    assert "The second, ce+ssl, is 7.0 points below (7.0 to 7.0 with other seeds)." in sentence
    assert found.missing == "All 27 cells are done: nothing failed or is missing."


def test_of_two_seeds_and_two_pairs_the_values_are_told(make_store: MAKE) -> None:
    found = answered(make_store(outcomes({"ce": 0.0, "ce+ssl": 10.0}, 2, 2, wobble=4.0)))
    (sentence,) = found.sentences
    assert "the seeds gave 10.00, 14.00 points, too few for an interval." in sentence
    assert "Whether it holds on other pairs, 2 pairs cannot say." in sentence
    assert "95 %" not in sentence


def test_a_baseline_that_nothing_beats_is_named(make_store: MAKE) -> None:
    (sentence,) = answered(make_store(outcomes({"ce": 0.0, "ce+ssl": -2.0}, 3, 3))).sentences
    assert "ce is best by target labels" in sentence
    assert "It is the baseline: nothing that was tried is above it on average." in sentence


def test_without_a_baseline_there_is_no_gain(make_store: MAKE) -> None:
    (sentence,) = answered(make_store(outcomes({"ce+dist": 1.0, "ce+ssl": 3.0}, 3, 3))).sentences
    assert "ce+ssl is best" in sentence
    assert "No baseline is done to compare it with." in sentence


def test_one_method_alone_has_nothing_to_be_compared_with(make_store: MAKE) -> None:
    (sentence,) = answered(make_store(outcomes({"ce": 0.0}, 2, 2))).sentences
    assert sentence == "digits, lenet: ce alone is done: 51.5 %, 2 pairs and 2 seeds. Nothing to compare it with."


def test_a_seed_that_may_turn_the_order_round_is_said(make_store: MAKE) -> None:
    made = outcomes({"ce": 0.0}, 3, 3)
    for index, (source, target) in enumerate(PAIRS[:3]):
        for seed in range(3):
            for losses, accuracy in (("ce+ssl", 60.0 + index), ("ce+dist", 60.5 + index + (seed - 1) * 4)):
                made.append((config_of(source, target, losses, "lenet", seed), accuracy))
    (sentence,) = answered(make_store(made)).sentences
    assert "The second, ce+ssl, is 0.5 points below, and other seeds may turn the two round." in sentence


def test_what_failed_or_is_missing_and_the_commands_for_it(make_store: MAKE) -> None:
    done = outcomes({"ce": 0.0, "ce+ssl": 5.0}, 2, 2)
    failed = config_of("mnist", "mnistm", "ce+dist", "lenet", 0)
    planned = [config for config, _ in done] + [failed, config_of("mnist", "mnistm", "ce+dist", "lenet", 1)]
    found = answered(make_store([*done, (failed, None)], planned=planned))
    assert found.missing.startswith("8 of 10 cells are done; 1 failed (RuntimeError: <b>loss</b> is nan), 1 missing.")
    steps = {step.text.partition(":")[0]: step.command for step in found.steps}
    assert steps["Run what s lacks (1 failed, 1 missing); finished cells are not run again"] == COMMAND
    assert steps["Train 3 seeds"] == "scale-ray ablate --benchmark digits --store runs/x --seeds 3"
    assert any(command and command.endswith("--failed") for command in steps.values())
    without = answered(make_store([], planned=planned), command=None).steps[0]
    assert without.command is None
    assert "--name s" in without.text


def test_a_label_that_lacks_most_of_its_cells_is_not_ranked(make_store: MAKE) -> None:
    made = outcomes({"ce": 0.0, "ce+ssl": 5.0}, 3, 3)
    made.append((config_of("mnist", "mnistm", "ce+dist", "lenet", 0), 99.0))
    (sentence,) = answered(make_store(made)).sentences
    assert "ce+ssl is best" in sentence
    assert "1 of 3 are not ranked" in sentence


def test_every_group_of_settings_has_its_sentence_up_to_a_limit(make_store: MAKE) -> None:
    made = [
        (config_of("mnist", "mnistm", losses, "lenet", seed, **{"losses.threshold": threshold}), 50.0 + seed)
        for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)
        for losses in ("ce+ssl", "ce+ssl+dist")
        for seed in range(2)
    ]
    found = answered(make_store(made))
    assert [sentence.startswith("digits, losses.threshold=") for sentence in found.sentences] == [True] * 3 + [False]
    assert found.sentences[-1] == "2 more groups of settings: see the tables."


@pytest.mark.parametrize("planned", [False, True])
def test_nothing_done_is_no_crash(make_store: MAKE, planned: bool) -> None:
    config = config_of("mnist", "mnistm", "ce", "lenet", 0)
    store = make_store([] if planned else [(config, None)], planned=[config] if planned else ())
    found = answered(store)
    assert found.sentences == []
    assert "0 of 1 cell are done" in found.missing


def test_a_target_without_labels_says_why_there_is_no_accuracy(make_store: MAKE) -> None:
    cells, _ = check(load(make_store(outcomes({"ce": 0.0, "ce+ssl": 5.0}, 2, 3)).location))
    blind = cells.assign(target_accuracy=float("nan"), teacher_accuracy=float("nan"))
    found = answer(blind, effects_tables(blind))
    assert found.sentences == [NO_ACCURACY]
    assert "nan" not in found.text
    agreed = pd.DataFrame(
        [("digits", "lenet, random weights", "circular", "scale (ce+ssl)", "2 of 2 pairs", "yes")],
        columns=["benchmark", "backbone", "validator", "would choose", "the same on", "counts"],
    )
    told = answer(blind, effects_tables(blind), agreed=agreed).sentences[-1]
    assert "1 of 1 validator that can compare these would choose scale (ce+ssl)" in told


def test_the_plan_of_another_study_is_not_asked_to_run(make_store: MAKE) -> None:
    store = make_store(outcomes({"ce": 0.0}, 1, 1))
    config = config_of("usps", "mnist", "ce", "lenet", 0)
    store.write_record(record_of(config, 60.0))
    store.write_plan(StudyPlan(name="whole", created="2026-03-01T00:00:00+00:00", cells=[cell_of(config)]))
    assert not any(step.text.startswith("Run what") for step in answered(store).steps)
