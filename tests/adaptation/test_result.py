"""What `scale-ray adapt` leaves for several targets, and what it says where something goes wrong."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from commands import command, refused
from here import Here, copy_images, study_here

from scale_ray import tracked
from scale_ray.adaptation import run
from scale_ray.adaptation.asked import ask


@pytest.fixture(autouse=True)
def _trainings_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked, "run_study", study_here())


def true_class(path: str) -> str:
    return Path(path).name.partition("_")[0]


def predictions(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "predictions.csv", keep_default_na=False)


def test_every_image_has_a_row_with_a_path_that_opens(images: Here, result: Path) -> None:
    table = predictions(result)
    assert len(table) == 18 + 1 + 18
    assert all(Path(path).is_file() for path in table["path"])
    (lost,) = table[table["problem"] != ""].to_dict("records")
    assert (Path(lost["path"]).name, lost["class"]) == ("lost.png", "")
    assert "damaged" in lost["problem"] or "truncated" in lost["problem"]
    page = (result / "report.html").read_text()
    assert "1 image of phone could not be read: the column <code>problem</code>" in page
    assert "<dt>scale (ce+ssl+dist+reg)</dt><dd>relies on self-training with contrast</dd>" in page
    assert "<dt>prototypes</dt>" not in page  # which was not tried
    assert len(re.findall(r"is the choice of \d of \d validators that can compare these", page)) == 2
    assert f"fill in labels in {result / 'check.csv'} and run the same command" in page
    assert sorted(path.name for path in (result / "model").iterdir()) == ["phone", "tab"]


@pytest.mark.parametrize("told", [["--check", "out/check.csv"], []], ids=["named", "found"])
def test_what_is_drawn_for_checking_measures_both_targets(
    images: Here, result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = shutil.copytree(result, tmp_path / "out")
    check = pd.read_csv(out / "check.csv")
    assert len(check) == 36
    check.assign(label=check["path"].map(true_class)).to_csv(out / "check.csv", index=False)
    outcome = command("adapt", *images.command, "--out", out, *told)
    assert outcome.status == 0, outcome.err
    assert "12 trainings, 12 done, 0 to do" in outcome.out
    of_class = predictions(out).set_index("path").loc[check["path"], "class"]
    for place in ("phone", "elsewhere"):
        right = sum(name == true_class(path) for path, name in of_class.items() if f"/{place}/" in path)
        assert f"{right} of 18 right" in outcome.out


def never(*_: object) -> None:
    raise AssertionError("something was trained")


@pytest.mark.parametrize(
    ("option", "error"),
    [
        (("--check", "check.csv"), "'chequers': no class of the source, whose are 'checks', 'columns', 'rows'"),
        (("--choose", "nonsense"), "unknown validator 'nonsense'"),
        (("--choose", "oracle"), "--choose oracle: it reads labels of the target, which has none"),
        (("--out", "s3://bucket/result"), "predictions and report go to a folder of this machine"),
        (("--store", "elsewhere"), "No such option: --store"),
        (("--keep-predictions",), "No such option: --keep-predictions"),
        (("--no-keep-model",), "No such option: --no-keep-model"),
    ],
)
def test_a_mistake_ends_it_before_anything_is_trained(
    images: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], error: str
) -> None:
    monkeypatch.setattr(tracked, "run_study", never)
    monkeypatch.chdir(tmp_path)
    first = min((Path(images.targets[0])).iterdir())
    pd.DataFrame({"path": [str(first)], "label": ["chequers"]}).to_csv("check.csv", index=False)
    refused(command("adapt", *images.command, "--out", tmp_path / "new", *option), error)
    assert not (tmp_path / "new" / "store" / "records").exists()


def test_another_target_in_the_same_folder_is_refused(images: Here, result: Path, tmp_path: Path) -> None:
    out = shutil.copytree(result, tmp_path / "out")
    other = shutil.copytree(images.targets[0], tmp_path / "other" / "phone")
    others = Here(images.source, [str(other), images.targets[1]])
    before = (out / "domains.toml").read_bytes()
    refused(command("adapt", *others.command, "--out", out), "holds the result for other images", "name a new folder")
    assert (out / "domains.toml").read_bytes() == before


def test_a_folder_in_which_nothing_was_trained_takes_other_images(images: Here, tmp_path: Path) -> None:
    catalogue = ask(images.source, images.targets[:1], **images.options).catalogue
    run._open(tmp_path / "out", catalogue, leave=True)
    more = ask(images.source, images.targets, **images.options).catalogue
    assert run._open(tmp_path / "out", more, leave=True).record_ids() == []
    assert "tab.csv" in (tmp_path / "out" / "domains.toml").read_text()


def test_a_target_whose_trainings_fail_leaves_the_other_one_its_result(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = copy_images(tiny_root, tmp_path / "images")
    gone = next((tmp_path / "images" / "elsewhere").iterdir())
    monkeypatch.setattr(tracked, "run_study", study_here(before=gone.unlink))
    outcome = command("adapt", *images.command, "--out", tmp_path / "out")
    assert outcome.status == 1, outcome.err
    assert "phone: " in outcome.out
    assert "tab: no predictions, as its trainings failed" in outcome.out
    assert f"6 trainings failed: `scale-ray report {tmp_path / 'out' / 'store'}` has their reasons" in outcome.out
    assert len(predictions(tmp_path / "out")) == 19
    assert "tab has no predictions: its trainings failed" in (tmp_path / "out" / "report.html").read_text()
    assert [path.name for path in (tmp_path / "out" / "model").iterdir()] == ["phone"]


def test_if_every_training_fails_it_says_so_and_where_the_reasons_are(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = copy_images(tiny_root, tmp_path / "images")
    lost = Path(images.source) / "rows"
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))  # where nothing is decoded yet
    monkeypatch.setattr(tracked, "run_study", study_here(before=lambda: shutil.rmtree(lost)))
    outcome = command("adapt", *images.command, "--out", tmp_path / "out")
    assert outcome.status == 1, outcome.err
    assert "12 trainings failed: `scale-ray report " in outcome.out
    assert "interrupted" not in outcome.out
    assert "predictions:" not in outcome.out
