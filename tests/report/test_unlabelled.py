"""A target without labels has no accuracy: nothing is 0, nothing crashes, and validators stand in its place.

Frames stand for the records: their accuracies are missing, all else is the real part.
"""

import re
from pathlib import Path

import pytest
from report_stores import config_of, record_of

from scale_ray.records import Record
from scale_ray.report import build
from scale_ray.report.build import Asked, write_report
from scale_ray.report.read.load import Contents, load_contents
from scale_ray.store import Store

VALIDATORS = {"coherence": 70.0, "circular": 80.0, "reverse": 60.0, "im": 1.0, "source_val": 99.0}


def scored(record: Record, gain: float) -> Record:
    assert record.result is not None
    scores = {name: value + gain for name, value in VALIDATORS.items()}
    return record.model_copy(update={"result": record.result.model_copy(update={"validators": scores})})


@pytest.fixture
def unlabelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three seeds of two pairs and two methods, whose accuracies are missing from what is loaded."""
    store = Store(tmp_path / "store", create=True)
    for source in ("mnist", "fonts"):
        for seed in range(3):
            for losses, gain in {"ce": 0.0, "ce+ssl": 5.0}.items():
                record = record_of(config_of(source, "mnistm", losses, "lenet", seed), 50.0 + seed)
                store.write_record(scored(record, gain + seed))

    def blind(location: Path, *, study: str | None = None) -> Contents:
        cells, curves = load_contents(location, study=study)
        hidden = dict.fromkeys(("target_accuracy", "teacher_accuracy", "class_mean_accuracy"), float("nan"))
        return Contents(
            cells.assign(**hidden, oracle_accuracy=float("nan")),
            curves.assign(target_accuracy=float("nan"), teacher_accuracy=float("nan")),
        )

    monkeypatch.setattr(build, "load_contents", blind)
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
