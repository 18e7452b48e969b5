"""The command as people use it: what it prints, what it leaves, and how it says no."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from s3_server import S3Server

from scale_ray import Study, __version__, base_config, cli, combinations, main, pairs
from scale_ray.cell import Cell
from scale_ray.data.manifest import read_about
from scale_ray.identity import identity
from scale_ray.models import build_encoder
from scale_ray.records import Failure, Provenance, Record
from scale_ray.store import Store, StudyPlan

# A trial of a second on the images of `root`.
TINY = [
    *("--benchmark", "image_folder", "--source", "Art", "--target", "Real World", "--device", "cpu"),
    *("--backbone", "lenet", "--weights", "none", "--steps", "4", "--losses", "ce+ssl"),
    *("--set", "data.image_size=32", "--set", "data.resize=32", "--set", "optim.batch_size=4"),
    *("--set", "evaluate_every=2", "--set", "model.hidden_dim=16", "--set", "model.projection_dim=8"),
]


class Outcome(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def command(*arguments: str | Path, program: Callable[[], None] = cli.main) -> Outcome:
    """Run scale-ray in this process, as the installed script does."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["scale-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            program()
    return Outcome(int(exit_.value.code or 0), out.getvalue(), err.getvalue())


def subprocess_command(*arguments: str | Path, **environment: str) -> Outcome:
    """Run scale-ray in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "scale_ray.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def write_images(root: Path) -> Path:
    """Two domains, one with a space in its name, two classes, eight JPEGs of noise each."""
    numbers = np.random.default_rng(0)
    for domain in ("Art", "Real World"):
        for name in ("cat", "dog"):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for index in range(8):
                Image.fromarray(numbers.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{index}.jpg")
    return root


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """Images that a test may spoil."""
    return write_images(tmp_path / "images")


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """`scale-ray train` into a store, and that store."""
    store = tmp_path_factory.mktemp("store")
    return command("train", *TINY, "--root", images, "--store", store, "--keep-model"), store


# train


def test_train_leaves_a_record_and_says_where(trained: tuple[Outcome, Path]) -> None:
    outcome, folder = trained
    assert outcome.status == 0
    store = Store(folder)
    (record,) = store.records()
    assert record.status == "done"
    assert record.result is not None
    assert [point.step for point in record.result.curve] == [2, 4]
    assert (record.config.pair, record.config.combination, record.config.method) == (
        "Art>Real World",
        "ce+ssl",
        "scale",
    )
    assert store.has_model(record.id)
    lines = outcome.out.splitlines()
    assert lines[-1] == f"record: {store.record_location(record.id)}"
    assert lines[-2].startswith("Art>Real World ce+ssl lenet seed 0: target ")
    assert f"target {record.result.target_accuracy:.2f} %" in lines[-2]


def test_no_line_is_broken_where_there_is_no_terminal(trained: tuple[Outcome, Path]) -> None:
    lines = trained[0].out.splitlines()
    assert len(lines) == 4  # two points, the outcome, the record
    assert [line.partition(":")[0] for line in lines[:2]] == ["step 2", "step 4"]
    assert all(line.endswith(tuple("0123456789")) and " losses ce " in line for line in lines[:2])
    assert max(map(len, lines)) > 80


def test_identity_sees_no_place_and_no_execution(trained: tuple[Outcome, Path], images: Path, tmp_path: Path) -> None:
    (record,) = Store(trained[1]).records()
    elsewhere = shutil.copytree(images, tmp_path / "other" / "place")
    more = ("--root", elsewhere, "--store", tmp_path / "runs", "--threads", "2", "--checkpoint-every", "1")
    assert command("train", *TINY, *more).status == 0
    (other,) = Store(tmp_path / "runs").records()
    assert other.id == record.id == identity(record.config, record.inputs)
    assert other.provenance.threads == 2


def test_config_file_options_and_set_go_over_each_other_in_that_order(images: Path, tmp_path: Path) -> None:
    fields = {
        "data": {"benchmark": "image_folder", "source": "Art", "target": "Real World", "image_size": 32, "resize": 32},
        "model": {"backbone": "lenet", "weights": "none", "hidden_dim": 16},
        "losses": {"terms": {"ce": 1, "ssl": 0.5}},
        "optim.batch_size": 4,
        "optim": {"steps": 40, "warmup_steps": 10},
        "seed": 1,
        "evaluate_every": 4,
    }
    file = tmp_path / "trial.json"
    file.write_text(json.dumps(fields))
    options = ("--config", file, "--root", images, "--store", tmp_path / "runs", "--device", "cpu", "--steps", "4")
    assert command("train", *options, "--set", "model.hidden_dim=8", "--set", "seed=2").status == 0
    (record,) = Store(tmp_path / "runs").records()
    config = record.config
    assert (config.pair, config.combination, config.method) == ("Art>Real World", "ce+0.5*ssl", "scale")
    assert (config.optim.steps, config.optim.warmup_steps, config.optim.batch_size) == (4, 1, 4)
    assert (config.seed, config.model.hidden_dim) == (2, 8)


@pytest.mark.parametrize("given", [("--losses", "ce"), ("--method", "source_only"), ("--losses", "ce", "--seed", "0")])
def test_ce_and_source_only_are_one(given: tuple[str, ...], images: Path, tmp_path: Path) -> None:
    rest = TINY[: TINY.index("--losses")] + TINY[TINY.index("--losses") + 2 :]
    assert command("train", *rest, *given, "--root", images, "--store", tmp_path).status == 0
    (record,) = Store(tmp_path).records()
    assert (record.config.method, record.config.combination) == ("source_only", "ce")


def test_an_interrupted_training_ends_with_130_and_goes_on(images: Path, tmp_path: Path) -> None:
    arguments = [*TINY, "--set", "optim.steps=100000", "--set", "evaluate_every=5", "--checkpoint-every", "5"]
    arguments += ["--root", str(images), "--store", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "scale_ray.cli", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # What a shell starts in the background ignores Ctrl-C, and so would what these tests start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 10:"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate()
    assert process.returncode == 130
    assert out.splitlines()[-1] == "interrupted: the same command goes on from the last checkpoint"
    assert "Traceback" not in err
    assert list(Store(tmp_path).records()) == []
    assert list((tmp_path / "checkpoints").glob("*.pt"))


# Ten wrong inputs, each a line that names thing, place and remedy


def refused(outcome: Outcome, *words: str | Path) -> None:
    assert outcome.status == 2
    assert len(outcome.errors) == 1
    assert "Traceback" not in outcome.err + outcome.out
    for word in words:
        assert str(word) in outcome.errors[0]


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
    refused(outcome, "Art lacks dog", "Real World lacks wolf", "rename, add or remove those folders")


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


# ablate


def ablate(images: Path, store: Path, *more: str) -> Outcome:
    settings = [
        argument for argument in TINY if argument.partition("=")[0].partition(".")[0] in ("data", "optim", "model")
    ]
    options = [text for setting in settings for text in ("--set", setting)]
    grid = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbones", "lenet"]
    return command("ablate", *grid, "--steps", "50", *options, "--store", store, *more)


def test_dry_run_shows_cells_and_runs_none(images: Path, tmp_path: Path) -> None:
    more = ("--pairs", "Art:Real World, Real World > Art", "--losses", "ce,ce+ssl", "--seeds", "7,8")
    outcome = ablate(images, tmp_path, *more, "--dry-run", "--limit", "5")
    assert outcome.status == 0
    lines = [line[14:] for line in outcome.out.splitlines()]
    assert [re.sub("  +", " | ", line) for line in lines[:8]] == [
        "Art>Real World ce lenet seed 7 | to do",
        "Art>Real World ce+ssl lenet seed 7 | to do",
        "Real World>Art ce lenet seed 7 | to do",
        "Real World>Art ce+ssl lenet seed 7 | to do",
        "Art>Real World ce lenet seed 8 | to do",
        "Art>Real World ce+ssl lenet seed 8 | not in this run",
        "Real World>Art ce lenet seed 8 | not in this run",
        "Real World>Art ce+ssl lenet seed 8 | not in this run",
    ]
    assert outcome.out.splitlines()[8:10] == [
        "5 stages to train:",
        "  Art>Real World ce lenet seed 7: steps 0 to 50",
    ]
    assert outcome.out.splitlines()[-1] == (
        "ablation-image_folder: 8 cells, 0 done, 5 to do (0 failed before), 250 steps; "
        "time is known once cells have finished"
    )
    assert list(Store(tmp_path).records()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pairs", "Art"], ["--pairs: 'Art' is no domain pair", "write source:target"]),
        (["--pairs", "Art: "], ["--pairs: 'Art:' is no domain pair"]),
        (["--pairs", "Art:Art"], ["source and target are both 'Art'"]),
        (["--pairs", "Art:Real World,Art>Real World"], ["plans one cell twice (Art>Real World ce lenet seed 0)"]),
        (["--pairs", "Art:Moon"], ["no folder for domain 'Moon'", "it holds: Art, Real World"]),
        (["--seeds", ""], ["--seeds ''", "write how many (3)"]),
        (["--seeds", "one"], ["--seeds 'one'", "write how many (3)"]),
        (["--seeds", "0"], ["--seeds 0: write 1 or more"]),
        (["--name", "my study"], ["study 'my study': the name is a file's: write only letters"]),
        (["--set", "seed=3"], ["--set seed: the grid decides it", "--seeds"]),
        (["--set", "losses.terms=ce"], ["--set losses.terms: the grid decides it", "--losses"]),
        (["--set", "model.backbone=lenet"], ["--set model.backbone: the grid decides it", "--backbones"]),
    ],
)
def test_grids_that_cannot_be_are_refused(images: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    usual = ["--pairs", "Art:Real World", "--losses", "ce", "--seeds", "1", "--dry-run"]
    refused(ablate(images, tmp_path, *usual, *arguments), *words)


def test_a_frozen_encoder_goes_with_steps(images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "lenet.pth"
    torch.save(build_encoder("lenet", "none").state_dict(), weights)
    grid = ("--pairs", "mnist:mnistm", "--losses", "ce", "--seeds", "1", "--steps", "200")
    outcome = command("ablate", "--frozen", "--weights", weights, *grid, "--store", tmp_path / "s", "--dry-run")
    assert outcome.status == 0, outcome.err
    assert "200 steps" in outcome.out
    refused(command("ablate", "--frozen", *grid, "--store", tmp_path / "s", "--dry-run"), "weights", "frozen")


def test_two_spellings_of_a_domain_are_one() -> None:
    outcome = command("ablate", "--benchmark", "office_home", "--pairs", "Art:Real World,Art:real", "--dry-run")
    refused(outcome, "plans one cell twice (Art>Real_World ce resnet50 seed 0)")


# A study of one's own


def own_study() -> Study:
    """batch_norm x threshold x loss combinations, without thresholds where nothing reads them."""
    base = base_config("image_folder", {"model.backbone": "lenet", "model.weights": "none"}, steps=50)
    axes = {
        "seed": [0, 1],
        "pair": pairs("Art:Real World"),
        "losses": combinations("ce", "ce+ssl"),
        "model.batch_norm": ["joint", "domain"],
        "losses.threshold": [0.7, 0.8],
    }
    return Study("mine", base, axes)


def script(study: Study, images: Path, store: Path, *arguments: str, **defaults: object) -> Outcome:
    given = {"root": str(images), "storage": str(store)} | defaults
    return command("--dry-run", *arguments, program=lambda: main(study, **given))


def ids_of(outcome: Outcome) -> list[str]:
    assert outcome.status == 0, outcome.err
    return [line.partition("  ")[0] for line in outcome.out.splitlines() if line.endswith("to do")]


def test_a_study_of_ones_own_has_the_command_line(images: Path, tmp_path: Path) -> None:
    everything = script(own_study(), images, tmp_path)
    assert "mine: 16 cells, 0 done, 16 to do" in everything.out
    narrowed = script(own_study(), images, tmp_path, "--seeds", "1", "--losses", "ce+ssl", "--name", "less")
    assert "less: 4 cells, 0 done, 4 to do" in narrowed.out
    assert set(ids_of(narrowed)) < set(ids_of(everything))


def test_the_same_study_by_axis_options(images: Path, tmp_path: Path) -> None:
    grid = ["--pairs", "Art:Real World", "--losses", "ce,ce+ssl", "--seeds", "2", "--dry-run"]
    trial = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbones", "lenet"]
    axes = ["--axis", "model.batch_norm=joint,domain", "--axis", "losses.threshold=0.7,0.8"]
    outcome = command("ablate", *grid, *trial, *axes, "--steps", "50", "--store", str(tmp_path))
    assert sorted(ids_of(outcome)) == sorted(ids_of(script(own_study(), images, tmp_path)))


def test_a_filtered_study_of_ones_own(images: Path, tmp_path: Path) -> None:
    filtered = own_study().where(lambda config: config.combination != "ce" or config.losses.threshold == 0.8)
    assert "mine: 12 cells" in script(filtered, images, tmp_path).out
    assert "mine: 6 cells" in script(filtered, images, tmp_path, "--seeds", "7,").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--axis", "losses.threshold"], ["--axis 'losses.threshold': write PATH=VALUE,VALUE"]),
        (["--axis", "losses.thresold=1,2"], ["axis 'losses.thresold'", "did you mean 'losses.threshold'"]),
        (["--axis", "optim.momentum=0.9,2"], ["optim.momentum: Input should be less than 1"]),
        (["--axis", "optim.momentum=0.9", "--axis", "optim.momentum=0.8"], ["--axis optim.momentum: given twice"]),
        (["--axis", "seed=1,2", "--set", "seed=3"], ["--set seed: the grid decides it: use --seeds"]),
        (["--set", "losses.threshold=0.9"], ["--set losses.threshold: the grid decides it: use --axis losses.thres"]),
        (["--losses", "ce", "--methods", "dann"], ["--losses, --methods: both set the method"]),
    ],
)
def test_axes_that_cannot_be_are_refused(images: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refused(script(own_study(), images, tmp_path, *arguments), *words)


def test_another_benchmark_brings_its_own_pairs_and_backbones(tmp_path: Path) -> None:
    base = base_config("office_home")
    axes = {"pair": pairs("Art:Clipart"), "model.backbone": ["resnet50"], "losses": combinations("ce+ssl")}
    study = Study("grid-office_home", base, axes)
    outcome = command("--dry-run", "--benchmark", "digits", program=lambda: main(study, storage=str(tmp_path)))
    assert outcome.status == 0, outcome.err
    assert "grid-digits: 4 cells" in outcome.out
    assert "mnist>mnistm ce+ssl lenet seed 0" in outcome.out


def test_a_default_for_an_option_that_is_not_there_is_refused() -> None:
    with pytest.raises(TypeError, match="benchmrk"):
        main(own_study(), benchmrk="digits")


# compare


def compare(images: Path, store: Path, *more: str) -> Outcome:
    settings = [
        argument for argument in TINY if argument.partition("=")[0].partition(".")[0] in ("data", "optim", "model")
    ]
    options = [text for setting in settings for text in ("--set", setting)]
    grid = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbone", "lenet"]
    usual = ["--pairs", "Art:Real World", "--seeds", "1", "--dry-run"]
    return command("compare", *grid, *usual, "--steps", "50", *options, "--store", store, *more)


def test_a_comparison_plans_every_method_and_says_whose_it_is(images: Path, tmp_path: Path) -> None:
    outcome = compare(images, tmp_path, "--methods", "source_only, dann, scale:ce+ssl, scale, mcc@mobilenet_v2=none")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    cells = [re.sub("  +", " | ", line[14:]) for line in lines if line.endswith("to do")]
    assert cells == [
        "Art>Real World ce lenet seed 0 | to do",
        "Art>Real World dann lenet seed 0 | to do",
        "Art>Real World ce+ssl lenet seed 0 | to do",
        "Art>Real World ce+ssl+dist+reg lenet seed 0 | to do",
        "Art>Real World mcc mobilenet_v2 seed 0 | to do",
    ]
    assert "dann: 2.0 x the passes of source_only" in lines
    assert "scale ce+ssl: 2.3 x the passes of source_only" in lines
    assert any("https://arxiv.org/abs/1505.07818" in line for line in lines)


def test_variants_of_a_method_stand_beside_it(images: Path, tmp_path: Path) -> None:
    methods = (
        "cdan, cdan / baseline.entropy_conditioning=true, scale, scale/losses.contrast=bank, "
        "scale:ce+dist/losses.contrast=proto@mobilenet_v2=none"
    )
    outcome = compare(images, tmp_path, "--methods", methods)
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    cells = [re.sub("  +", " | ", line[14:]) for line in lines if line.endswith("to do")]
    assert cells == [
        "Art>Real World cdan lenet seed 0 | to do",
        "Art>Real World cdan+E lenet seed 0 | to do",
        "Art>Real World ce+ssl+dist+reg lenet seed 0 | to do",
        "Art>Real World ce+ssl+dist+reg (scale bank) lenet seed 0 | to do",
        "Art>Real World ce+dist (scale proto) mobilenet_v2 seed 0 | to do",
    ]
    assert "cdan+E: 2.0 x the passes of source_only" in lines
    assert "scale bank ce+ssl+dist+reg: 2.7 x the passes of source_only" in lines


def test_all_methods_that_need_no_extra_are_compared_by_default(images: Path, tmp_path: Path) -> None:
    outcome = compare(images, tmp_path)
    assert "comparison-image_folder: 8 cells, 0 done, 8 to do" in outcome.out


def test_a_setting_of_the_baselines_goes_to_those_that_read_it(images: Path, tmp_path: Path) -> None:
    """So that the other methods' cells stay what they were."""

    def ids(*more: str) -> list[str]:
        outcome = compare(images, tmp_path, "--methods", "source_only,mcc,dann,scale", *more)
        return [line.partition(" ")[0] for line in outcome.out.splitlines() if line.endswith("to do")]

    usual, softer = ids(), ids("--set", "baseline.mcc_temperature=2")
    assert [one == other for one, other in zip(usual, softer, strict=True)] == [True, False, True, True]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "source_only,dan2"], ["unknown method 'dan2'", "did you mean 'dan'"]),
        (["--methods", "dann:ce+ssl"], ["method 'dann' trains with ce alone"]),
        (["--methods", "dann@lenett"], ["unknown model.backbone 'lenett'"]),
        (["--methods", "dann@lenet=weights.pth"], ["no file 'weights.pth'"]),
        (
            ["--methods", "scale/losses.contrast"],
            ["--methods: method 'scale/losses.contrast'", "sets nothing: write FIELD=VALUE"],
        ),
        (["--methods", "scale/losses.contrst=bank"], ["unknown field 'losses.contrst'", "'losses.contrast'"]),
        (["--methods", "scale/losses.contrast=banks"], ["losses.contrast: Input should be", "'banks'"]),
        (
            ["--methods", "scale/losses.threshold=0.9"],
            ["losses.threshold is no variant of a method", "losses.contrast", "with --set"],
        ),
        (
            ["--methods", "dann/baseline.entropy_conditioning=true"],
            ["baseline.entropy_conditioning is True, which method 'dann' does not read (cdan do)"],
        ),
        (
            ["--methods", "scale:ce+ssl/losses.contrast=bank"],
            ["losses.contrast is a setting of loss term 'dist', and ce+ssl is trained"],
        ),
        (["--methods", "scale,scale/losses.contrast=dist"], ["plans one cell twice"]),
        (["--methods", "dann,dann"], ["plans one cell twice (Art>Real World dann lenet seed 0)"]),
        (["--methods", ""], ["axis 'method' has no values"]),
        (["--set", "method=dann"], ["--set method: the grid decides it", "--methods"]),
        (["--set", "seed=1"], ["--set seed: the grid decides it", "--seeds"]),
    ],
)
def test_comparisons_that_cannot_be_are_refused(
    images: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    refused(compare(images, tmp_path, *arguments), *words)


def test_train_takes_a_baseline_without_losses(images: Path, tmp_path: Path) -> None:
    arguments = [text for text in TINY if text not in ("--losses", "ce+ssl")]
    outcome = command("train", *arguments, "--root", images, "--method", "dann", "--store", tmp_path)
    assert outcome.status == 0, outcome.err
    (record,) = Store(tmp_path).records()
    assert (record.config.method, record.config.combination) == ("dann", "ce")
    assert record.result is not None
    assert record.result.curve[-1].losses.keys() == {"ce", "domain"}


# tune


def tune(images: Path, *more: str | Path) -> Outcome:
    known = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbone", "lenet"]
    return command("tune", *known, "--pairs", "Art:Real World", "--steps", "50", *more)


def test_dry_run_of_a_search_says_what_it_would_take(images: Path, tmp_path: Path) -> None:
    outcome = tune(images, "--trials", "8", "--seeds", "2", "--dry-run", "--store", tmp_path / "store")
    assert outcome.status == 0
    first, second = outcome.out.splitlines()
    assert first == (
        "tuning-image_folder: 8 settings x 2 repeats (Art>Real World seed 0, Art>Real World seed 1), "
        "at most 16 trainings of 50 steps, warm-ups shared where they are the same"
    )
    assert (
        "losses.threshold 0.5 to 0.95 by 0.05, losses.temperature 0.03 to 1 (log); chosen by im; sampler tpe" in second
    )
    assert not (tmp_path / "store").exists()


def test_many_fields_at_once_warn(images: Path) -> None:
    fields = ["losses.threshold", "losses.temperature", "optim.momentum", "data.gamma", "optim.weight_decay"]
    space = [text for field in fields for text in ("--space", f"{field}=float:0.1:0.5")]
    assert "warning" not in tune(images, *space, "--dry-run").out
    more = tune(images, *space, "--space", "optim.learning_rate=float:0.001:0.1:log", "--dry-run")
    assert "warning: 6 fields are tuned at once" in more.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "seed=3"], ["--set seed: the grid decides it", "--seeds"]),
        (["--set", "data.target=Art"], ["--set data.target: the grid decides it", "--pairs"]),
        (["--validator", "ims"], ["unknown validator 'ims'", "did you mean 'im'"]),
        (["--sampler", "tpo"], ["unknown sampler 'tpo'"]),
        (["--early-stop", "asah"], ["unknown early stop 'asah'"]),
        (["--early-stop", "asha"], ["no point of the curve", "lower evaluate_every"]),
        (["--space", "losses.threshold=float:0.5"], ["--space", "float:LOW:HIGH"]),
        (["--name", "my search"], ["study 'my search': the name is a file's"]),
        (["--seeds", "0"], ["--seeds 0: write 1 or more"]),
        (["--seeds", "1,1"], ["plans one cell twice", "give each once"]),
        (["--space", "losses.threshold=0.7|0.8", "--trials", "3"], ["the space has 2 settings"]),
    ],
)
def test_searches_that_cannot_be_are_refused(images: Path, arguments: list[str], words: list[str]) -> None:
    refused(tune(images, "--dry-run", *arguments), *words)


