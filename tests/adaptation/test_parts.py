"""The parts of an adaptation: where images are, what a budget allows, what labels for checking say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scale_ray.adaptation.budget import Estimate, affordable_within, read_budget
from scale_ray.adaptation.checked import accuracy, read_check, to_label
from scale_ray.adaptation.places import places, to_toml
from scale_ray.adaptation.predicted import Predicted
from scale_ray.config import Catalogue, ConfigError, Place, read_catalogue
from scale_ray.data.benchmarks import DataError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("studio", "phone", "other/phone"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "web.csv").write_text("path,label\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Places


def test_domains_are_named_after_their_folders_files_and_data_sets(folders: Path) -> None:
    found = places("studio/", ["phone", "web.csv", "hf:somebody/pets:train"], {"bike": "bicycle"})
    assert found == Catalogue(
        domains={
            "studio": Place(images=str(folders / "studio")),
            "phone": Place(images=str(folders / "phone"), labelled=False),
            "web": Place(images=str(folders / "web.csv"), labelled=False),
            "pets": Place(images="hf:somebody/pets:train", labelled=False),
        },
        label_map={"bike": "bicycle"},
    )


def test_the_catalogue_that_is_written_is_read_as_the_same(folders: Path) -> None:
    found = places("studio", ["phone"], {'a "b"': "c\\d"})
    (folders / "domains.toml").write_text(to_toml(found))
    assert read_catalogue(folders / "domains.toml") == found


@pytest.mark.parametrize(
    ("source", "targets", "error"),
    [
        ("studoi", ["phone"], "studoi: no such folder or file: name the images"),
        ("studio", ["phone", "other/phone"], "two domains would be called 'phone': rename a folder"),
        ("studio", [], "no target"),
        ("web.txt", ["phone"], "web.txt: no such folder or file"),
    ],
)
def test_places_that_do_not_exist_are_refused(folders: Path, source: str, targets: list[str], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        places(source, targets)


# The budget


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5 h", 5400), ("2d", 172_800)])
def test_a_budget_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert read_budget(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "0s", "-3m", "3 weeks", ""])
def test_a_budget_without_a_unit_or_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write a time, as in 90s, 30m or 2h"):
        read_budget(text)


def test_the_cheapest_candidates_fill_the_budget() -> None:
    estimates = {
        name: Estimate({}, seconds) for name, seconds in (("slow", 50), ("free", 0), ("fast", 10), ("mid", 20))
    }
    kept, left_out = affordable_within(estimates, seconds=50, trainings=3, slots=2)  # 0, 15, 30 and 75 s
    assert kept == ["free", "fast", "mid"]
    assert left_out == {"slow": "it takes about 75 s, and 5 s of the budget are left"}


# Labels for checking


def test_the_interval_is_that_of_clopper_and_pearson() -> None:
    found = accuracy(["a"] * 8 + ["b"] * 2, ["a"] * 10)
    assert (found.right, found.images, found.percent) == (8, 10, 80)
    # Table of exact binomial limits, 8 of 10: 44.4 to 97.5.
    assert (found.low, found.high) == (pytest.approx(44.39, abs=0.01), pytest.approx(97.48, abs=0.01))
    assert accuracy(["a"], ["a"]).high == 100
    assert str(found) == "8 of 10 right: 80.0 % (95 % interval 44 to 97)"


NAMES = ["2024/a.jpg", "2024/b.jpg", "c.jpg", "more/a.jpg"]


def write_check(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "check.csv"
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(path, index=False)
    return path


def test_a_list_names_images_by_their_path_below_the_target_or_from_anywhere(tmp_path: Path) -> None:
    where = tmp_path / "phone"
    rows = [("2024/a.jpg", "cat"), (str(where / "c.jpg"), "dog"), ("phone/more/a.jpg", "dog"), ("2024/b.jpg", "")]
    found = read_check(write_check(tmp_path, rows), NAMES, str(where), ["cat", "dog"])
    assert found == {"2024/a.jpg": "cat", "c.jpg": "dog", "more/a.jpg": "dog"}


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([("2024/z.jpg", "cat")], "2024/z.jpg: no image of the target"),
        ([("c.jpg", "cow")], "'cow': no class of the source, whose are 'cat', 'dog'"),
        ([("c.jpg", "")], "no row with a label"),
    ],
)
def test_labels_that_belong_to_nothing_are_refused(tmp_path: Path, rows: list[tuple[str, str]], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        read_check(write_check(tmp_path, rows), NAMES, str(tmp_path / "phone"), ["cat", "dog"])


def test_class_folders_hold_images_of_the_same_file_name(tmp_path: Path) -> None:
    for image in ("cat/b.jpg", "dog/c.jpg"):
        (tmp_path / "check" / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "check" / image).write_bytes(b"")
    assert read_check(tmp_path / "check", NAMES, "phone", ["cat", "dog"]) == {"2024/b.jpg": "cat", "c.jpg": "dog"}
    (tmp_path / "check" / "cat" / "a.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match="2 images have this name: give a list"):
        read_check(tmp_path / "check", NAMES, "phone", ["cat", "dog"])
    (tmp_path / "check" / "cat" / "a.jpg").rename(tmp_path / "check" / "cat" / "x.jpg")
    with pytest.raises(ConfigError, match="no image of the target has this name"):
        read_check(tmp_path / "check", NAMES, "phone", ["cat", "dog"])


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "check.csv").write_text("no,columns\n1,2\n")
    with pytest.raises(DataError, match="no column 'path'"):
        read_check(tmp_path / "check.csv", NAMES, "phone", ["cat", "dog"])


def test_images_to_label_are_drawn_once_and_at_random() -> None:
    names = [f"{number:03}.jpg" for number in range(200)]
    drawn = to_label(names, "phone", 50)
    assert drawn.equals(to_label(names, "phone", 50))
    assert len(set(drawn["path"])) == 50
    assert set(drawn["label"]) == {""}
    assert drawn["path"].tolist() != [f"phone/{name}" for name in names[:50]]
    assert len(to_label(names[:3], "phone", 50)) == 3


# Predictions


@pytest.fixture
def found() -> Predicted:
    """Three candidates, three images, two classes: all agree on the first image, two on the others."""
    sure, unsure = [0.9, 0.1], [0.45, 0.55]
    probabilities = {"best": [sure, sure, unsure], "source_only": [sure, unsure, unsure], "mcc": [sure, sure, sure]}
    arrays = {name: np.array(rows, np.float16) for name, rows in probabilities.items()}
    labels = {name: rows.argmax(axis=1).astype(np.int32) for name, rows in arrays.items()}
    return Predicted(("a.jpg", "b.jpg", "c.jpg"), "phone", ("cat", "dog"), arrays, labels, "best", "source_only")


def test_a_row_of_predictions_by_hand(found: Predicted) -> None:
    table = found.table()
    assert table["path"].tolist() == ["phone/a.jpg", "phone/b.jpg", "phone/c.jpg"]
    assert table["class"].tolist() == ["cat", "cat", "dog"]
    assert table["second class"].tolist() == ["dog", "dog", "cat"]
    assert table["probability"].tolist() == pytest.approx([0.9, 0.9, 0.55], abs=1e-3)
    assert table["second probability"].tolist() == pytest.approx([0.1, 0.1, 0.45], abs=1e-3)
    assert table["agrees with source_only"].tolist() == ["yes", "no", "yes"]
    assert table["votes"].tolist() == [3, 2, 2]


def test_the_most_disputed_image_comes_first(found: Predicted) -> None:
    assert found.disputed.tolist() == [2, 1, 0]  # of two with equal votes, the less sure one
    assert found.agreement("mcc") == pytest.approx(200 / 3)
