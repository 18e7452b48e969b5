"""The parts of an adaptation: where images are, what labels for checking say, what candidates predict."""

import base64
import io
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_stores import config_of, record_of

from scale_ray.adaptation.checked import accuracy, read_check, to_label
from scale_ray.adaptation.outcome import Adaptation, OnTarget
from scale_ray.adaptation.page import _chosen
from scale_ray.adaptation.places import places, to_toml
from scale_ray.adaptation.predicted import Predicted
from scale_ray.adaptation.ties import tie
from scale_ray.bundle.table import COLUMNS as of_predict
from scale_ray.config import Catalogue, ConfigError, Place, read_catalogue
from scale_ray.data.benchmarks import DataError
from scale_ray.data.domain_files import DomainFiles, image_path


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
    found = places("studio", ["phone"], {'a "b"': "c\\d", "\x7f": "\t", "\x1b": "é"})
    (folders / "domains.toml").write_text(to_toml(found))
    assert read_catalogue(folders / "domains.toml") == found


def test_a_domain_has_its_folder_s_name_however_the_path_is_written(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders / "other" / "phone")
    assert places(str(folders / "studio"), ["."]).names == ["studio", "phone"]
    assert places(str(folders / "studio"), [".."]).names == ["studio", "other"]
    assert places(str(folders / "studio"), ["../phone/"]).names == ["studio", "phone"]


def test_a_label_map_that_no_file_can_hold_is_refused(folders: Path) -> None:
    with pytest.raises(ConfigError, match=r"--label-map caf\\xe9: a class name that is not UTF-8"):
        places("studio", ["phone"], {"caf\udce9": "cafe"})