def test_what_a_search_chose_is_a_config_for_ablate(images: Path, tmp_path: Path) -> None:
    file, budget = tmp_path / "chosen.json", {"study": "s", "validator": "im", "sampler": "tpe", "settings": 3}
    budget |= {"fields": ["losses.threshold"], "steps": 9, "losses": "ce", "pairs": ["a>b"], "seeds": [0]}
    file.write_text(json.dumps({"data.benchmark": "image_folder", "losses.threshold": 0.7, "tuning": budget}))
    pair = ("--pairs", "Art:Real World", "--dry-run")
    taken = ablate(images, tmp_path / "store", *pair, "--config", str(file))
    assert taken.status == 0
    cells = {line.split()[0] for line in taken.out.splitlines() if line.endswith("to do")}
    untuned = ablate(images, tmp_path / "store", *pair, "--set", "losses.threshold=0.7")
    assert cells.isdisjoint(line.split()[0] for line in untuned.out.splitlines() if line.endswith("to do"))


# report, status


def test_report_writes_tables_and_says_where(trained: tuple[Outcome, Path], tmp_path: Path) -> None:
    outcome = command("report", trained[1], "--out", tmp_path / "report")
    assert outcome.status == 0
    assert outcome.out.splitlines()[-1] == f"report: {tmp_path}/report/report.html"
    assert (tmp_path / "report" / "report.html").is_file()
    assert "ce+ssl" in outcome.out
    assert "Art>Real World" in outcome.out
    assert len((tmp_path / "report" / "records.csv").read_text().splitlines()) == 2


