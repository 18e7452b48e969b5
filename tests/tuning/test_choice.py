"""What a search found: regret and correlation by hand, the chosen config, the picture's marks."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.collections import PathCollection
from report_stores import config_of, record_of

from scale_ray.config import TrialConfig, TuningBudget
from scale_ray.report import grids, load
from scale_ray.report.figures.style import render
from scale_ray.store import Store
from scale_ray.tuning.choice import (
    ORACLE_COLUMN,
    agreement_note,
    chosen_config,
    search_files,
    search_notes,
    settings_frame,
    validators_frame,
)
from scale_ray.tuning.contour import contour
from scale_ray.tuning.decision import Decision, highest
from scale_ray.tuning.setting import Setting

USUAL = TrialConfig().replace({"data.benchmark": "digits", "data.source": "mnist", "data.target": "mnistm"})
BUDGET = TuningBudget(
    study="s", validator="im", sampler="tpe", fields=("losses.threshold",), settings=4, steps=900,
    losses="ce+ssl", pairs=("mnist>mnistm",), seeds=(0, 1),
)  # fmt: skip


def setting(number: int, im: float, entropy: float, oracle: float, state: str = "done", **more) -> Setting:
    values = {"losses.threshold": 0.5 + number / 10, "losses.temperature": 10.0 ** -(number % 2)}
    scores = {"im": im, "entropy": entropy, "oracle": oracle}
    return Setting(number, values, state, validators=scores, repeats=2, steps=100, **more)


# Ranks of the oracle 1 2 3 4; of im 1 2 4 3; of entropy 4 3 2 1.
FOUND = [
    setting(0, 0.1, 0.9, 60.0),
    setting(1, 0.2, 0.8, 70.0),
    setting(2, 0.4, 0.7, 80.0),
    setting(3, 0.3, 0.6, 90.0),
    setting(4, 0.9, 0.1, 99.0, "stopped", reason="stopped at step 10"),
    setting(5, 0.0, 0.0, 0.0, "failed", reason="diverged"),
]
HIGHEST = Decision(chosen=FOUND[2], highest=FOUND[2], why="")


def test_regret_and_rank_correlation_by_hand() -> None:
    """Spearman without ties: 1 - 6 sum d^2 / (n (n^2 - 1)). im: d = 0 0 1 -1, so 1 - 12/60. entropy: reversed."""
    table = validators_frame(FOUND, "im").set_index("validator")
    assert list(table.index) == ["entropy", "im", ORACLE_COLUMN]
    assert table["choice"].to_dict() == {"entropy": 0, "im": 2, ORACLE_COLUMN: 3}
    assert table["regret"].to_dict() == {"entropy": 30.0, "im": 10.0, ORACLE_COLUMN: 0.0}
    assert table["spearman"].to_dict() == pytest.approx({"entropy": -1.0, "im": 0.8, ORACLE_COLUMN: 1.0})
    assert set(table["settings"]) == {4}
    # im ranks 1 2 4 3, entropy 4 3 2 1: d = -3 -1 2 2, so 1 - 6 * 18 / 60.
    assert table["spearman with im"].to_dict() == pytest.approx({"entropy": -0.8, "im": 1.0, ORACLE_COLUMN: 0.8})


def test_agreement_is_counted_with_what_was_chosen_and_the_highest_is_named_beside_it() -> None:
    """entropy would choose setting 0, the default, and snd setting 2. Accuracy on the source would too: no vote."""
    more = [
        replace(each, validators={**each.validators, "snd": each.validators["im"], "source_val": each.validators["im"]})
        for each in FOUND[:4]
    ]
    kept = Decision(chosen=more[0], highest=more[2], why="")
    assert agreement_note(more, "im", kept) == (
        "Agreement: 1 of 2 other validators would choose setting 0 too, 1 setting 2, which scores highest; their "
        "median rank correlation with im is 0.10."
    )
    assert agreement_note(FOUND, "im", HIGHEST) == (
        "Agreement: 0 of 1 other validator would choose setting 2 too; their median rank correlation with im is -0.80."
    )
    without = [replace(each, validators={"im": 1.0 + each.number, "source_val": 1.0}) for each in FOUND[:4]]
    assert agreement_note(without, "im", kept) is None


def test_without_target_labels_there_is_no_oracle_and_no_regret() -> None:
    blind = [
        replace(each, validators={"im": each.validators["im"], "entropy": 1.0 + each.number}) for each in FOUND[:4]
    ]
    table = validators_frame(blind, "im")
    assert list(table.columns) == ["validator", "choice", "setting", "spearman with im", "settings"]
    assert list(table["validator"]) == ["entropy", "im"]
    assert settings_frame(blind, "im")[ORACLE_COLUMN].isna().all()


def test_no_correlation_of_too_few_or_of_a_constant() -> None:
    assert validators_frame(FOUND[:2], "im")["spearman"].isna().all()
    flat = [setting(number, 0.5, number, 60.0 + number) for number in range(3)]
    table = validators_frame(flat, "im").set_index("validator")
    assert math.isnan(table["spearman"]["im"])
    assert table["choice"]["im"] == 0  # of equal ones the first
    assert table["spearman"]["entropy"] == pytest.approx(1.0)


def test_only_settings_that_are_done_are_chosen() -> None:
    best = highest(FOUND, "im")
    assert best is not None
    assert best.number == 2
    assert highest(FOUND[4:], "im") is None
    assert validators_frame(FOUND[4:], "im").empty


def test_the_best_stand_first_and_what_did_not_end_last() -> None:
    table = settings_frame(FOUND, "im")
    assert list(table["setting"]) == [2, 3, 1, 0, 4, 5]
    assert list(table.columns) == [
        "setting", "losses.threshold", "losses.temperature", "state", "im", "repeats", ORACLE_COLUMN, "steps", "reason",
    ]  # fmt: skip
    assert list(settings_frame(FOUND, "oracle").columns).count(ORACLE_COLUMN) == 1


def test_files_say_what_was_compared_and_spent() -> None:
    notes = search_notes(FOUND, "im", 1200)
    files = search_files(FOUND, "im", {"losses.threshold": 0.75, "losses.temperature": 0.25}, notes)
    assert sorted(files) == ["importance.csv", "settings.csv", "settings.md", "validators.csv", "validators.md"]
    assert "4 done, 1 stopped, 1 failed" in files["settings.md"]
    assert "Steps: 600; every setting in full, without early ends and shared warm-ups: 1,200 (50% fewer)." in notes
    assert any("steered by im" in note for note in notes)
    line = "| im | 2 | losses.threshold=0.7, losses.temperature=1 | 1.00 | 80.00 | 10.00 | 0.80 | 4 |"
    assert line in files["validators.md"]
    assert "an upper bound" in search_notes(FOUND, "oracle", 1200)[0]


def test_the_chosen_config_is_one_that_a_study_takes() -> None:
    """The grid's fields are left to the grid; what differs from the benchmark's defaults goes along."""
    base = USUAL.replace({"optim.steps": 300, "optim.warmup_steps": 50, "seed": 3, "losses.terms": "ce+ssl"})
    fields = chosen_config(FOUND[2], base, USUAL, BUDGET, Path("/photos"))
    of_a_training = {
        "method": "scale", "losses.terms": {"ce": 1.0, "ssl": 1.0}, "data.source": "mnist", "data.target": "mnistm",
    }  # fmt: skip
    assert fields.pop("train") == of_a_training
    assert fields.pop("root") == "/photos"
    assert json.loads(json.dumps(fields)) == {
        "data.benchmark": "digits", "optim.steps": 300, "optim.warmup_steps": 50, "losses.threshold": 0.7,
        "losses.temperature": 1.0, "tuning": BUDGET.model_dump(mode="json"),
    }  # fmt: skip
    assert USUAL.replace(fields).tuning == BUDGET


def marks(figure) -> dict[str, int]:
    """Label -> how many marks it has."""
    drawn = [each for each in figure.axes[0].collections if isinstance(each, PathCollection)]
    return {str(each.get_label()): len(each.get_offsets()) for each in drawn}


FIELDS = ("losses.threshold", "losses.temperature")


def place(figure, label: str) -> list[float]:
    (mark,) = [each for each in figure.axes[0].collections if each.get_label() == label]
    return list(mark.get_offsets()[0])


def test_every_setting_is_a_mark_and_the_chosen_one_a_star() -> None:
    figure = contour(FOUND, FIELDS, ["losses.temperature"], "im", HIGHEST, "s")
    assert marks(figure) == {"done": 4, "stopped on the curve": 1, "failed": 1, "chosen": 1}
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert place(figure, "chosen") == pytest.approx([0.7, 1.0])
    assert "im" in figure.axes[1].get_ylabel()  # the scale of shades
    assert render(figure, "png").startswith(b"\x89PNG")


def test_where_the_default_is_kept_the_star_is_on_it_and_the_highest_is_marked_apart() -> None:
    figure = contour(FOUND, FIELDS, [], "im", Decision(chosen=FOUND[1], highest=FOUND[2], why=""), "s")
    assert place(figure, "chosen") == pytest.approx([0.6, 0.1])
    assert place(figure, "highest") == pytest.approx([0.7, 1.0])


def test_the_same_search_is_the_same_picture() -> None:
    one, two = (contour(FOUND, FIELDS, ["losses.temperature"], "im", HIGHEST, "s") for _ in range(2))
    assert render(one, "svg") == render(two, "svg")


def test_settings_on_one_line_have_no_surface() -> None:
    figure = contour(FOUND[:1] + FOUND[2:3], FIELDS, [], "im", HIGHEST, "s")
    assert len(figure.axes) == 1
    assert marks(figure) == {"done": 2, "chosen": 1}


def test_tuned_is_never_compared_with_untuned_without_a_mark(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    for losses, tuning in (("ce", None), ("ce+ssl", BUDGET)):
        store.write_record(record_of(config_of("mnist", "mnistm", losses, "lenet", 0, tuning=tuning), 80.0))
    cells = load(tmp_path)
    mark = "tuned: 4 settings by im on mnist>mnistm (study s)"
    assert dict(zip(cells["losses"], cells["tuning"], strict=True)) == {"ce": "untuned", "ce+ssl": mark}
    table = grids(cells)[0]
    assert {row for row, _ in table.entries} == {"ce", "ce+ssl"}
    assert f"Methods, combinations or backbones differ in tuning as well: {mark}, untuned." in table.notes

    store.write_record(record_of(config_of("mnist", "mnistm", "ce+ssl", "lenet", 0), 70.0))
    assert {table.facet for table in grids(load(tmp_path))} == {f"tuning={mark}", "tuning=untuned"}