@pytest.mark.parametrize(
    ("where", "name", "path"),
    [
        ("/photos/phone", "2024/a.jpg", "/photos/phone/2024/a.jpg"),
        ("/photos", "/elsewhere/a.jpg", "/elsewhere/a.jpg"),
        ("/photos", "s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("s3://bucket", "a.jpg", "s3://bucket/a.jpg"),
        ("hf:pets:train", "00000012", "hf:pets:train/00000012"),
    ],
)
def test_predictions_checks_and_messages_name_an_image_alike(
    found: Predicted, where: str, name: str, path: str
) -> None:
    assert image_path(where, name) == path
    assert replace(found, where=where, names=(name, "b", "c")).table()["path"][0] == path
    assert to_label([name], where, 1)["path"].tolist() == [path]
    assert files_of(where, [name]).shown(name) == path


@pytest.mark.parametrize(
    ("source", "targets", "error"),
    [
        ("studoi", ["phone"], "studoi: no such folder or file: name the images"),
        ("studio", ["phone", "other/phone"], "two domains would be called 'phone': rename a folder"),
        ("studio", [], "no target"),
        ("web.txt", ["phone"], "web.txt: no such folder or file"),
        ("studio", ["/"], "/: a domain has its folder's name, and this has none"),
        ("studio", ["caf\udce9"], r"caf\\xe9: its name or a folder's above it is not UTF-8: rename it"),
    ],
)
def test_places_that_cannot_be_used_are_refused(folders: Path, source: str, targets: list[str], error: str) -> None:
    (folders / "caf\udce9").mkdir()
    with pytest.raises(ConfigError, match=error):
        places(source, targets)


# Labels for checking


def test_the_interval_is_that_of_clopper_and_pearson() -> None:
    found = accuracy(["a"] * 8 + ["b"] * 2, ["a"] * 10)
    assert (found.right, found.images, found.percent) == (8, 10, 80)
    # Table of exact binomial limits, 8 of 10: 44.4 to 97.5.
    assert (found.low, found.high) == (pytest.approx(44.39, abs=0.01), pytest.approx(97.48, abs=0.01))
    assert accuracy(["a"], ["a"]).high == 100
    assert str(found) == "8 of 10 right: 80.0 % (95 % interval 44 to 97)"


NAMES = ["2024/a.jpg", "2024/b.jpg", "c.jpg", "more/a.jpg"]
CLASSES = ["cat", "dog"]


def files_of(where: str | Path, names: Sequence[str]) -> DomainFiles:
    """Images that no test opens."""
    return DomainFiles("phone", str(where), tuple(names), None, (), read=lambda _: b"", digests=list)


def write_check(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "check.csv"
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(path, index=False)
    return path


def test_a_list_names_images_by_their_path_below_the_target_or_from_anywhere(tmp_path: Path) -> None:
    where = tmp_path / "phone"
    rows = [("2024/a.jpg", "cat"), (str(where / "c.jpg"), "dog"), ("phone/more/a.jpg", "dog"), ("2024/b.jpg", "")]
    found = read_check(write_check(tmp_path, rows), {"phone": files_of(where, NAMES)}, CLASSES)
    assert found == {"phone": {"2024/a.jpg": "cat", "c.jpg": "dog", "more/a.jpg": "dog"}}


TARGETS = [
    ("/photos/phone", NAMES),
    ("/photos/list", ["/elsewhere/a.jpg", "s3://bucket/b.jpg", "c.jpg"]),
    ("hf:pets", ["00000000", "00000001"]),
    ("hf:birds", ["00000000", "00000001"]),
]


def test_what_is_drawn_to_be_labelled_is_read_back_of_every_target(tmp_path: Path) -> None:
    targets = {where: files_of(where, names) for where, names in TARGETS}
    drafts = pd.concat([to_label(names, where, 50) for where, names in TARGETS])
    drafts.assign(label="dog").to_csv(tmp_path / "check.csv", index=False)
    found = read_check(tmp_path / "check.csv", targets, CLASSES)
    assert found == {where: dict.fromkeys(names, "dog") for where, names in TARGETS}


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([("2024/z.jpg", "cat")], "2024/z.jpg: no image of the target, in '.*phone', '.*tab': write its whole path"),
        ([("c.jpg", "cat")], "c.jpg: several images have this name, in"),
        ([("2024/a.jpg", "cow")], "'cow': no class of the source, whose are 'cat', 'dog'"),
        ([("2024/a.jpg", "")], "no row with a label"),
        ([("2024/a.jpg", "cat"), ("phone/2024/a.jpg", "dog")], "phone/2024/a.jpg: labelled 'cat', 'dog': keep one"),
    ],
)
def test_labels_that_belong_to_nothing_are_refused(tmp_path: Path, rows: list[tuple[str, str]], error: str) -> None:
    targets = {"phone": files_of(tmp_path / "phone", NAMES), "tab": files_of(tmp_path / "tab", ["c.jpg"])}
    with pytest.raises(ConfigError, match=error):
        read_check(write_check(tmp_path, rows), targets, CLASSES)


def test_a_row_twice_with_one_label_is_one_and_a_label_map_applies(tmp_path: Path) -> None:
    rows = [("c.jpg", "cat"), ("phone/c.jpg", "kitty"), ("2024/a.jpg", "dog"), ("2024/b.jpg", "kitty")]
    check = write_check(tmp_path, rows)
    targets = {"phone": files_of(tmp_path / "phone", NAMES)}
    class_name = Catalogue(domains={}, label_map={"kitty": "cat"}).class_name
    assert read_check(check, targets, CLASSES, class_name) == {
        "phone": {"c.jpg": "cat", "2024/a.jpg": "dog", "2024/b.jpg": "cat"}
    }


