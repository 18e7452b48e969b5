"""A target without labels has no accuracy: nothing is 0, nothing crashes, and validators stand in its place."""

import re
from pathlib import Path

import pytest
from report_stores import config_of, record_of

import scale_ray
from scale_ray.records import Record
from scale_ray.report.build import Asked, write_report
from scale_ray.store import Store

VALIDATORS = {"coherence": 70.0, "circular": 80.0, "reverse": 60.0, "im": 1.0, "source_val": 99.0}


def unlabelled_record(record: Record, gain: float) -> Record:
    """The record as a training writes it that has no label of its target: what needs one is None or empty."""
    assert record.result is not None
    unknown = {"target_accuracy": None, "teacher_accuracy": None}
    curve = [point.model_copy(update={**unknown, "kept_accuracy": None}) for point in record.result.curve]
    scores = {name: value + gain for name, value in VALIDATORS.items()}
    shown = {"validators": scores, "predicted": [2500, 2500], "agreement": 90.0, "confusion": []}
    result = record.result.model_copy(update={**unknown, **shown, "curve": curve})
    return Record.model_validate_json(record.model_copy(update={"result": result}).to_json())


@pytest.fixture
def unlabelled(tmp_path: Path) -> Store:
    """Three seeds of two pairs and two methods."""
    store = Store(tmp_path / "store", create=True)
    for source in ("mnist", "fonts"):
        for seed in range(3):
            for losses, gain in {"ce": 0.0, "ce+ssl": 5.0}.items():
                record = record_of(config_of(source, "mnistm", losses, "lenet", seed), 50.0 + seed)
                store.write_record(unlabelled_record(record, gain + seed))
    return store


@pytest.mark.parametrize("asked", [Asked(), Asked(choose="circular", oracle=True, rows="seed", columns="method")])
def test_a_report_says_why_there_is_no_accuracy_and_shows_validators(
    unlabelled: Store, tmp_path: Path, asked: Asked
) -> None:
    paths = write_report(unlabelled.location, tmp_path / "report", asked)
    page = paths.page.read_text()
    assert "There is no accuracy, because the target has no labels." in page
    assert "3 of 3 validators that can compare these would choose scale (ce+ssl)." in page
    assert "Validator coherence, which reads no target label (%)" in page
    assert "Target accuracy of the student" not in page.partition("How to read")[0]
    assert ">nan" not in page.lower()
    table = (tmp_path / "report" / "losses_by_backbone.md").read_text()
    assert re.search(r"\| ce\+ssl \| (\*\*)?76\.0 ± 1\.0", table), table
    assert paths.figures, "curves of the source are drawn"
    if asked.choose:
        assert paths.chosen is not None
        assert set(paths.chosen.frame["choice"]) == {"scale (ce+ssl)"}
        assert "has nan" not in paths.answer.text
    assert "highest accuracy by target labels" not in paths.answer.text


def test_a_notebook_shows_validators_instead(unlabelled: Store) -> None:
    found = scale_ray.results(unlabelled.location)
    page = found._repr_html_()
    assert "There is no accuracy, because the target has no labels." in page
    assert "Validator coherence, which reads no target label (%)" in page
    assert "76.0 ± 1.0<br><small>[" in page
    assert "nan" not in page.lower()
    assert found.cells["target_accuracy"].isna().all()
