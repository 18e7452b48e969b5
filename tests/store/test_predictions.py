"""Stored predictions: numpy opens them, and only those of the record are read."""

import io
from pathlib import Path

import numpy as np
import pytest
from report_stores import config_of, record_of

from scale_ray.records import Record
from scale_ray.store import Store, StoredPredictions, StoreError

CLASSES = ["cat", "dog", "owl"]


def made() -> tuple[Record, StoredPredictions]:
    """A record of six images, and predictions that it counts. The third image's two classes are equal in float16."""
    record = record_of(config_of("mnist", "mnistm", "ce", "lenet", 0), 50.0)
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.49999, 0.50001, 0.0], [0.0, 0.0, 1.0], [0.2, 0.1, 0.7], [1e-9, 0.6, 0.4]]
    )
    confusion = [[1, 2, 0], [0, 1, 1], [0, 0, 1]]
    result = record.result.model_copy(update={"classes": CLASSES, "confusion": confusion})
    found = StoredPredictions.of(probabilities, CLASSES, record.inputs["target"])
    return record.model_copy(update={"result": result}), found


@pytest.fixture
def written(tmp_path: Path) -> tuple[Store, Record, StoredPredictions, Path]:
    record, predictions = made()
    store = Store(tmp_path, create=True)
    store.write_predictions(record.id, predictions)
    return store, record, predictions, Path(store.predictions_location(record.id))


def test_what_was_written_is_read(written: tuple[Store, Record, StoredPredictions, Path]) -> None:
    store, record, predictions, _ = written
    found = store.read_predictions(record)
    assert found is not None
    assert found.probabilities.dtype == np.float16
    assert np.array_equal(found.probabilities, predictions.probabilities)
    assert found.labels.tolist() == [0, 1, 1, 2, 2, 1]  # by the unrounded probabilities
    assert (found.classes, found.target) == (tuple(CLASSES), record.inputs["target"])
    assert store.predictions_ids() == [record.id]
    assert store.has_beside(record.id, ["predictions"])
    assert not store.has_beside(record.id, ["predictions", "model"])


def test_numpy_opens_them_without_pickle(written: tuple[Store, Record, StoredPredictions, Path]) -> None:
    *_, predictions, path = written
    with np.load(path, allow_pickle=False) as opened:
        assert opened["probabilities"].shape == (6, 3)
        assert opened["classes"].tolist() == CLASSES
        assert opened["labels"].tolist() == predictions.labels.tolist()


def test_the_same_predictions_are_the_same_bytes(tmp_path: Path) -> None:
    record, predictions = made()
    contents = []
    for name in ("one", "two"):
        store = Store(tmp_path / name, create=True)
        store.write_predictions(record.id, predictions)
        contents.append(Path(store.predictions_location(record.id)).read_bytes())
    assert contents[0] == contents[1]


def test_none_are_none(tmp_path: Path) -> None:
    record, _ = made()
    store = Store(tmp_path, create=True)
    assert store.read_predictions(record) is None
    assert store.predictions_ids() == []
    assert store.has_beside(record.id, [])


def test_every_changed_byte_is_noticed_or_changes_nothing(
    written: tuple[Store, Record, StoredPredictions, Path],
) -> None:
    store, record, predictions, path = written
    content, messages = path.read_bytes(), []
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            found = store.read_predictions(record)
        except StoreError as error:
            messages.append(str(error))
        else:
            assert found is not None
            assert np.array_equal(found.probabilities, predictions.probabilities)
            assert np.array_equal(found.labels, predictions.labels)
    assert len(messages) > len(content) / 7 / 3
    remedy = "delete it and run the study again with --keep-predictions"
    assert all(str(path) in message and message.endswith(remedy) for message in messages)
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("part", [0, 1, 100, -1])
def test_a_part_of_the_file_is_refused(written: tuple[Store, Record, StoredPredictions, Path], part: int) -> None:
    store, record, _, path = written
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(StoreError, match="not readable as predictions"):
        store.read_predictions(record)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "f" * 64}, "not the predictions that were written for this trial"),
        ({"inputs": {"source": "a", "target": "other"}}, "its predictions are not those that the record counts"),
        ({"classes": ["cat", "dog", "emu"]}, "its predictions are not those that the record counts"),
        ({"confusion": [[1, 1, 1], [0, 1, 1], [0, 0, 1]]}, "its predictions are not those that the record counts"),
    ],
)
def test_predictions_of_another_record_are_refused(tmp_path: Path, change: dict, words: str) -> None:
    record, predictions = made()
    of_result = {name: change[name] for name in ("classes", "confusion") if name in change}
    of_record = {name: value for name, value in change.items() if name not in of_result}
    other = record.model_copy(update={**of_record, "result": record.result.model_copy(update=of_result)})
    store = Store(tmp_path, create=True)
    store.write_predictions(record.id, predictions)
    path = Path(store.predictions_location(record.id))
    path.rename(store.predictions_location(other.id))
    with pytest.raises(StoreError, match=words):
        store.read_predictions(other)


def test_a_pickle_in_their_place_is_not_run(written: tuple[Store, Record, StoredPredictions, Path]) -> None:
    store, record, _, path = written
    file = io.BytesIO()
    np.savez(file, probabilities=np.array([{"a": 1}], dtype=object))
    path.write_bytes(file.getvalue())
    with pytest.raises(StoreError, match="not readable as predictions"):
        store.read_predictions(record)
