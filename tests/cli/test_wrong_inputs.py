"""Wrong inputs: each is one line that names the thing, the place and the remedy."""

from pathlib import Path

import pytest
import torch
from commands import TINY, command, refused, subprocess_command, truncate
from hypothesis import given
from hypothesis import strategies as st

from scale_ray.cli.read import read_study_url
from scale_ray.config import ConfigError, Resources
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
    refused(outcome, f"{path}: unreadable image", "replace it, or leave such images out: --set data.corrupt=skip")
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


HUGE = "9" * 30
UNREADABLE = "9" * 5000  # more digits than Python reads
DEEP = "[" * 50_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        # GPUs that Ray cannot give
        (["ablate", "--gpus-per-trial", "1.5"], ["gpus: 1.5 is no number of GPUs that Ray can give", "a whole number"]),
        (["ablate", "--gpus-per-trial", "1e-5"], ["gpus: 1e-05", "a fraction below 1 of 0.0001 at least"]),
        (["tune", "--gpus-per-trial", "1.5"], ["gpus: 1.5 is no number of GPUs"]),
        (["compare", "--gpus-per-trial", "inf"], ["gpus: ", "finite"]),
        (["ablate", "--gpus-per-trial", "nan"], ["--gpus-per-trial"]),
        (["ablate", "--gpus-per-trial", "1e9"], ["gpus: ", "less than or equal to 10000"]),
        # numbers that no run has
        (["ablate", "--hang-after", "inf"], ["hang_after: "]),
        (["ablate", "--hang-after", "nan"], ["hang-after"]),
        (["ablate", "--cpus-per-trial", HUGE], ["cpus: ", "less than or equal to 10000"]),
        (["ablate", "--workers-per-trial", HUGE], ["workers"]),
        (["train", "--threads", "1000000000"], ["threads: ", "less than or equal to 10000"]),
        (["train", "--checkpoint-every", HUGE], ["checkpoint_every"]),
        (["train", "--set", f"optim.steps={HUGE}"], ["optim.steps", "less than or equal to"]),
        (["train", "--set", f"model.hidden_dim={HUGE}"], ["model.hidden_dim", "less than or equal to"]),
        (["train", "--seed", HUGE], ["seed", "less than 2147483648"]),
        (["train", "--seed", UNREADABLE], ["--seed"]),
        (["train", "--set", f"optim.batch_size={UNREADABLE}"], ["optim.batch_size", "(5,002 characters)"]),
        (["train", "--set", f"losses.threshold={DEEP}"], ["losses.threshold", "(50,002 characters)"]),
        (["ablate", "--seeds", "1000000000"], ["--seeds 1000000000: a study has at most 1,000,000 cells"]),
        (["ablate", "--seeds", UNREADABLE], ["--seeds"]),
        (["ablate", "--seeds", "1000", "--axis", f"optim.steps={','.join(map(str, range(1, 1000)))}"], ["1000 seed x"]),
        # no numbers
        *(
            (["train", "--set", f"optim.learning_rate={text}"], ["optim.learning_rate", "finite"])
            for text in ("NaN", "1e999")
        ),
        *((["train", "--losses", f"ce+{text}*ssl"], ["losses.terms.ssl", "finite"]) for text in ("nan", "inf")),
        (["train", "--set", 'losses.terms={"ce": NaN}'], ["losses.terms.ce", "finite"]),
        (["train", "--set", "views.crop_scale=[NaN, 1]"], ["views.crop_scale.0", "finite"]),
        (["train", "--set", "seed=1e999"], ["seed", "finite"]),
        (["ablate", "--axis", "losses.threshold=NaN"], ["losses.threshold", "finite"]),
        (["tune", "--space", "losses.threshold=float:nan:0.9"], ["losses.threshold", "finite"]),
        (["tune", "--space", "losses.threshold=float:0.1:inf"], ["losses.threshold", "finite"]),
        (["tune", "--space", "losses.threshold=float:0.1:0.9:nan"], ["the step is nan"]),
        # more values than a field can be searched on
        (["tune", "--space", "losses.threshold=float:0:0.9:1e-9"], ["900,000,001 values", "take a larger step"]),
        (["tune", "--space", "losses.threshold=float:0.1:0.9:1e-320"], ["the step is too small"]),
        (["tune", "--space", "optim.batch_size=int:2:1000000000"], ["999,999,999 values"]),
        # places
        (
            ["ablate", "--address", "ray://head:10001"],
            ["address: ray://head:10001", "`ray job submit` or `ray submit`"],
        ),
        (["tune", "--address", "http://127.0.0.1:8265"], ["address: http://127.0.0.1:8265", "--local"]),
        (["train", "--config", "/tmp"], ["--config /tmp", "Is a directory"]),
        (
            ["train", "--benchmark", "image_folder", "--source", "a", "--target", "b", "--root", "/" + "x" * 300],
            ["too long"],
        ),
        (["train", "--weights", "x" * 300], ["too long"]),
        # what Typer itself refuses
        (["train", "--checkpoint-every", "0"], ["'--checkpoint-every'"]),
        (["train", "--foo"], ["--foo"]),
        (["trian"], ["trian"]),
        (["tune", "--parallel", "0"], ["'--parallel'"]),
        (["report"], ["STORE"]),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_numbers_and_places_that_cannot_be_are_one_line(arguments: list[str], words: list[str]) -> None:
    if arguments[0] in ("ablate", "compare", "tune"):
        arguments = [*arguments, "--dry-run"]
    refused(command(*arguments), *words)


