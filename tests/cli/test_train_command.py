"""`scale-ray train`: the record that it writes, the order of its options, Ctrl-C."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TINY, Outcome, command

from scale_ray.identity import identity
from scale_ray.store import Store
from scale_ray.training import pace


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
    assert store.has_beside(record.id, ["model"])
    lines = outcome.out.splitlines()
    assert lines[-1] == f"record: {store.record_location(record.id)}"
    assert lines[-2].startswith("Art>Real World ce+ssl lenet seed 0: target ")
    assert f"target {record.result.target_accuracy:.2f} %" in lines[-2]


def test_what_was_done_before_is_not_said_to_have_taken_time_now(trained: tuple[Outcome, Path], images: Path) -> None:
    outcome = command("train", *TINY, "--root", images, "--store", trained[1], "--keep-model")
    assert outcome.status == 0
    done, record = outcome.out.splitlines()
    assert done.endswith("4 steps: done before, nothing is trained again")
    assert done.startswith("Art>Real World ce+ssl lenet seed 0: target ")
    assert record == trained[0].out.splitlines()[-1]
    assert trained[0].out.splitlines()[-2].endswith(" s")


def test_without_a_terminal_some_lines_say_the_time_left(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_FIRST_SECONDS", 0.0)
    outcome = command("train", *TINY, "--root", images, "--set", "evaluate_every=4")
    lines = outcome.out.splitlines()
    assert lines[1].startswith("step 2 of 4: ")
    assert re.fullmatch(r"step 2 of 4: [\d.e+-]+ s a step, about \d+ (s|min) left", lines[1])
    assert len(lines) == 4  # that nothing is kept, the time left, the point, the outcome


def test_no_line_is_broken_where_there_is_no_terminal(trained: tuple[Outcome, Path]) -> None:
    lines = [line for line in trained[0].out.splitlines() if " a step, about " not in line]  # of a slow machine
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
    assert "stopping: the same command goes on from the last checkpoint (Ctrl-C again ends it at once)\n" in err
    assert "Traceback" not in out + err
    assert list(Store(tmp_path).records()) == []
    assert list((tmp_path / "checkpoints").glob("*.pt"))


def test_train_takes_a_baseline_without_losses(images: Path, tmp_path: Path) -> None:
    arguments = [text for text in TINY if text not in ("--losses", "ce+ssl")]
    outcome = command("train", *arguments, "--root", images, "--method", "dann", "--store", tmp_path)
    assert outcome.status == 0, outcome.err
    (record,) = Store(tmp_path).records()
    assert (record.config.method, record.config.combination) == ("dann", "ce")
    assert record.result is not None
    assert record.result.curve[-1].losses.keys() == {"ce", "domain"}


@pytest.mark.parametrize("option", ["--keep-model", "--keep-predictions"])
def test_what_is_kept_beside_a_record_needs_a_store(option: str) -> None:
    outcome = command("train", option)
    assert outcome.status == 2
    assert f"{option} needs a store to write into: add --store FOLDER" in outcome.err