def test_report_of_two_axes_and_of_a_mixed_store(trained: tuple[Outcome, Path], tmp_path: Path) -> None:
    store = Store(shutil.copytree(trained[1], tmp_path / "store"))
    (done,) = store.records()
    config = done.config.replace({"seed": 1, "losses.threshold": 0.5})
    origin = done.provenance.model_copy(update={"git_commit": "fedcba", "git_dirty": False})
    changes = {"id": identity(config, done.inputs), "config": config, "provenance": origin}
    store.write_record(done.model_copy(update=changes))
    outcome = command("report", store.location)
    assert outcome.status == 2
    assert "records of several versions of the code" in outcome.errors[0]
    assert "--allow code" in outcome.errors[-1]
    outcome = command("report", store.location, "--allow", "code", "--rows", "losses.threshold", "--columns", "seed")
    assert outcome.status == 0
    assert "0.5" in outcome.out
    assert (tmp_path / "store" / "report" / "losses.threshold_by_seed.tex").is_file()
    refused(command("report", store.location, "--allow", "code", "--rows", "seed"), "name the two")


@pytest.mark.parametrize("name", ["report", "status"])
def test_a_missing_store_is_refused(name: str, tmp_path: Path) -> None:
    refused(command(name, tmp_path / "nowhere"), f"store {tmp_path}/nowhere: no such folder", "check the path")


