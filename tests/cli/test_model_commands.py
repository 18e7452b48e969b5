"""`scale-ray export` and `scale-ray predict`: what they write, print and refuse."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from commands import TINY, Outcome, command, refused, subprocess_command, truncate

from scale_ray.store import Store

HEADER = ["path", "class", "probability", "second_class", "second_probability", "problem"]


@pytest.fixture(scope="module")
def bundle(trained: tuple[Outcome, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "model"
    outcome = command("export", trained[1], "--out", folder)
    assert outcome.status == 0, outcome.err
    assert outcome.out == f"model: {folder / 'model.safetensors'}\n"
    return folder


def rows_of(text: str) -> list[list[str]]:
    header, *rows = csv.reader(io.StringIO(text))
    assert header == HEADER
    return rows


def test_predictions_go_to_standard_output_and_all_else_does_not(bundle: Path, images: Path) -> None:
    outcome = command("predict", bundle, images / "Art", "--device", "cpu")
    assert outcome.status == 0, outcome.err
    rows = rows_of(outcome.out)
    paths = [str(images / "Art" / name / f"{number}.jpg") for name in ("cat", "dog") for number in range(8)]
    assert [row[0] for row in rows] == paths
    assert all({row[1], row[3]} == {"cat", "dog"} and float(row[2]) + float(row[4]) == pytest.approx(1) for row in rows)
    assert outcome.err.splitlines()[-1].startswith("16 images predicted, ")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_store_predicts_as_its_bundle(
    suffix: str, bundle: Path, trained: tuple[Outcome, Path], images: Path, tmp_path: Path
) -> None:
    (record,) = Store(trained[1]).records()
    files = []
    for number, model in enumerate([bundle, f"{trained[1]}/{record.id[:8]}", f"{trained[1]}/records/{record.id}.json"]):
        file = tmp_path / f"{number}.{suffix}"
        outcome = command("predict", model, images / "Art", "--out", file, "--batch", "5", "--device", "cpu")
        assert (outcome.status, outcome.out) == (0, "")
        assert outcome.err.splitlines()[-1].endswith(f": {file}")
        files.append(file.read_bytes())
    assert files[0] == files[1] == files[2]
    assert list(tmp_path.glob(".*")) == []


def test_unreadable_images_have_rows_and_the_status_is_1(bundle: Path, own_images: Path, tmp_path: Path) -> None:
    broken = truncate(own_images / "Art" / "cat" / "3.jpg")
    (own_images / "Art" / "notes.txt").write_text("no image")
    outcome = command("predict", bundle, own_images / "Art", "--out", tmp_path / "found.csv", "--device", "cpu")
    assert outcome.status == 1
    rows = rows_of((tmp_path / "found.csv").read_text())
    assert len(rows) == 16
    assert [row for row in rows if row[5]] == [[str(broken), "", "", "", "", rows[3][5]]]
    first, last = outcome.err.splitlines()
    assert first == "1 files in the folders are no images and are left out"
    assert "16 images predicted, " in last
    assert ", 1 of them unreadable: " in last


def test_bad_input_is_one_line_and_writes_nothing(bundle: Path, images: Path, tmp_path: Path) -> None:
    refused(command("predict", bundle, tmp_path / "none"), tmp_path / "none", "no such file or folder")
    refused(command("predict", tmp_path, images), tmp_path, "neither a bundle nor a store with records")
    refused(command("predict", bundle, images, "--out", tmp_path / "found.xlsx"), ".csv, .parquet, .jsonl")
    refused(command("predict", bundle, images, "--out", tmp_path / "no" / "found.csv"), "no folder")
    refused(command("predict", bundle, images, "--ray"), "--out FOLDER|URL")
    refused(command("predict", bundle, images, "--device", "tpu7"), "tpu7")
    refused(command("predict", bundle, images, "--weights", bundle / "model.safetensors"), "--weights")
    refused(command("export", bundle, "--out", tmp_path / "x", "--format", "onx"), "did you mean 'onnx'")
    refused(command("export", tmp_path / "none", "--out", tmp_path / "x"), "none")
    assert list(tmp_path.glob("found*")) == []


def test_a_model_that_is_not_stored_says_how_to_get_it(images: Path, tmp_path: Path) -> None:
    assert command("train", *TINY, "--root", images, "--store", tmp_path / "store").status == 0
    refused(command("export", tmp_path / "store", "--out", tmp_path / "model"), "is not stored", "--keep-model")
    assert not (tmp_path / "model").exists()


def test_export_writes_a_graph_and_says_how_near_it_is(bundle: Path, tmp_path: Path) -> None:
    outcome = command("export", bundle, "--format", "onnx", "--input", "uint8", "--out", tmp_path / "graph")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(f"model: {tmp_path / 'graph' / 'model.onnx'}: logits differ from PyTorch's by ")
    assert float(outcome.out.split()[-3]) < 1e-4
    assert json.loads((tmp_path / "graph" / "classes.json").read_text()) == ["cat", "dog"]


def test_predict_needs_no_ray(bundle: Path, images: Path, tmp_path: Path) -> None:
    """On a machine where Ray cannot be imported it is the same."""
    (tmp_path / "ray.py").write_text("raise RuntimeError('ray was imported')")
    first = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    outcome = subprocess_command("predict", bundle, images / "Art" / "cat", "--device", "cpu", PYTHONPATH=first)
    assert outcome.status == 0, outcome.err
    assert len(rows_of(outcome.out)) == 8


# What train and studies say of models


def test_train_without_a_store_says_first_that_nothing_is_kept(images: Path) -> None:
    outcome = command("train", *TINY, "--root", images)
    assert outcome.status == 0, outcome.err
    told = [line for line in outcome.out.splitlines() if "kept" in line and "step" not in line]
    assert told == ["nothing of this training is kept: add --store FOLDER for its record and checkpoints"]
    assert outcome.out.splitlines()[0] == told[0]


def test_train_takes_a_record_as_its_config(trained: tuple[Outcome, Path], images: Path, tmp_path: Path) -> None:
    (record,) = Store(trained[1]).records()
    given = ("--config", f"{trained[1]}/records/{record.id}.json", "--root", images, "--device", "cpu")
    assert command("train", *given, "--store", tmp_path).status == 0
    assert command("train", *given, "--store", tmp_path, "--seed", "1").status == 0
    same, other = sorted(Store(tmp_path).records(), key=lambda each: each.config.seed)
    assert (same.id, same.config, same.result) == (record.id, record.config, record.result)
    assert other.config == record.config.replace({"seed": 1})


def test_a_record_without_a_config_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps({"schema_version": 1, "id": "", "config": None, "inputs": {}}))
    refused(command("train", "--config", file), file, "a record without a config")


def test_models_that_are_asked_for_later_are_in_the_plan(
    trained: tuple[Outcome, Path], images: Path, tmp_path: Path
) -> None:
    (record,) = Store(trained[1]).records()
    grid = ["ablate", "--config", _base_of(record.config.model_dump(mode="json"), tmp_path), "--root", images]
    grid += ["--pairs", "Art:Real World", "--losses", "ce,ce+ssl", "--seeds", "1", "--backbone", "lenet"]
    store = tmp_path / "store"
    assert command("train", *TINY, "--root", images, "--store", store).status == 0
    dry = [*grid, "--store", store, "--dry-run"]
    assert "2 cells, 1 done, 1 to do" in command(*dry).out
    outcome = command(*dry, "--keep-model")
    assert "2 cells, 1 done, models of 1 to make, 1 to do (0 failed before), 8 steps" in outcome.out
    assert "done, its model to make" in outcome.out
    both = command(*dry, "--keep-model", "--keep-predictions").out
    assert "2 cells, 1 done, models of 1 to make, predictions of 1 to make, 1 to do" in both
    assert command("train", *TINY, "--root", images, "--store", store, "--keep-model").status == 0
    assert "2 cells, 1 done, 1 to do" in command(*dry, "--keep-model").out


def _base_of(config: dict, folder: Path) -> Path:
    """A file with the fields of a config that no axis of the grid decides."""
    for path in ("seed", "method"):
        del config[path]
    for part, path in (("data", "source"), ("data", "target"), ("model", "backbone"), ("losses", "terms")):
        del config[part][path]
    file = folder / "base.json"
    file.write_text(json.dumps(config))
    return file
