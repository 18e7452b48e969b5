"""Data sets of Hugging Face that were saved to a folder."""

from pathlib import Path

import numpy as np
import pytest
from image_trees import TWO_DOMAINS, open_all, write_tree

from scale_ray.config import Catalogue, Place
from scale_ray.data.benchmarks import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "root", TWO_DOMAINS)


def saved(root: Path, folder: Path, names: list[str]) -> Path:
    """The images of `photo`, dogs first, with labels in the order of `names`."""
    images = [(path, path.parent.name) for path in sorted((root / "photo").rglob("*.jpg"), reverse=True)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [str(path) for path, _ in images], "label": [names.index(label) for _, label in images]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder)
    return folder


def place(folder: Path | str, *, labelled: bool = True) -> Catalogue:
    return Catalogue(domains={"photo": Place(images=f"hf:{folder}", labelled=labelled)})


@pytest.mark.parametrize("names", [["cat", "dog"], ["dog", "cat"]])
def test_a_saved_data_set_has_the_images_and_classes_of_its_folders(
    root: Path, tmp_path: Path, names: list[str]
) -> None:
    (photo,) = open_all(root, "photo")
    (found,) = open_all(place(saved(root, tmp_path / "saved", names)), "photo")
    assert found.classes == photo.classes == ("cat", "dog")
    assert np.array_equal(found.labels, photo.labels)
    order = [2, 1, 0, 4, 3]  # rows are in reverse, and stay so within a class
    assert np.array_equal(found.images, photo.images[order])
    assert found.files == ("00000002", "00000003", "00000004", "00000000", "00000001")


def test_a_saved_data_set_may_be_taken_without_its_labels(root: Path, tmp_path: Path) -> None:
    (found,) = open_all(place(saved(root, tmp_path / "saved", ["cat", "dog"]), labelled=False), "photo")
    assert (found.labels, found.classes, len(found.images)) == (None, (), 5)


def test_what_is_no_data_set_of_images_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"cannot be opened .*it is not a folder of save_to_disk"):
        open_all(place(tmp_path / "none"), "photo")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(DataError, match="needs one image column, and has none: select the columns"):
        open_all(place(tmp_path / "text"), "photo")
    parts = datasets.DatasetDict(
        {name: datasets.load_from_disk(str(saved(root, tmp_path / name, ["cat", "dog"]))) for name in ("train", "test")}
    )
    parts.save_to_disk(tmp_path / "parts")
    with pytest.raises(DataError, match=r"has the splits 'train', 'test': name one, as in .*parts:train"):
        open_all(place(tmp_path / "parts"), "photo")
    assert len(open_all(place(f"{tmp_path / 'parts'}:test"), "photo")[0].images) == 5


def test_without_a_network_the_hub_gives_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"hf:no/such-set: cannot be opened .*save it with save_to_disk elsewhere"
    ) as error:
        open_all(place("no/such-set"), "photo")
    assert "\n" not in str(error.value)
