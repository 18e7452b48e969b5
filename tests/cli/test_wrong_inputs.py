"""Wrong inputs: each is one line that names the thing, the place and the remedy."""

from pathlib import Path

import pytest
import torch
from commands import TINY, command, refused, subprocess_command, truncate

from scale_ray.models import build_encoder
from scale_ray.store import Store


def test_unknown_key_is_refused_in_a_process_of_its_own() -> None:
    outcome = subprocess_command("train", "--set", "losses.temprature=0.1")
    refused(outcome, "unknown field 'losses.temprature'", "did you mean 'losses.temperature'?")
    assert outcome.err.count("\n") == 1


def test_unknown_key_shows_its_traceback_for_debugging() -> None:
    outcome = subprocess_command("train", "--set", "losses.temprature=0.1", SCALE_RAY_DEBUG="1")
    assert outcome.status == 1
    assert "Traceback" in outcome.err
    assert "ConfigError: unknown field" in outcome.err


def test_unknown_backbone_is_refused(images: Path) -> None:
    outcome = command("train", *TINY, "--root", images, "--backbone", "resnet17")
    refused(outcome, "unknown model.backbone 'resnet17'", "did you mean 'resnet18'?", "known: lenet")


def test_missing_root_is_refused(images: Path) -> None:
    refused(command("train", *TINY), "image_folder: where are the images?", "--root FOLDER")
    outcome = command("train", *TINY, "--root", images / "nowhere" / "deep")
    refused(outcome, f"--root {images}/nowhere/deep: no such folder", f"{images} is the last part")


def test_missing_domain_is_refused(images: Path) -> None:
    outcome = command("train", *TINY, "--root", images, "--source", "Arts")
    refused(outcome, f"--root {images}: no folder for domain 'Arts'", "did you mean 'Art'?", "holds: Art, Real World")


def test_class_sets_that_differ_are_refused(own_images: Path) -> None:
    (own_images / "Art" / "dog").rename(own_images / "Art" / "wolf")
    outcome = command("train", *TINY, "--root", own_images)
    refused(outcome, "Art lacks 'dog'", "Real World lacks 'wolf'", "rename, add or remove those folders")


def test_empty_class_is_refused(own_images: Path) -> None:
    for path in (own_images / "Real World" / "dog").iterdir():
        path.unlink()
    outcome = command("train", *TINY, "--root", own_images)
    refused(outcome, own_images / "Real World" / "dog", "of class 'dog'", "add some, or remove the class")


def test_truncated_jpeg_is_refused_and_recorded(own_images: Path, tmp_path: Path) -> None:
    path = truncate(own_images / "Art" / "cat" / "3.jpg")
    outcome = command("train", *TINY, "--root", own_images, "--store", tmp_path / "runs")
    refused(outcome, f"{path}: unreadable image", "replace it, or set data.corrupt to 'skip'")
    (record,) = Store(tmp_path / "runs").records()
    assert record.status == "failed"
    assert record.failure is not None
    assert str(path) in record.failure.message


def test_weights_of_another_architecture_are_refused(images: Path, tmp_path: Path) -> None:
    torch.save(build_encoder("mobilenet_v2", "none").state_dict(), tmp_path / "mobile.pt")
    outcome = command("train", *TINY, "--root", images, "--weights", tmp_path / "mobile.pt")
    refused(outcome, tmp_path / "mobile.pt", "weights of another architecture", "choose the file or the backbone")


def test_store_without_write_permission_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = command("train", *TINY, "--root", images, "--store", tmp_path / "file" / "store")
    refused(outcome, f"store {tmp_path}/file/store: cannot be written to", "choose another folder")
    if Path("/proc/self").exists():  # where not even root makes folders
        outcome = command("train", *TINY, "--root", images, "--store", "/proc/scale_ray")
        refused(outcome, "store /proc/scale_ray: cannot be written to", "choose another folder")


def test_temperature_zero_is_refused() -> None:
    refused(command("train", "--set", "losses.temperature=0"), "losses.temperature", "greater than 0", "got 0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "losses.threshold"], ["--set 'losses.threshold'", "write PATH=VALUE"]),
        (["--set", "data.benchmark=5"], ["unknown benchmark '5'", "known: digits"]),
        (["--benchmark", "ofice_home"], ["unknown benchmark 'ofice_home'", "did you mean 'office_home'?"]),
        (["--benchmark", "image_folder"], ["image_folder has no usual domain pair", "--source, --target"]),
        (["--source", "mnst"], ["digits has no domain 'mnst'", "did you mean 'mnist'?"]),
        (["--source", "mnistm"], ["source and target are both 'mnistm'"]),
        (["--losses", "ce+sll"], ["unknown loss term 'sll'", "did you mean 'ssl'?"]),
        (["--method", "scael"], ["unknown method 'scael'", "did you mean 'scale'?"]),
        (["--weights", "nowhere.pt"], ["no file '", "nowhere.pt'", "the path of a state dict"]),
        (["--config", "nowhere.json"], ["--config nowhere.json: cannot be read as JSON"]),
        (["--store", "hdfs://bucket/runs"], ["hdfs:// is not supported", "give a folder, s3:// or gs://"]),
    ],
)
def test_other_wrong_inputs_are_refused(arguments: list[str], words: list[str]) -> None:
    refused(command("train", *arguments), *words)


def test_a_device_that_is_not_there_is_refused(images: Path) -> None:
    outcome = command("train", *TINY, "--root", images, "--device", "cudo")
    refused(outcome, "device 'cudo' cannot be used", "write 'cpu' or 'auto'")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "cannot be read as JSON"), (b"\xff\xfe", "cannot be read as JSON"), (b"[]", "holds a list")],
)
def test_unreadable_config_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "trial.json"
    file.write_bytes(content)
    refused(command("train", "--config", file), f"--config {file}", words)


def test_each_of_several_problems_is_a_line() -> None:
    outcome = command("train", "--set", "losses.temperature=0", "--set", "losses.threshold=1")
    assert outcome.status == 2
    assert [line.split(": ")[1] for line in outcome.errors] == ["losses.threshold", "losses.temperature"]
    assert outcome.err.count("\n") == 2