def test_status_counts_done_failed_and_unfinished(trained: tuple[Outcome, Path], tmp_path: Path) -> None:
    store = Store(shutil.copytree(trained[1], tmp_path / "store"))
    (done,) = store.records()
    cells = [Cell(id=done.id, config=done.config)]
    for seed in (1, 2, 3):
        config = done.config.replace({"seed": seed})
        cells.append(Cell(id=identity(config, done.inputs), config=config))
    origin = Provenance.model_validate(done.provenance.model_dump())
    failure = Failure(kind="RuntimeError", message="no", traceback="")
    store.write_record(
        Record(
            id=cells[1].id,
            status="failed",
            config=cells[1].config,
            inputs=done.inputs,
            failure=failure,
            provenance=origin,
        )
    )
    store.write_checkpoint(cells[2].id, b"")
    name = "a-study-with-a-name-" + "x" * 80
    store.write_plan(StudyPlan(name=name, created="2026-03-01T00:00:00+00:00", cells=cells))
    outcome = command("status", store.location)
    assert outcome.status == 0
    assert outcome.out.splitlines()[1].split() == [name, "4", "1", "1", "2", "1"]


def test_status_of_a_store_without_studies(trained: tuple[Outcome, Path]) -> None:
    assert command("status", trained[1]).out == f"{trained[1]}: no study, 1 records\n"


