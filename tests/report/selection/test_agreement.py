"""What each validator would choose, and how many agree."""

from pathlib import Path

import pandas as pd
from report_stores import config_of
from selection_stores import scored

from scale_ray.report.read.load import load
from scale_ray.report.selection.agreement import (
    ACROSS,
    OF_SOURCE,
    TIED,
    UNLEARNED,
    WITHIN,
    agreement,
    agreement_notes,
    votes,
)
from scale_ray.report.selection.candidates import candidates
from scale_ray.store import Store

# Of dann and mcc on two pairs: circular prefers mcc on both, reverse dann on one, im the certain mcc.
SCORES = {
    ("dann", "mnist"): {"circular": 50.0, "reverse": 90.0, "im": 1.0},
    ("dann", "fonts"): {"circular": 60.0, "reverse": 50.0, "im": 1.0},
    ("mcc", "mnist"): {"circular": 60.0, "reverse": 60.0, "im": 2.0},
    ("mcc", "fonts"): {"circular": 70.0, "reverse": 60.0, "im": 2.0},
}


def test_the_choice_of_every_validator_and_on_how_many_pairs_it_is_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    for (method, source), scores in SCORES.items():
        store.write_record(scored(config_of(source, "mnistm", "ce", "lenet", 0, method), 50.0, scores))
    found = agreement(candidates(load(tmp_path), None))
    assert found[["validator", "would choose", "the same on", "counts"]].to_numpy().tolist() == [
        ["im", "mcc", "2 of 2 pairs", WITHIN],
        ["reverse", "dann", "1 of 2 pairs", ACROSS],
        ["circular", "mcc", "2 of 2 pairs", ACROSS],
    ]
    (note,) = agreement_notes(found)
    assert note.endswith("the 2 validators that can compare these disagree. They would choose dann (1), mcc (1).")


def test_one_candidate_or_no_score_is_no_agreement(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    store.write_record(scored(config_of("mnist", "mnistm", "ce", "lenet", 0), 50.0, {"circular": 1.0}))
    assert agreement(candidates(load(tmp_path), None)).empty
    store.write_record(scored(config_of("mnist", "mnistm", "ce", "lenet", 0, "mcc"), 50.0, {}))
    assert agreement(candidates(load(tmp_path), None)).empty
    assert agreement_notes(agreement(candidates(load(tmp_path), None))) == []


def choices_of(tmp_path: Path, scores: dict[str, dict[str, float]], held_out: float = 99.0) -> pd.DataFrame:
    """What is agreed on one pair, of methods with these scores and this accuracy on the source."""
    store = Store(tmp_path, create=True)
    for method, of_method in scores.items():
        record = scored(config_of("mnist", "mnistm", "ce", "lenet", 0, method), 50.0, of_method)
        accuracy = held_out if method == "mcc" else 99.0
        result = record.result.model_copy(update={"source_val_accuracy": accuracy, "classes": list("abcdefghij")})
        store.write_record(record.model_copy(update={"result": result}))
    return agreement(candidates(load(tmp_path), None))


def test_a_tie_names_all_and_has_no_vote_and_the_source_has_none_either(tmp_path: Path) -> None:
    found = choices_of(
        tmp_path,
        {
            "dann": {"reverse": 60.0, "circular": 60.0, "coherence": 70.0, "source_val": 99.0},
            "mcc": {"reverse": 60.0, "circular": 50.0, "coherence": 60.0, "source_val": 98.0},
        },
    ).set_index("validator")
    assert found.loc["reverse", ["would choose", "counts"]].tolist() == ["dann or mcc", TIED]
    assert found.loc["source_val", "counts"] == OF_SOURCE
    assert votes(found.reset_index()) == {"circular": "dann", "coherence": "dann"}
    (note,) = agreement_notes(found.reset_index())
    assert note.endswith("2 of 2 validators that can compare these would choose dann.")


def test_a_choice_that_did_not_learn_its_source_is_warned_of(tmp_path: Path) -> None:
    scores = {"dann": {"circular": 50.0}, "mcc": {"circular": 60.0}, "source_only": {"circular": 40.0}}
    found = choices_of(tmp_path, scores, held_out=12.0)
    assert found[UNLEARNED].tolist() == ["1 of 1 training"]
    (note,) = agreement_notes(found)
    assert note.endswith("would choose mcc. Warning: mcc did not learn the source in 1 of 1 training.")
