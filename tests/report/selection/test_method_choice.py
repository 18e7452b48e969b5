"""Which method and setting is chosen, by what, with which estimate, and what that costs by target labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_stores import config_of, record_of
from selection_stores import choice_store, scored, with_predictions

from scale_ray.config import ConfigError
from scale_ray.report import Candidates, ReportError, candidates, choice, load, regrets, write_report
from scale_ray.report.build import Asked
from scale_ray.report.selection.choose import choice_notes, choice_scores
from scale_ray.report.selection.text import as_text
from scale_ray.store import Store, StoreError


def found_in(store: Store) -> Candidates:
    cells = load(store.location)
    return candidates(cells[cells["status"] == "done"], store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return choice_store(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def found(whole: Store) -> Candidates:
    return found_in(whole)


def test_ensv_chooses_on_each_pair_and_over_all(found: Candidates) -> None:
    """mnist: of 8 images the ensemble is 0 0 1 1 2 2 0 1: dann agrees on 7, mcc on 8, source_only on 6.

    fonts: it is 0 0 1 1 2 2 0 1: dann 8, mcc 7, source_only 7. Over both dann and mcc have 93.75, source_only 81.25.
    """
    table = choice(found, "ensv").set_index("pair")
    assert table["choice"].to_dict() == {"fonts>mnistm": "dann", "mnist>mnistm": "mcc", "all pairs": "dann"}
    assert table["ensv"].to_dict() == {"fonts>mnistm": 100, "mnist>mnistm": 100, "all pairs": 93.75}
    assert table["margin"].to_dict() == {"fonts>mnistm": 12.5, "mnist>mnistm": 12.5, "all pairs": 0}
    assert table["estimated regret"].to_dict() == {"fonts>mnistm": 0, "mnist>mnistm": 0, "all pairs": 6.25}
    assert (table["candidates"] == 3).all()
    assert (table["seeds"] == 2).all()


def test_the_choices_cells_and_the_scores_of_all_candidates_say_why(found: Candidates) -> None:
    rows = found.trainings
    table = choice(found, "ensv").set_index("pair")
    of_mcc = rows[(rows["candidate"] == "mcc") & (rows["pair"] == "mnist>mnistm")]["cell"]
    assert table.loc["mnist>mnistm", "cells"].split() == sorted(of_mcc)
    assert table.loc["all pairs", "cells"].split() == sorted(rows[rows["candidate"] == "dann"]["cell"])
    scores = choice_scores(found, "ensv").set_index(["pair", "candidate"])["ensv"]
    assert scores["mnist>mnistm"].to_dict() == {"mcc": 100, "dann": 87.5, "source_only": 75}
    assert list(scores["mnist>mnistm"].index) == ["mcc", "dann", "source_only"]
    assert len(scores) == 9
    assert "cells" not in as_text(table)


def test_a_candidate_that_did_not_learn_its_source_is_named(whole: Store) -> None:
    found = found_in(whole)
    assert not any("did not learn" in note for note in choice_notes(found, "im"))
    rows = found.trainings
    collapsed = rows.assign(unlearned=(rows["candidate"] == "dann") & (rows["pair"] == "fonts>mnistm"))
    notes = choice_notes(replace(found, trainings=collapsed), "im")
    assert "Warning: did not learn their source (‡ in the tables): dann on fonts>mnistm." in notes


def test_another_validators_choice_is_judged_by_the_ensemble(found: Candidates) -> None:
    table = choice(found, "im").set_index("pair")
    assert (table["choice"] == "mcc").all()
    assert table["im"].to_dict() == pytest.approx({"fonts>mnistm": 1.55, "mnist>mnistm": 1.55, "all pairs": 1.55})
    assert table["estimated accuracy"].to_dict() == {"fonts>mnistm": 87.5, "mnist>mnistm": 100, "all pairs": 93.75}
    assert table["estimated regret"].to_dict() == {"fonts>mnistm": 12.5, "mnist>mnistm": 0, "all pairs": 6.25}


def test_a_score_that_does_not_rank_across_methods_is_warned_of(found: Candidates, tmp_path: Path) -> None:
    (warning,) = [note for note in choice_notes(found, "im") if note.startswith("Warning")]
    assert "im ranks trainings of one method and loss combination only, and 3 are compared" in warning
    assert not any(
        note.startswith("Warning") for name in ("ensv", "source_val", "reverse") for note in choice_notes(found, name)
    )

    store = Store(tmp_path, create=True)
    for threshold, im in ((0.5, 1.0), (0.9, 2.0)):
        config = config_of("mnist", "mnistm", "ce+ssl", "lenet", 0, **{"losses.threshold": threshold})
        store.write_record(scored(config, 50.0, {"im": im}))
    within = found_in(store)
    assert not any(note.startswith("Warning") for note in choice_notes(within, "im"))
    assert choice(within, "im")["choice"].tolist() == ["scale (ce+ssl), losses.threshold=0.9"]


def test_an_ensemble_of_two_is_warned_of(found: Candidates) -> None:
    two = replace(found, trainings=found.trainings[found.trainings["candidate"] != "mcc"])
    assert choice_notes(two, "ensv")[0].startswith("Warning: with fewer than 3 candidates")
    assert not choice_notes(two, "im")[0].startswith("Warning: with fewer")


def test_loss_combinations_of_one_method_are_warned_of_too(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    for losses in ("ce+ssl", "ce+ssl+reg"):
        store.write_record(scored(config_of("mnist", "mnistm", losses, "lenet", 0), 50.0, {"im": 1.0}))
    assert choice_notes(found_in(store), "im")[0].startswith("Warning: im ranks")


def test_the_oracle_is_marked_and_stands_apart(found: Candidates) -> None:
    table = choice(found, "oracle").set_index("pair")
    assert table["choice"].to_dict() == {"fonts>mnistm": "source_only", "mnist>mnistm": "mcc", "all pairs": "dann"}
    assert "oracle (target labels)" in table.columns
    assert "oracle (target labels) chose: an upper bound, no way to choose." in choice_notes(found, "oracle")
    assert not any("oracle" in column for column in choice(found, "ensv").columns)


def test_regret_by_hand(found: Candidates) -> None:
    """im chooses mcc: 0 below the best on mnist, 12 on fonts; ensv mcc and dann: 0 and 2. All pairs: 55, 55, 53.5."""
    table = regrets(found).set_index("validator")
    assert list(table.index) == ["oracle (target labels)", "ensv", "im"]
    assert table["mean regret (target labels)"].tolist() == [0, 1, 6]
    assert table["worst regret (target labels)"].tolist() == [0, 2, 12]
    assert table["regret of one choice (target labels)"].tolist() == [0, 0, 0]
    assert table.loc["im", "spearman"] == pytest.approx((1 - 1) / 2)
    assert (table["pairs"] == 2).all()


def test_regret_over_all_sets_takes_the_mean_and_the_worst(tmp_path: Path) -> None:
    """On a second backbone im chooses well, on pair mnist alone."""
    store = choice_store(tmp_path, predictions=False)
    for method, accuracy, im in (("dann", 60.0, 1.0), ("mcc", 64.0, 2.0)):
        for seed in range(2):
            store.write_record(
                scored(config_of("mnist", "mnistm", "ce", "resnet18", seed, method), accuracy, {"im": im})
            )
    table = regrets(found_in(store))
    of_im = table[table["validator"] == "im"].set_index("backbone")
    assert of_im["mean regret (target labels)"].to_dict() == {
        "lenet, random weights": 6, "resnet18, random weights": 0, "all": 3,
    }  # fmt: skip
    assert of_im.loc["all", "worst regret (target labels)"] == 12
    assert of_im.loc["all", "pairs"] == 3
    assert table["backbone"].iloc[-1] == "all"


@pytest.mark.parametrize("seed", range(5))
def test_regret_is_never_negative_and_the_oracles_is_zero(tmp_path: Path, seed: int) -> None:
    numbers, store = np.random.default_rng(seed), Store(tmp_path, create=True)
    for source in ("mnist", "fonts"):
        for method in ("dann", "cdan", "mcc", "source_only"):
            record = scored(
                config_of(source, "mnistm", "ce", "lenet", 0, method),
                numbers.uniform(0, 100),
                {"im": numbers.uniform()},
            )
            with_predictions(store, record, numbers.integers(0, 3, 9).tolist())
    found = found_in(store)
    table = regrets(found).set_index("validator")
    assert (table.filter(like="regret") >= 0).all().all()
    assert (table.loc["oracle (target labels)"].filter(like="regret") == 0).all()
    assert table.loc["oracle (target labels)", "spearman"] == 1
    for name in ("im", "ensv"):  # the regret over all pairs is that of the table of choice
        chosen = choice(found, name).set_index("pair").loc["all pairs", "choice"]
        means = found.trainings.groupby("candidate")["oracle"].mean()
        assert table.loc[name, "regret of one choice (target labels)"] == pytest.approx(means.max() - means[chosen])


def test_cells_without_predictions_are_counted_with_the_remedy(tmp_path: Path) -> None:
    store = choice_store(tmp_path)
    cell = load(store.location).iloc[0]["cell"]
    Path(store.predictions_location(cell)).unlink()
    found = found_in(store)
    words = (
        r"^--choose ensv: 1 of 12 done cells without stored predictions \(the first is fonts>mnistm dann seed 0\): run "
        "the study again with --keep-predictions, which trains those cells again$"
    )
    with pytest.raises(ReportError, match=words):
        choice(found, "ensv")
    table = choice(found, "im").set_index("pair")
    assert table["choice"].to_dict() == dict.fromkeys(["fonts>mnistm", "mnist>mnistm", "all pairs"], "mcc")
    assert any("1 of 12 done cells" in note for note in choice_notes(found, "im"))
    assert "ensv" not in regrets(found)["validator"].tolist()


def test_records_older_than_a_validator_are_named(found: Candidates) -> None:
    with pytest.raises(ReportError, match=r"--choose classami: 12 of 12 done cells are older than this validator"):
        choice(found, "classami")
    with pytest.raises(ConfigError, match="unknown validator 'env'"):
        choice(found, "env")


def test_a_candidate_without_all_seeds_is_left_out_and_named(tmp_path: Path) -> None:
    store = choice_store(tmp_path)
    better = scored(config_of("mnist", "mnistm", "ce", "lenet", 0, "cdan"), 99.0, {"im": 9.0})
    with_predictions(store, better, [0, 0, 1, 1, 2, 2, 0, 1])
    found = found_in(store)
    assert choice(found, "im")["choice"].tolist() == ["mcc"] * 3
    assert choice(found, "im")["candidates"].tolist() == [3] * 3
    assert "cdan" not in found.trainings["candidate"].tolist()
    assert "Left out on mnist>mnistm: cdan, with 1 seed only." in choice_notes(found, "im")


def test_a_candidate_of_one_pair_alone_can_be_chosen_there_and_not_for_all(tmp_path: Path) -> None:
    store = choice_store(tmp_path)
    for seed in range(2):
        better = scored(config_of("mnist", "mnistm", "ce", "lenet", seed, "cdan"), 99.0, {"im": 9.0})
        with_predictions(store, better, [0, 0, 1, 1, 2, 2, 0, 1])
    table = choice(found_in(store), "im").set_index("pair")
    assert table["choice"].to_dict() == {"fonts>mnistm": "mcc", "mnist>mnistm": "cdan", "all pairs": "mcc"}


def test_predictions_of_other_data_are_not_mixed(tmp_path: Path) -> None:
    store = choice_store(tmp_path)
    config = config_of("mnist", "mnistm", "ce", "lenet", 0, "cdan")
    record = record_of(config, 50.0, inputs={"source": "sha-mnist", "target": "sha-other"})
    with_predictions(store, record, [0, 0, 1, 1, 2, 2, 0, 1])
    other = record_of(config.replace({"seed": 1}), 50.0)
    with_predictions(store, other, [0, 0, 1, 1, 2, 2, 0, 1])
    with pytest.raises(ReportError, match="predictions are of different versions of the target mnistm"):
        found_in(store)


def test_damaged_predictions_are_an_error_and_not_skipped(tmp_path: Path) -> None:
    store = choice_store(tmp_path)
    cell = load(store.location).iloc[3]["cell"]
    Path(store.predictions_location(cell)).write_bytes(b"no archive")
    with pytest.raises(StoreError, match="not readable as predictions"):
        found_in(store)


def test_a_report_writes_what_was_asked_for(whole: Store, tmp_path: Path) -> None:
    paths = write_report(whole.location, tmp_path / "both", Asked(choose="ensv", oracle=True, most_drawn=0))
    assert [path.name for path in paths.choice] == [
        "choice.csv",
        "choice.md",
        "scores.csv",
        "scores.md",
        "regret.csv",
        "regret.md",
        "validators.csv",
        "validators.md",
    ]
    assert pd.read_csv(paths.choice[0])["choice"].tolist() == ["dann", "mcc", "dann"]
    regret = paths.choice[5].read_text()
    assert "By target labels" in regret
    assert "| all pairs | dann | 93.75 |" in paths.choice[1].read_text()
    neither = write_report(whole.location, tmp_path / "none", Asked(most_drawn=0))
    assert [path.name for path in neither.choice] == ["validators.csv", "validators.md"]
    assert neither.chosen is None
    assert not (tmp_path / "none" / "choice.md").exists()


def test_with_nothing_done_there_is_nothing_to_choose(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    store.write_record(record_of(config_of("mnist", "mnistm", "ce", "lenet", 0), None))
    with pytest.raises(ReportError, match="no cell is done, so there is nothing to choose from"):
        write_report(store.location, tmp_path / "report", Asked(choose="im", most_drawn=0))
    assert write_report(store.location, tmp_path / "report", Asked(oracle=True, most_drawn=0)).choice == []


def test_the_opening_says_what_speaks_against_the_choice(tmp_path: Path) -> None:
    """im across methods, and cdan lacks a seed."""
    store = choice_store(tmp_path / "store")
    store.write_record(scored(config_of("mnist", "mnistm", "ce", "lenet", 0, "cdan"), 50.0, {"im": 9.0}))
    paths = write_report(store.location, tmp_path / "report", Asked(choose="im", most_drawn=0))
    opening = paths.answer.sentences[0]
    assert (
        "chose mcc for all pairs, before dann, of 3 candidates over 2 seeds (1 more left out, as they lack" in opening
    )
    assert "Warning: im ranks trainings of one method and loss combination only" in opening
    assert paths.chosen is not None
    assert paths.chosen.frame["left out"].tolist() == [0, 1, 1]