def test_report_and_status_of_a_remote_store(
    trained: tuple[Outcome, Path], s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    local, remote = Store(trained[1]), Store(s3.new_url(), create=True)
    (record,) = local.records()
    remote.write_record(record)
    remote.write_plan(StudyPlan(name="s", created="2026-03-01T00:00:00+00:00", cells=[]))
    outcome = command("report", remote.location, "--figures", "0")
    assert outcome.out.splitlines()[-1] == f"report: {tmp_path}/report/report.html"
    assert command("report", remote.location, "--out", "elsewhere", "--figures", "0").status == 0
    local_report = command("report", local.location, "--out", "of_local", "--figures", "0")
    assert outcome.out.splitlines()[:-1] == local_report.out.splitlines()[:-1]
    for name in ("records.csv", "losses_by_backbone.md"):
        texts = {(tmp_path / folder / name).read_text() for folder in ("report", "elsewhere", "of_local")}
        assert len(texts) == 1
    assert command("status", remote.location).out.splitlines()[1].split() == ["s", "0", "0", "0", "0", "0"]
    refused(command("status", "s3://bucket/nothing"), "store s3://bucket/nothing: no such prefix", "check the path")


# data


def test_data_check_of_a_clean_folder(images: Path) -> None:
    outcome = command("data", "check", "image_folder", "--root", images)
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        "image_folder: 32 images (Art 16, Real World 16)",
        "0 problems, 0 of them stop training",
    ]


