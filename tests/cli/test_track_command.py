"""`scale-ray track` and `--track` of the commands that train."""

import json
import shutil
from pathlib import Path

import pytest
from commands import TINY, Outcome, ablate, command, refused
from report_stores import CREATED, cell_of, config_of, record_of
from s3_server import SLOW_ON_S3

from scale_ray.cli.track import show_report
from scale_ray.store import Store, StudyPlan

CONFIGS = [config_of("mnist", "mnistm", losses, "lenet", seed) for losses in ("ce", "ce+ssl") for seed in (0, 1)]


@pytest.fixture
def store(location: str) -> str:
    store = Store(location, create=True)
    for name, configs in (("first", CONFIGS[:2]), ("second", CONFIGS[2:])):
        store.write_plan(StudyPlan(name=name, created=CREATED, cells=[cell_of(config) for config in configs]))
    for config in CONFIGS:
        store.write_record(record_of(config, 50.0))
    return location


def marked(folder: Path) -> dict[str, str]:
    """Cell -> mark of the runs that are complete."""
    told = [json.loads(path.read_text()) for path in folder.rglob("scale_ray.json")]
    return {each["cell"]: each["mark"] for each in told}


def test_a_store_is_sent_to_each_tracker_and_not_twice(store: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = command("track", store, "--to", f"tensorboard={one}", "--study", "second")
    assert first.out.splitlines() == [f"tensorboard={one}: second: 2 runs sent, 0 there before"]
    both = command("track", store, "--to", f"tensorboard={one}", "--to", f"tensorboard={two}")
    assert both.out.splitlines() == [
        f"tensorboard={one}: first: 2 runs sent, 0 there before",
        f"tensorboard={two}: first: 2 runs sent, 0 there before",
        f"tensorboard={one}: second: 0 runs sent, 2 there before",
        f"tensorboard={two}: second: 2 runs sent, 0 there before",
    ]
    assert marked(one) == marked(two)
    assert marked(one).keys() == {cell_of(config).id for config in CONFIGS}


@SLOW_ON_S3
def test_the_report_goes_with_it(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "report"
    assert command("report", store, "--out", report, "--figures", "1").status == 0
    options = ("--to", f"tensorboard={tmp_path / 'events'}", "--study", "first", "--report", report)
    assert "2 runs sent, and the report, 0 there before" in command("track", store, *options).out
    assert "0 runs sent, 2 there before" in command("track", store, *options).out
    assert "report" in marked(tmp_path / "events")


def test_what_cannot_be_sent_is_refused_in_one_line(tmp_path: Path) -> None:
    target = f"tensorboard={tmp_path / 'events'}"
    refused(command("track", tmp_path / "nowhere", "--to", target), "nowhere", "check the path")
    Store(tmp_path / "empty", create=True)
    refused(command("track", tmp_path / "empty", "--to", target), "neither a study nor a record")
    store = Store(tmp_path / "store", create=True)
    store.write_record(record_of(CONFIGS[0], 50.0))
    refused(command("track", store.location, "--to", target, "--study", "no stdy"), "no study")
    refused(command("track", store.location, "--to", "tensorbord=x"), "tensorboard")
    refused(command("track", store.location), "--to")
    password = command("track", store.location, "--to", "mlflow=http://me:secret@host")
    refused(password, "mlflow=http://me:***@host", "MLFLOW_TRACKING_URI")
    assert "secret" not in password.out + password.err


def test_a_tracker_that_fails_half_way_is_one_line_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    store.write_record(record_of(CONFIGS[0], 50.0))
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "no study").write_text("in the way of a folder")
    failed = command("track", store.location, "--to", f"tensorboard={tmp_path / 'events'}")
    refused(failed, "tensorboard=", "run the same command again to send the rest")


def test_train_is_shown_live_and_then_by_its_record(images: Path, tmp_path: Path) -> None:
    events, store = tmp_path / "events", tmp_path / "store"
    target = f"tensorboard={events}"
    trained = command("train", *TINY, "--root", images, "--store", store, "--track", target)
    assert trained.status == 0, trained.err
    assert "warning" not in trained.out
    (record,) = Store(store).records()
    assert marked(events).keys() == {record.id}
    again = command("track", store, "--to", target)
    assert again.out == f"{target}: no study: 0 runs sent, 1 there before\n"


def test_train_that_fails_is_shown_as_failed(images: Path, tmp_path: Path) -> None:
    events, store = tmp_path / "events", tmp_path / "store"
    diverging = [word if word != "ce+ssl" else "ce+1e30*ssl" for word in TINY]
    line = ["train", *diverging, "--root", images, "--store", store, "--set", "optim.learning_rate=1e6"]
    refused(command(*line, "--track", f"tensorboard={events}"), "a prediction is not finite")
    (record,) = Store(store).records()
    assert record.status == "failed"
    assert marked(events).keys() == {record.id}


@pytest.mark.parametrize("name", ["ablate", "compare", "auto", "tune", "train"])
def test_every_command_that_trains_refuses_a_wrong_tracker_before_anything_runs(
    name: str, tmp_path: Path, images: Path
) -> None:
    words = ("--track", "mlfow=x", "--store", tmp_path / "store")
    refused(command(name, *words), "mlflow")
    assert not (tmp_path / "store").exists()


def test_adapt_does_too(images: Path, tmp_path: Path) -> None:
    words = ("--source", images / "Art", "--target", images / "Real World", "--out", tmp_path / "out")
    refused(command("adapt", *words, "--backbone", "lenet", "--fine-tune", "--track", "mlfow=x"), "mlflow")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_opens_no_tracker(images: Path, tmp_path: Path) -> None:
    dry = ("--pairs", "Art:Real World", "--dry-run", "--track")
    planned = ablate(images, tmp_path / "store", *dry, f"tensorboard={tmp_path / 'events'}")
    assert planned.status == 0, planned.err
    assert not (tmp_path / "events").exists()
    refused(ablate(images, tmp_path / "store", *dry, "tensorboard"), "write tensorboard=FOLDER")


def test_a_study_that_is_done_is_sent_when_it_is_asked_for_again(
    trained: tuple[Outcome, Path], images: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(trained[1], tmp_path / "store"))
    target = f"tensorboard={tmp_path / 'events'}"
    again = command("train", *TINY, "--root", images, "--store", store, "--keep-model", "--track", target)
    assert "done before, nothing is trained again" in again.out
    assert len(marked(tmp_path / "events")) == 1


@SLOW_ON_S3
def test_a_tracker_that_takes_no_report_keeps_it_from_no_other(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("report", store, "--figures", "1").status == 0
    (tmp_path / "file").write_text("no folder")
    show_report([f"tensorboard={tmp_path / 'file'}", f"tensorboard={tmp_path / 'events'}"], Store(store), "first")
    assert f"warning: tensorboard={tmp_path / 'file'}: the report was not sent: " in capsys.readouterr().out.replace(
        "\n", " "
    )
    assert marked(tmp_path / "events").keys() == {"report"}


def test_a_study_may_be_called_as_the_command_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    store.write_plan(StudyPlan(name="train", created=CREATED, cells=[cell_of(CONFIGS[0])]))
    for config in CONFIGS[:3]:
        store.write_record(record_of(config, 50.0))
    sent = command("track", store.location, "--to", f"tensorboard={tmp_path / 'events'}").out.splitlines()
    assert [line.partition("events: ")[2] for line in sent] == [
        "train: 1 run sent, 0 there before",
        "no study: 2 runs sent, 0 there before",
    ]


@SLOW_ON_S3
def test_another_studys_report_is_not_sent(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "report"
    assert command("report", store, "--study", "first", "--out", report, "--figures", "1").status == 0
    sent = command("track", store, "--to", f"tensorboard={tmp_path / 'events'}", "--report", report).out.splitlines()
    assert [line.partition("events: ")[2] for line in sent] == [
        "first: 2 runs sent, and the report, 0 there before",
        "second: 2 runs sent, 0 there before",
    ]
