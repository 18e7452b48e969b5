"""What a report says first, on stores whose numbers are simple."""

from collections.abc import Callable

import pandas as pd
import pytest
from report_stores import cell_of, config_of, record_of

from scale_ray.config import TrialConfig
from scale_ray.report.page.answer import NO_ACCURACY, Answer, answer
from scale_ray.report.read.completeness import check
from scale_ray.report.read.load import load
from scale_ray.report.selection.agreement import COLUMNS
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
    return answer(cells, commands={"s": command}, location=store.location)


def test_the_best_its_gain_over_the_baseline_and_how_sure_that_is(make_store: MAKE) -> None:
    """Gains of 12 + 0, 1, 2 of three seeds on each of three pairs: mean 13; the second gains 5 + the same."""
    found = answered(make_store(outcomes({"ce": 0.0, "ce+ssl": 5.0, "ce+ssl+dist": 12.0}, 3, 3, wobble=1.0)))
    (sentence,) = found.sentences
    assert sentence.startswith(
        "digits, lenet: ce+ssl+dist has the highest accuracy by target labels, 66.0 % on average over 3 pairs and 3 "
        "seeds, 13.0 points above the baseline ce."
    )
    # Nine keys of three pairs: sd 1 on 6 degrees of freedom, 13 ± 2.447 / 3.
    assert "On these pairs, other seeds would give 12.2 to 13.8 points (95 %)." in sentence
    assert "On other pairs: all pairs gave the same gain, so there is no spread to make an interval of." in sentence
    assert "With fewer than 6 pairs no test can show that it differs." in sentence
    assert "The second, ce+ssl, is 7.0 points below, with all seeds alike." in sentence
    assert found.missing == "All 27 cells are done."


def test_of_two_seeds_and_two_pairs_the_values_are_told(make_store: MAKE) -> None:
    found = answered(make_store(outcomes({"ce": 0.0, "ce+ssl": 10.0}, 2, 2, wobble=4.0)))
    (sentence,) = found.sentences
    assert "the seeds gave 10.00, 14.00 points; they are too few for an interval." in sentence
    assert "Whether the gain holds on other pairs, 2 pairs cannot show." in sentence
    assert "95 %" not in sentence


def test_a_baseline_that_nothing_beats_is_named(make_store: MAKE) -> None:
    (sentence,) = answered(make_store(outcomes({"ce": 0.0, "ce+ssl": -2.0}, 3, 3))).sentences
    assert "ce has the highest accuracy by target labels" in sentence
    assert "It is the baseline: nothing that was tried is above it on average." in sentence


def test_without_a_baseline_there_is_no_gain(make_store: MAKE) -> None:
    (sentence,) = answered(make_store(outcomes({"ce+dist": 1.0, "ce+ssl": 3.0}, 3, 3))).sentences
    assert "ce+ssl has the highest accuracy" in sentence
    assert "The baseline ce is not done, so there is no gain to state." in sentence


def test_one_method_alone_has_nothing_to_be_compared_with(make_store: MAKE) -> None:
    (sentence,) = answered(make_store(outcomes({"ce": 0.0}, 2, 2))).sentences
    assert sentence == "digits, lenet: only ce is done: 51.5 % over 2 pairs and 2 seeds."


def test_a_seed_that_may_turn_the_order_round_is_said(make_store: MAKE) -> None:
    made = outcomes({"ce": 0.0}, 3, 3)
    for index, (source, target) in enumerate(PAIRS[:3]):
        for seed in range(3):
            for losses, accuracy in (("ce+ssl", 60.0 + index), ("ce+dist", 60.5 + index + (seed - 1) * 4)):
                made.append((config_of(source, target, losses, "lenet", seed), accuracy))
    (sentence,) = answered(make_store(made)).sentences
    below = "The second, ce+ssl, is 0.5 points below; with other seeds on these pairs, their order may be the other way"
    assert below in sentence


def test_what_failed_or_is_missing_and_the_commands_for_it(make_store: MAKE) -> None:
    done = outcomes({"ce": 0.0, "ce+ssl": 5.0}, 2, 2)
    failed = config_of("mnist", "mnistm", "ce+dist", "lenet", 0)
    planned = [config for config, _ in done] + [failed, config_of("mnist", "mnistm", "ce+dist", "lenet", 1)]
    found = answered(make_store([*done, (failed, None)], planned=planned))
    told = "8 of 10 cells are done. Not done: 1 failed (RuntimeError: <b>loss</b> is nan), 1 missing."
    assert found.missing.startswith(told)
    steps = {step.text.partition(":")[0]: step.command for step in found.steps}
    assert steps["Run the rest of s (1 failed, 1 missing); finished cells are not run again"] == COMMAND
    assert steps["Train 3 seeds"] == "scale-ray ablate --benchmark digits --store runs/x --seeds 3"
    assert any(command and command.endswith("--failed") for command in steps.values())
    without = answered(make_store([], planned=planned), command=None).steps[0]
    assert without.command is None
    assert "--name s" in without.text


def test_a_label_that_lacks_most_of_its_cells_is_not_ranked(make_store: MAKE) -> None:
    made = outcomes({"ce": 0.0, "ce+ssl": 5.0}, 3, 3)
    made.append((config_of("mnist", "mnistm", "ce+dist", "lenet", 0), 99.0))
    (sentence,) = answered(make_store(made)).sentences
    assert "ce+ssl has the highest" in sentence
    assert "ce+dist is not ranked, because it lacks some of these trainings." in sentence


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
    assert found.missing.startswith("0 of 1 cell is done. Not done: 1")
    assert "Averages" not in found.missing


def test_a_target_without_labels_says_why_there_is_no_accuracy(make_store: MAKE) -> None:
    cells, _ = check(load(make_store(outcomes({"ce": 0.0, "ce+ssl": 5.0}, 2, 3)).location))
    blind = cells.assign(target_accuracy=float("nan"), teacher_accuracy=float("nan"))
    found = answer(blind)
    assert found.sentences == [NO_ACCURACY]
    assert "nan" not in found.text
    agreed = pd.DataFrame(
        [("digits", "lenet, random weights", "circular", "scale (ce+ssl)", "2 of 2 pairs", "yes", "")], columns=COLUMNS
    )
    told = answer(blind, agreed=agreed).sentences[-1]
    assert "1 of 1 validator that can compare these would choose scale (ce+ssl)" in told


def test_the_plan_of_another_study_is_not_asked_to_run(make_store: MAKE) -> None:
    store = make_store(outcomes({"ce": 0.0}, 1, 1))
    config = config_of("usps", "mnist", "ce", "lenet", 0)
    store.write_record(record_of(config, 60.0))
    store.write_plan(StudyPlan(name="whole", created="2026-03-01T00:00:00+00:00", cells=[cell_of(config)]))
    assert not any(step.text.startswith("Run the rest") for step in answered(store).steps)