def test_data_check_lists_all_problems(own_images: Path) -> None:
    broken = [truncate(own_images / "Art" / "cat" / "3.jpg"), truncate(own_images / "Real World" / "dog" / "7.jpg")]
    (own_images / "Art" / "dog" / "notes.txt").write_text("")
    outcome = command("data", "check", "image_folder", "--root", own_images)
    assert outcome.status == 1
    lines = outcome.out.splitlines()
    assert [line.startswith(f"unreadable: {path}: ") for line, path in zip(lines, broken, strict=False)] == [True, True]
    assert lines[2].startswith(f"ignored: {own_images}/Art/dog/notes.txt")
    assert lines[3:] == [
        "image_folder: 32 images (Art 16, Real World 16)",
        "3 problems, 2 of them stop training",
    ]


def test_data_check_of_a_folder_without_domains(tmp_path: Path) -> None:
    outcome = command("data", "check", "image_folder", "--root", tmp_path)
    assert outcome.status == 1
    assert outcome.out.startswith(f"missing: {tmp_path}: no domain folders in it")


def test_data_prepare_says_where_and_how_much(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path))
    outcome = command("data", "prepare", "image_folder", "--root", images, "--resize", "100")
    assert outcome.status == 0
    # 16 x 3 x 100 x 100 bytes a domain
    assert outcome.out.splitlines() == [
        "Art: 16 images of 100 x 100 px, 0.5 MiB",
        "Real World: 16 images of 100 x 100 px, 0.5 MiB",
        f"image_folder: 2 domains, 0.9 MiB, in {tmp_path}",
    ]
    assert "decoding Art to 100 px: 16" in outcome.err
    again = command("data", "prepare", "image_folder", "--root", images, "--resize", "100")
    assert again.out == outcome.out
    assert "decoding" not in again.err


