"""What each validator would choose, and how many agree."""

from pathlib import Path

from report_stores import config_of
from selection_stores import scored

from scale_ray.report.read.load import load
from scale_ray.report.selection.agreement import ACROSS, WITHIN, agreement, agreement_notes
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
    assert "1 of 2 validators that can compare these would choose" in note


def test_one_candidate_or_no_score_is_no_agreement(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    store.write_record(scored(config_of("mnist", "mnistm", "ce", "lenet", 0), 50.0, {"circular": 1.0}))
    assert agreement(candidates(load(tmp_path), None)).empty
    store.write_record(scored(config_of("mnist", "mnistm", "ce", "lenet", 0, "mcc"), 50.0, {}))
    assert agreement(candidates(load(tmp_path), None)).empty
    assert agreement_notes(agreement(candidates(load(tmp_path), None))) == []