def test_class_folders_hold_images_of_the_same_file_name(tmp_path: Path) -> None:
    targets = {"phone": files_of("phone", NAMES), "tab": files_of("tab", ["d.jpg"])}
    for image in ("cat/b.jpg", "dog/c.jpg", "dog/d.jpg"):
        (tmp_path / "check" / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "check" / image).write_bytes(b"")
    found = read_check(tmp_path / "check", targets, CLASSES)
    assert found == {"phone": {"2024/b.jpg": "cat", "c.jpg": "dog"}, "tab": {"d.jpg": "dog"}}
    (tmp_path / "check" / "cat" / "a.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match="2 images have this name: give a list"):
        read_check(tmp_path / "check", targets, CLASSES)
    (tmp_path / "check" / "cat" / "a.jpg").rename(tmp_path / "check" / "cat" / "x.jpg")
    with pytest.raises(ConfigError, match="no image of the target has this name"):
        read_check(tmp_path / "check", targets, CLASSES)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "check.csv").write_text("no,columns\n1,2\n")
    with pytest.raises(DataError, match="no column 'path'"):
        read_check(tmp_path / "check.csv", {"phone": files_of("phone", NAMES)}, CLASSES)


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
    assert table["second_class"].tolist() == ["dog", "dog", "cat"]
    assert table["probability"].tolist() == pytest.approx([0.9, 0.9, 0.55], abs=1e-3)
    assert table["second_probability"].tolist() == pytest.approx([0.1, 0.1, 0.45], abs=1e-3)
    assert table["agrees_with_source_only"].tolist() == ["yes", "no", "yes"]
    assert table["votes"].tolist() == [3, 2, 2]


def test_the_most_disputed_image_comes_first(found: Predicted) -> None:
    assert found.disputed.tolist() == [2, 1, 0]  # of two with equal votes, the less sure one
    assert found.agreement("mcc") == pytest.approx(200 / 3)


def test_predictions_have_the_columns_of_predict_and_their_own(found: Predicted) -> None:
    columns = found.table().columns.tolist()
    assert [name for name in columns if name in of_predict] == of_predict
    assert set(columns) - set(of_predict) == {"agrees_with_source_only", "votes", "candidates"}


def test_an_image_that_cannot_be_read_has_a_row_with_its_problem_alone(found: Predicted) -> None:
    table = replace(found, problems={"aa.jpg": "truncated"}).table()
    assert table["path"].tolist() == ["phone/a.jpg", "phone/aa.jpg", "phone/b.jpg", "phone/c.jpg"]
    assert table["problem"].tolist() == ["", "truncated", "", ""]
    lines = table.to_csv(index=False).splitlines()
    assert lines[2] == "phone/aa.jpg,,,,,,,,truncated"
    assert lines[3].split(",")[5:8] == ["no", "2", "3"]


def test_half_of_the_candidates_are_no_majority(found: Predicted) -> None:
    """Each of two candidates predicts another class, with the chosen one's first, and then second."""
    labels = {"best": np.array([0, 1, 0], np.int32), "source_only": np.array([1, 0, 0], np.int32)}
    assert replace(found, labels=labels).majority() == pytest.approx(100 / 3)
    assert found.majority() == 100


def test_votes_of_many_images_and_classes_take_no_more_than_the_votes() -> None:
    images, classes = 10_000, 345
    labels = {str(name): np.arange(images, dtype=np.int32) % (classes - name) for name in range(6)}
    names = tuple(map(str, range(images)))
    many = Predicted(names, "/photos", tuple(map(str, range(classes))), {}, labels, "0", None)
    tracemalloc.start()
    assert (many.votes.sum(axis=1) == 6).all()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * images * classes  # two bytes each; one-hot rows took 48


# Ties


SCORES = pd.DataFrame({"candidate": ["best", "source_only", "mcc"], "coherence": [80.0, 78.5, 77.9]})