def test_data_prepare_stops_at_an_unreadable_image(own_images: Path) -> None:
    path = truncate(own_images / "Art" / "cat" / "3.jpg")
    refused(command("data", "prepare", "image_folder", "--root", own_images), f"{path}: unreadable image")


@pytest.mark.parametrize("name", ["check", "prepare"])
def test_data_of_no_benchmark_or_no_root_is_refused(name: str) -> None:
    refused(command("data", name, "pcas"), "unknown benchmark 'pcas'", "did you mean 'pacs'?")
    refused(command("data", name, "pacs"), "pacs: where are the images?", "--root FOLDER")


def test_data_list_names_every_benchmark() -> None:
    outcome = command("data", "list")
    assert outcome.status == 0
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == [
        "digits",
        "office_home",
        "pacs",
        "image_folder",
    ]


@pytest.fixture
def filled_cache(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two decoded domains of 16 x 3 x 100 x 100 bytes, and what someone else keeps in that folder."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("SCALE_RAY_CACHE", str(cache))
    command("data", "prepare", "image_folder", "--root", images, "--resize", "100")
    (cache / "mine").mkdir()
    (cache / "mine" / "thesis.tex").write_text("all of it")
    return cache


def test_data_cache_shows_what_lies_there(filled_cache: Path) -> None:
    (filled_cache / "decoded" / ".abc.unfinished").mkdir()
    outcome = command("data", "cache")
    assert outcome.status == 0
    head, *rows, total = outcome.out.splitlines()
    assert re.split("  +", head.strip()) == ["kind", "holds", "size", "last used"]
    parts = [re.split("  +", row.strip()) for row in rows]
    assert sorted(part[:3] for part in parts) == [
        ["decoded images", "image_folder Art, 100 px", "0.5 MiB"],
        ["decoded images", "image_folder Real World, 100 px", "0.5 MiB"],
        ["file digests", "of 2 folders", "0.0 MiB"],
        ["unfinished", "decoded images", "0.0 MiB"],
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", part[3]) for part in parts)
    assert total.endswith(f" MiB in {filled_cache}")


def test_data_cache_says_when_it_was_last_used(filled_cache: Path, images: Path) -> None:
    for path in (filled_cache / "decoded").iterdir():
        os.utime(path, (1e9, 1e9))  # 2001
    assert command("data", "cache").out.count(" 2001-09-") == 2
    command("data", "prepare", "image_folder", "--root", images, "--resize", "100")
    assert " 2001-09-" not in command("data", "cache").out


def test_data_clear_deletes_what_is_ours_and_idle(filled_cache: Path) -> None:
    kept, old = (filled_cache / "decoded" / f".abc.{name}" for name in ("new", "old"))
    kept.mkdir()
    old.mkdir()
    os.utime(old, (1e9, 1e9))
    (images,) = (path for path in filled_cache.glob("decoded/*/images.npy") if "Art" in read_about(path.parent))
    mapped = np.load(images, mmap_mode="r")
    before = mapped.sum()
    outcome = command("data", "clear", "--yes")
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        f"deleted 0.9 MiB in {filled_cache}",
        "left: 1 that a running process may be making",
    ]
    assert mapped.sum() == before  # a trial that runs reads on
    assert [path.name for path in (filled_cache / "decoded").iterdir()] == [kept.name]
    assert list((filled_cache / "file_digests").iterdir()) == []
    assert (filled_cache / "mine" / "thesis.tex").read_text() == "all of it"


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_data_clear_asks_first(filled_cache: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(answer))
    outcome = command("data", "clear")
    assert outcome.status == status
    assert f"delete 0.9 MiB in {filled_cache}?" in outcome.out
    assert (len(list((filled_cache / "decoded").iterdir())) == 0) == (status == 0)


def test_data_cache_and_clear_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "none"))
    assert command("data", "cache") == (0, f"0.0 MiB in {tmp_path}/none\n", "")
    assert command("data", "clear") == (0, f"deleted 0.0 MiB in {tmp_path}/none\n", "")
    assert not (tmp_path / "none").exists()