@pytest.mark.parametrize("gpus", ["0", "0.0001", "0.25", "0.33333", "1", "2", "8.0"])
def test_gpus_that_ray_can_give_are_taken(gpus: str, tmp_path: Path) -> None:
    grid = ["--seeds", "1", "--pairs", "mnist:mnistm", "--losses", "ce"]
    outcome = command("ablate", "--dry-run", *grid, "--gpus-per-trial", gpus, "--store", tmp_path / "store")
    assert outcome.status == 0, outcome.err


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_gpus_are_taken_or_refused(gpus: float) -> None:
    possible = gpus == 0 or 0.0001 <= gpus <= 1 or (1 < gpus <= 10_000 and gpus == int(gpus))
    if possible:
        assert Resources.parse({"gpus": gpus}).gpus == gpus
    else:
        with pytest.raises(ConfigError) as refusal:
            Resources.parse({"gpus": gpus})
        assert "\n" not in str(refusal.value)


def test_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "trial.json"
    file.write_text(DEEP + "]" * len(DEEP))
    refused(command("train", "--config", file), f"--config {file}", "cannot be read as JSON")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["tune", "--study-url", "postgresql://me:hunter2@host/db"], "postgresql://me:***@host/db"),
        (["tune", "--study-url=postgresql://host/db?password=hunter2"], "password=***"),
        (["ablate", "--store", "s3://key:hunter2@bucket/runs"], "s3://key:***@bucket/runs"),
    ],
)
def test_a_password_on_the_command_line_is_refused(arguments: list[str], shown: str) -> None:
    outcome = command(*arguments)
    refused(outcome, shown, "SCALE_RAY_STUDY_URL", "--study-url @FILE")
    assert "hunter2" not in outcome.err + outcome.out


def test_a_url_with_a_password_comes_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is asked last, by the URL that was given; no machine is called like this one."""
    url = "postgresql://me:hunter2@nowhere.invalid/db"
    (tmp_path / "url").write_text(url + "\n")
    assert read_study_url(f"@{tmp_path}/url") == url
    assert command("tune", "--dry-run", "--study-url", f"@{tmp_path}/url").status == 0
    refused(command("tune", "--dry-run", "--study-url", f"@{tmp_path}/none"), "@", "none: cannot be read")
    (tmp_path / "url").write_text("two words")
    refused(command("tune", "--dry-run", "--study-url", f"@{tmp_path}/url"), "holds 2 words")
    monkeypatch.setenv("SCALE_RAY_STUDY_URL", f"@{tmp_path}/url")
    refused(command("tune", "--dry-run"), "holds 2 words")
