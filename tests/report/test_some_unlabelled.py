"""Of two targets one has labels: every place says which pair has no accuracy, and why."""

from pathlib import Path

import pytest
from report_stores import config_of, record_of

from scale_ray.records import Record
from scale_ray.report.build import Asked, write_report
from scale_ray.report.read.load import load
from scale_ray.report.tables.forms import grids
from scale_ray.report.tables.text import entry_text
from scale_ray.store import Store


def unlabelled(record: Record) -> Record:
    assert record.result is not None
    curve = [
        point.model_copy(update={"target_accuracy": None, "teacher_accuracy": None}) for point in record.result.curve
    ]
    hidden = {"target_accuracy": None, "teacher_accuracy": None, "curve": curve}
    return record.model_copy(update={"result": record.result.model_copy(update=hidden)})


@pytest.fixture
def mixed(tmp_path: Path) -> Store:
    """mnist>mnistm with labels, mnist>usps without; three seeds of two methods."""
    store = Store(tmp_path / "store", create=True)
    for target in ("mnistm", "usps"):
        for losses, gain in {"ce": 0.0, "ce+ssl": 5.0}.items():
            for seed in range(3):
                record = record_of(config_of("mnist", target, losses, "lenet", seed), 50.0 + seed + gain)
                assert record.result is not None
                scores = {"coherence": 60.0 + gain, "circular": 70.0 + gain}
                result = record.result.model_copy(update={"validators": scores})
                record = record.model_copy(update={"result": result})
                store.write_record(unlabelled(record) if target == "usps" else record)
    return store


def test_a_pair_without_labels_has_no_labels_and_not_no_teacher(mixed: Store) -> None:
    found = {grid.metric: grid for grid in grids(load(mixed.location)) if grid.form == "pairs_by_method"}
    student, teacher = found["target_accuracy"], found["teacher_accuracy"]

    def text(metric: str, row: str, column: str) -> str:
        return entry_text(found[metric].entries[row, column], found[metric])

    assert text("target_accuracy", "scale (ce+ssl)", "mnist>usps") == "no labels"
    assert text("target_accuracy", "scale (ce+ssl)", "mnist>mnistm") == "56.0 ± 1.0"
    assert text("teacher_accuracy", "scale (ce+ssl)", "mnist>usps") == "no labels"
    assert text("teacher_accuracy", "source_only", "mnist>mnistm") == "no teacher"
    assert text("validator_coherence", "scale (ce+ssl)", "mnist>usps") == "65.0 ± 0.0"
    (note,) = [note for note in student.notes if "left out" in note]
    assert "mnist>usps seed 0 (scale (ce+ssl) no labels, source_only no labels)" in note
    assert not any("done" in note for note in teacher.notes if "left out" in note)


def test_the_page_says_which_pair_has_no_accuracy(mixed: Store, tmp_path: Path) -> None:
    paths = write_report(mixed.location, tmp_path / "report", Asked(choose="circular", most_drawn=0))
    text = paths.answer.text
    assert "There is no accuracy of mnist>usps, because the target has no labels." in text
    assert "By target labels its accuracy is 56.0 % on the 1 of 2 pairs with labels." in text
    page = paths.page.read_text()
    assert "Validator coherence, which reads no target label (%)" in page
    assert "nan" not in text


def test_an_oracle_needs_labels(mixed: Store, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="6 of 12 done cells have a target without labels"):
        write_report(mixed.location, tmp_path / "report", Asked(choose="oracle", most_drawn=0))