# The command itself


def test_version() -> None:
    assert command("--version") == (0, f"scale-ray {__version__}\n", "")


@pytest.mark.parametrize("name", ["train", "ablate", "compare", "tune"])
def test_help_names_every_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    outcome = command(name, "--help")
    assert outcome.status == 0
    options = {line.split()[1] for line in outcome.out.splitlines() if line.startswith("│ --")}
    assert options >= {"--help", "--set", "--root", "--keep-model"}
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert len(options) == len(commands[name].params) + 1


def test_brackets_and_colons_in_a_path_are_printed_as_they_are(tmp_path: Path) -> None:
    store = tmp_path / "[red]:smile:[/red]"
    Store(store, create=True)
    assert command("status", store).out == f"{store}: no study, 0 records\n"


@pytest.mark.parametrize("raised", [RuntimeError, ValueError, KeyError])
def test_a_fault_of_the_program_keeps_its_traceback_and_says_so(
    raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise raised("not a user's")

    monkeypatch.setattr(Store, "plans", broken)
    monkeypatch.setattr(sys, "argv", ["scale-ray", "status", "/"])
    with pytest.raises(raised, match="not a user's") as error:
        cli.main()
    (note,) = error.value.__notes__
    assert note.startswith(f"This is a fault of scale-ray {__version__}, not of your input. Please report")


def test_a_fault_of_the_program_ends_a_process_with_status_1() -> None:
    code = "from scale_ray.store import Store; Store.plans = None; import sys; from scale_ray import cli; "
    code += "sys.argv = ['scale-ray', 'status', '/']; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "TypeError: 'NoneType' object is not callable\nThis is a fault of scale-ray" in done.stderr


def test_a_config_file_cannot_set_what_the_grid_decides(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "seeds.json"
    file.write_text('{"seed": 7, "losses": {"threshold": 0.9}}')
    outcome = ablate(images, tmp_path / "store", "--pairs", "Art:Real World", "--config", str(file), "--dry-run")
    assert outcome.status == 2
    assert "seeds.json seed: the grid decides it: use --seeds" in outcome.err


def test_keep_model_needs_a_store() -> None:
    outcome = command("train", "--keep-model")
    assert outcome.status == 2
    assert "--keep-model needs a store to keep the model in: add --store FOLDER" in outcome.err