def test_a_score_less_than_a_standard_error_lower_is_a_tie() -> None:
    """Of 400 images: 100 sqrt(0.8 0.2 / 400) = 2. Of a million `coherence` sees 2,000, 0.89, and `ensv` all, 0.04."""
    assert tie(SCORES, "coherence", 400, 10**6) == (["source_only"], pytest.approx(2.0))
    assert tie(SCORES, "coherence", 10**6, 400) == (["source_only"], pytest.approx(2.0))
    assert tie(SCORES, "coherence", 10**6, 10**6) == ([], pytest.approx(0.894, abs=1e-3))
    assert tie(SCORES.head(1), "coherence", 400, 400).candidates == []
    of_ensv = SCORES.rename(columns={"coherence": "ensv"})
    assert tie(of_ensv, "ensv", 1, 10**6) == ([], pytest.approx(0.04))
    assert tie(of_ensv, "ensv", 1, 400).candidates == ["source_only"]
    for other in ("im", "circular", "reverse"):
        assert tie(SCORES.rename(columns={"coherence": other}), other, 400, 400).candidates == []


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (3, "That is a toss-up: the score of source_only and mcc is less than one standard error (23) lower, so each"),
        (400, "the score of source_only is less than one standard error (2) lower, so it may be as good or better."),
        (10**6, "ranks it first of 3 candidates (80; next source_only, 78.5)."),
    ],
)
def test_the_page_says_that_a_tie_is_a_toss_up(found: Predicted, images: int, says: str) -> None:
    record = record_of(config_of("mnist", "mnistm", "ce", "lenet", 0), 50.0)
    assert record.result is not None
    result = record.result.model_copy(update={"images": {"mnist": images, "mnistm": images}})
    on_target = OnTarget("phone", record.model_copy(update={"result": result}), found, SCORES, {}, {})
    sentence = _chosen(on_target, "coherence")
    assert sentence.startswith("best predicts phone from mnist: the validator coherence")
    assert says in sentence
    assert ("toss-up" in sentence) == (images < 10**6)
    told = str(Adaptation(Path("out"), [on_target], validator="coherence"))
    assert ("best (coherence chose)" in told) == (images == 10**6)
    assert ("best (coherence chose, a toss-up with source_only" in told) == (images < 10**6)


@pytest.mark.parametrize(
    ("votes", "page", "text"),
    [
        ({}, "source_only, 78.5).", "best (im chose)"),
        ({"im": "best", "ensv": "best"}, "best is the choice of 2 of 2 validators that can compare these.", "2 of 2"),
        (
            {"im": "best", "ensv": "mcc", "reverse": "source_only", "classami": "mcc"},
            "1 of 4 validators that can compare these; mcc is that of ensv, classami; source_only is that of reverse.",
            "best (im chose; the choice of 1 of 4 validators)",
        ),
    ],
)
def test_the_page_and_the_outcome_say_which_validators_choose_alike(
    found: Predicted, votes: dict[str, str], page: str, text: str
) -> None:
    record = record_of(config_of("mnist", "mnistm", "ce", "lenet", 0), 50.0)
    on_target = OnTarget("phone", record, found, SCORES.rename(columns={"coherence": "im"}), {}, votes)
    assert page in _chosen(on_target, "im")
    assert text in str(Adaptation(Path("out"), [on_target], validator="im"))


# The page


@pytest.mark.parametrize("suffix", ["heic", "16-bit png"])
def test_a_thumbnail_shows_what_the_decoder_sees(suffix: str) -> None:
    grey = np.full((32, 32), 64, np.uint8)
    file = io.BytesIO()
    if suffix == "heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.from_pillow(Image.fromarray(np.stack([grey] * 3, axis=2))).save(file)
    else:
        Image.fromarray(grey.astype(np.uint16) * 256).save(file, "PNG")
    code = f"from scale_ray.adaptation.page import _thumbnail; print(_thumbnail({file.getvalue()!r}))"
    # In a process of its own, in which nothing has been decoded yet.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(base64.b64decode(done.stdout.partition(",")[2]))) as image:
        assert np.asarray(image).mean() == pytest.approx(64, abs=3)


# The outcome


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Adaptation(Path("out"), interrupted=3), "interrupted with 3 trainings to do: run the same command again"),
        (Adaptation(Path("out"), failed=2, lacking=["a<b"]), "2 trainings failed: `scale-ray report out/store`"),
    ],
)
def test_an_outcome_without_predictions_says_so_and_is_an_empty_table(outcome: Adaptation, text: str) -> None:
    assert text in str(outcome)
    assert "predictions.csv" not in str(outcome)
    assert outcome.predictions.empty
    assert "second_class" in outcome.predictions
    assert text in outcome._repr_html_()
    assert "a<b" not in outcome._repr_html_()
