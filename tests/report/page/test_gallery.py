"""The gallery of errors: the most certain ones first, and nothing where predictions or images are not at hand."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_stores import config_of, record_of

from scale_ray.records import Record
from scale_ray.report.build import Asked, write_report
from scale_ray.report.page import at_hand
from scale_ray.report.page.at_hand import images_in, root_in
from scale_ray.report.page.gallery import Images, galleries
from scale_ray.store import Store, StoredPredictions
from scale_ray.training.trial import run_trial

CLASSES = ["cat", "dog", "owl"]


def stored(store: Store, probabilities: list[list[float]]) -> Record:
    record = record_of(config_of("mnist", "mnistm", "ce", "lenet", 0), 50.0)
    assert record.result is not None
    rows = np.array(probabilities)
    counts = np.bincount(rows.argmax(axis=1), minlength=3).tolist()
    confusion = {"classes": CLASSES, "confusion": [counts, [0] * 3, [0] * 3]}
    record = record.model_copy(update={"result": record.result.model_copy(update=confusion)})
    store.write_record(record)
    store.write_predictions(record.id, StoredPredictions.of(rows, CLASSES, record.inputs["target"]))
    return record


def test_the_most_certain_errors_of_every_class_by_hand(tmp_path: Path) -> None:
    """Image 0 is right; 1, 2 and 4 are cats taken for others, 2 the most surely; 3 is a dog taken for an owl."""
    store = Store(tmp_path / "store", create=True)
    record = stored(store, [[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.1, 0.0, 0.9], [0.0, 0.2, 0.8], [0.3, 0.7, 0.0]])
    images = np.stack([np.full((3, 96, 96), 50 * index, np.uint8) for index in range(5)])

    def reach(of: Record, predictions: StoredPredictions) -> Images:
        assert of == record
        return images, np.array([0, 0, 0, 1, 0])

    (found,) = galleries(store, [record.id, "0" * 64], reach)
    assert (found.errors, found.images) == (4, 5)
    assert [(name, errors) for name, errors, _ in found.classes] == [("cat", 3), ("dog", 1)]
    cats = found.classes[0][2]
    assert [mistake.predicted for mistake in cats] == ["owl", "dog", "dog"]
    assert [mistake.probability for mistake in cats] == pytest.approx([90, 70, 60], abs=0.1)
    shown = Image.open(io.BytesIO(base64.b64decode(cats[0].image.partition(",")[2])))
    assert shown.size == (72, 72)
    assert np.asarray(shown).mean() == pytest.approx(100, abs=2)  # of image 2


def test_without_images_or_predictions_there_is_no_gallery(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    record = stored(store, [[0.9, 0.1, 0.0]])
    assert galleries(store, [record.id], lambda record, predictions: None) == []
    Path(store.predictions_location(record.id)).unlink()
    assert galleries(store, [record.id], lambda record, predictions: pytest.fail("nothing to reach for")) == []


def test_images_of_another_version_than_was_predicted_are_not_shown(
    tiny_root: Path, tiny_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a real training, the gallery has the real images; with other content under the same names it has none."""
    from scale_ray.config import Execution

    store = Store(tmp_path / "store", create=True)
    execution = Execution(root=tiny_root, device="cpu", keep_predictions=True)
    record = run_trial(tiny_config, execution, store)
    assert record.result is not None
    (found,) = galleries(store, [record.id], images_in(tiny_root))
    wrong = sum(map(sum, record.result.confusion)) - sum(row[i] for i, row in enumerate(record.result.confusion))
    assert found.errors == wrong
    assert sum(errors for _, errors, _ in found.classes) == wrong
    assert galleries(store, [record.id], images_in(None)) == []
    assert galleries(store, [record.id], images_in(tmp_path)) == []
    page = write_report(store.location, tmp_path / "report", Asked(most_drawn=0, root=tiny_root)).page.read_text()
    assert page.count('class="thumb"') == sum(len(mistakes) for _, _, mistakes in found.classes)
    predictions = store.read_predictions(record)
    assert predictions is not None
    other = StoredPredictions(predictions.probabilities, predictions.labels, predictions.classes, "0" * 64)
    assert at_hand.images_in(tiny_root)(record, other) is None


def test_the_folder_of_images_is_the_one_that_the_commands_name(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    command = f"scale-ray ablate --root '{tmp_path}/my photos' --seeds 3"
    assert root_in([None, command]) == tmp_path / "my photos"
    assert root_in([command.replace("--root ", "--root=")]) == tmp_path / "my photos"
    assert root_in([command, f"scale-ray ablate --root {tmp_path}"]) is None  # which one?
    assert root_in(["scale-ray ablate --root nowhere"]) is None
