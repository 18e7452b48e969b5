"""`scale-ray adapt`, from images to predictions, on a local Ray."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from commands import Outcome, command, refused

from scale_ray.data.work import cpus
from scale_ray.store import Store


@pytest.fixture(scope="module")
def images(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`studio` with class folders; `phone` with all images in one folder, whose names tell the class to this test."""
    root = tmp_path_factory.mktemp("images")
    shutil.copytree(tiny_root / "plain", root / "studio")
    (root / "phone").mkdir()
    for path in (tiny_root / "inverted").rglob("*.png"):
        shutil.copy(path, root / "phone" / f"{path.parent.name}_{path.name}")
    return root


def adapt(images: Path, out: Path, weights: Path, *more: str | Path) -> Outcome:
    sizes = ("data.image_size=16", "data.resize=16", "model.frozen_views=2", "model.bottleneck_dim=12")
    steps = ("optim.steps=30", "optim.warmup_steps=5", "evaluate_every=15", "model.hidden_dim=16", "optim.batch_size=8")
    return command(
        *("adapt", "--source", images / "studio", "--target", images / "phone", "--out", out, "--address", "local"),
        *("--backbone", "lenet", "--weights", weights, "--device", "cpu"),
        *(text for setting in (*sizes, *steps) for text in ("--set", setting)),
        *more,
    )


@pytest.fixture(scope="module")
def result(images: Path, lenet_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("adapted") / "result"
    return out, adapt(images, out, lenet_weights)


def true_class(path: str) -> str:
    return Path(path).name.partition("_")[0]


def test_every_image_gets_a_class(result: tuple[Path, Outcome], images: Path) -> None:
    out, outcome = result
    assert outcome.status == 0, outcome.err
    predictions = pd.read_csv(out / "predictions.csv")
    assert sorted(predictions["path"]) == sorted(map(str, (images / "phone").iterdir()))
    assert set(predictions["class"]) <= {"checks", "columns", "rows"}
    assert (predictions["candidates"] == 7).all()
    assert (predictions["class"] == predictions["path"].map(true_class)).mean() > 0.6  # chance is 0.42


def test_no_record_knows_an_accuracy_on_the_target(result: tuple[Path, Outcome]) -> None:
    out, outcome = result
    records = list(Store(out / "store").records())
    assert len(records) == 7
    assert all(record.result.target_accuracy is None for record in records)
    assert "target " not in outcome.out.replace("target-free", "")


def test_the_page_says_what_was_chosen_how_sure_one_can_be_and_what_to_look_at(result: tuple[Path, Outcome]) -> None:
    out, outcome = result
    page = (out / "report.html").read_text()
    (chosen,) = [line for line in outcome.out.splitlines() if line.startswith("phone: ")]
    assert f"{chosen.removeprefix('phone: ').partition(' (')[0]} predicts phone from studio" in page
    assert "Its accuracy is not known, as there are no labels" in page
    assert "Look first at the images below" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 24


def test_the_same_command_trains_nothing_and_checks_what_was_labelled(
    result: tuple[Path, Outcome], images: Path, lenet_weights: Path
) -> None:
    out, _ = result
    check = pd.read_csv(out / "check.csv")
    assert len(check) == 48
    check["label"] = check["path"].map(true_class)
    check[:20].to_csv(out / "check.csv", index=False)
    outcome = adapt(images, out, lenet_weights, "--check", out / "check.csv")
    assert outcome.status == 0, outcome.err
    assert "7 trainings, 7 done, 0 to do" in outcome.out
    predictions = pd.read_csv(out / "predictions.csv").set_index("path")
    right = int((predictions.loc[check["path"][:20], "class"] == check["path"][:20].map(true_class).values).sum())
    assert f"On the images that you labelled for checking, {right} of 20 right" in (out / "report.html").read_text()
    assert len(pd.read_csv(out / "check.csv")) == 20  # what was filled in is kept


@pytest.mark.slow  # docs/first_study.ipynb has a budget too
def test_a_budget_leaves_out_what_takes_too_long(images: Path, lenet_weights: Path, tmp_path: Path) -> None:
    outcome = adapt(images, tmp_path / "result", lenet_weights, "--budget", "0.001s")
    assert outcome.status == 0, outcome.err
    assert "source_only: about " in outcome.out
    assert "left out: source_only: it takes about" in outcome.out
    assert len(pd.read_csv(tmp_path / "result" / "predictions.csv")) == 48
    assert "phone: prototypes" in outcome.out
    ((measured,), (decided,)) = map(dict.values, json.loads((tmp_path / "result" / "budget.json").read_text()).values())
    assert measured["slots"] == cpus()  # of Ray, one for each training
    assert len(measured["seconds"]) == 6
    assert decided["kept"] == ["prototypes"]
    again = adapt(images, tmp_path / "result", lenet_weights, "--budget", "0.001s")
    assert again.status == 0, again.err
    assert "1 trainings, 1 done, 0 to do" in again.out
    assert "about" not in again.out.replace("it takes about", "")  # nothing is measured anew


def test_a_mistake_is_one_line_before_anything_runs(images: Path, lenet_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    refused(adapt(images, tmp_path / "full", lenet_weights), "a folder with other files: name a new one")
    refused(adapt(images, tmp_path / "new", lenet_weights, "--check", tmp_path / "none.csv"), "no such file or folder")
    refused(adapt(images, tmp_path / "new", lenet_weights, "--budget", "30"), "write a time")
    refused(adapt(images, tmp_path / "new", lenet_weights, "--label-map", "a"), "write OLD=NEW")
    assert not (tmp_path / "new" / "store" / "records").exists()
