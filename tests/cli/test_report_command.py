"""`scale-ray report` and `scale-ray status`."""

import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import pytest
import typer
from commands import TINY, Outcome, command, refused
from s3_server import S3Server

from scale_ray.cell import Cell
from scale_ray.identity import identity
from scale_ray.records import Failure, Provenance, Record
from scale_ray.store import Store, StudyPlan
from scale_ray.store.doing import Doing, Training
from scale_ray.store.leases import Driver

FIRST_STORE = Path(__file__).parents[1] / "fixtures" / "store_0_1_0"


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
    outcome = command(
        "report", store.location, "--allow", "code", "--rows", "losses.threshold", "--columns", "seed", "--figures", "0"
    )
    assert outcome.status == 0
    assert "0.5" in outcome.out
    assert (tmp_path / "store" / "report" / "losses.threshold_by_seed.tex").is_file()
    refused(command("report", store.location, "--allow", "code", "--rows", "seed"), "name the two")


def test_report_chooses_by_stored_predictions(images: Path, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        options = ("--root", images, "--store", tmp_path, "--seed", seed, "--keep-predictions")
        assert command("train", *TINY, *options).status == 0
    outcome = command("report", tmp_path, "--choose", "ensv", "--oracle", "--figures", "0")
    assert outcome.status == 0, outcome.err
    assert "scale (ce+ssl)" in outcome.out
    assert "Estimated accuracy: agreement with the labels of the candidates' ensemble" in outcome.out
    assert sorted(path.name for path in (tmp_path / "report").glob("*.md") if path.stem in ("choice", "regret")) == [
        "choice.md",
        "regret.md",
    ]


def test_a_choice_without_predictions_is_one_line_that_names_the_remedy(trained: tuple[Outcome, Path]) -> None:
    outcome = command("report", trained[1], "--choose", "ensv")
    refused(outcome, "--choose ensv: 1 of 1 done cell without stored predictions", "with --keep-predictions")


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


def test_status_of_a_store_without_studies_lists_its_records(trained: tuple[Outcome, Path]) -> None:
    (record,) = Store(trained[1]).records()
    assert record.result is not None
    first, _, line = command("status", trained[1]).out.splitlines()
    assert first == f"{trained[1]}: no study, 1 record:"
    assert line.split()[:3] == [record.id[:12], "Art>Real", "World"]
    assert f"done   {record.result.target_accuracy:.2f} %" in line


def failed_copies(done: Record, seeds: range) -> list[Record]:
    failure = Failure(kind="RuntimeError", message="no\nmore", traceback="…")
    configs = [done.config.replace({"seed": seed}) for seed in seeds]
    return [
        done.model_copy(
            update={
                "id": identity(config, done.inputs),
                "config": config,
                "status": "failed",
                "result": None,
                "failure": failure.model_copy(update={"message": f"no {config.seed}"}),
            }
        )
        for config in configs
    ]


def test_status_says_what_runs_how_long_it_takes_and_what_failed(trained: tuple[Outcome, Path], tmp_path: Path) -> None:
    store = Store(shutil.copytree(trained[1], tmp_path / "store"))
    (done,) = store.records()
    failed = failed_copies(done, range(1, 6))
    for each in failed:
        store.write_record(each)
    cells = [Cell(id=each.id, config=each.config) for each in (done, *failed)]
    store.write_plan(StudyPlan(name="s", created="2026-03-01T00:00:00+00:00", cells=cells))
    with Driver(store.files) as driver:
        driver.acquire(failed[0].id)
        lines = command("status", store.location).out.splitlines()
        known = {"cells": (failed[0].id,), "first": 0, "last": 120}
        trains = Training(title="it", step=30, started=True, seconds_left=9.0, source_val_accuracy=80.0, **known)
        waits = Training(title="another", step=0, started=False, **known)
        driver.doing = Doing(study="s", trainings=(trains, waits))
        driver.beat()
        told = command("status", store.location).out.splitlines()
    assert "  it: step 30 of 120, source_val 80.0 %, about 9 s left" in told
    assert "  another: waits for a slot, or has just begun" in told
    assert any(line.startswith("running: driver on ") and line.endswith(": 1 stage handed out") for line in lines)
    assert any(line.startswith("  Art>Real World ce+ssl lenet seed 1") for line in lines)
    assert any(line.startswith("time left: about ") and line.endswith(", 1 at a time") for line in lines)
    # Messages that differ in numbers are one.
    assert [line[:-1] for line in lines if line.startswith("failed")] == ["failed, 5 x: RuntimeError: no "]
    assert lines[-2:] == ["to forget failures:", f"  scale-ray forget {store.location} --failed"]
    alone = command("status", store.location, "--watch").out  # ends by itself where nothing runs
    assert "running" not in alone
    assert "nothing runs now" in alone


def test_forget_lists_asks_and_deletes(
    trained: tuple[Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(shutil.copytree(trained[1], tmp_path / "store"))
    (done,) = store.records()
    failed = failed_copies(done, range(1, 4))
    for each in failed:
        store.write_record(each)
    monkeypatch.setattr(sys, "stdin", StringIO("n\n"))
    unanswered = command("forget", store.location, "--failed")
    assert unanswered.status == 1
    assert f"{failed[0].id[:12]}  Art>Real World ce+ssl lenet seed 1: failed, RuntimeError, record" in unanswered.out
    assert len(store.record_ids()) == 4
    one = command("forget", store.location, failed[0].id[:10], "--yes")
    assert one.out.splitlines()[-1] == f"deleted 1 record (1 file) of {store.location}"
    assert command("forget", store.location, "--failed", "-y").status == 0
    assert store.record_ids() == [done.id]
    assert command("forget", store.location, "--stale").out == f"{store.location}: nothing to forget\n"
    refused(command("forget", store.location), "forget what?")
    refused(command("forget", store.location, "--failed", "--stale"), "forget what?")
    for start in ("", done.id[:3], "zzzz"):  # one record is left: any of its first characters would name it
        refused(command("forget", store.location, start, "--yes"), f"{start!r}: no beginning of a record's id")
    assert store.record_ids() == [done.id]
    assert command("forget", store.location, done.id[:4], "--yes").status == 0
    assert store.record_ids() == []


def test_forget_leaves_what_has_succeeded_since_it_was_listed(
    trained: tuple[Outcome, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(shutil.copytree(trained[1], tmp_path / "store"))
    (first,) = store.records()
    failed = failed_copies(first, range(1, 3))
    for each in failed:
        store.write_record(each)
    done = first.model_copy(update={"id": failed[0].id, "config": failed[0].config})

    def train_meanwhile(*_: object, **__: object) -> bool:
        store.write_record(done)
        return True

    monkeypatch.setattr(typer, "confirm", train_meanwhile)
    outcome = command("forget", store.location, "--failed")
    assert f"{done.id[:12]} stays: it is no longer as listed (failed, RuntimeError)" in outcome.out
    assert "deleted 1 record (1 file)" in outcome.out
    assert store.read_record(done.id) == done
    assert set(store.record_ids()) == {first.id, done.id}


def test_forget_takes_records_of_another_recipe(tmp_path: Path) -> None:
    store = Store(shutil.copytree(FIRST_STORE, tmp_path / "store"))
    number = len(store.record_ids())
    outcome = command("forget", store.location, "--stale", "--yes")
    assert f"deleted {number} records" in outcome.out
    assert "stale (recipe 1)" in outcome.out
    assert store.record_ids() == []


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


# A store that code of recipe 1 has written: its cells are stale, and all is read.


def test_every_cell_of_a_store_of_another_recipe_is_stale(tmp_path: Path) -> None:
    store = shutil.copytree(FIRST_STORE, tmp_path / "store")
    lines = [line.split() for line in command("status", store).out.splitlines()]
    assert {name: (cells, done) for name, cells, done, *_ in lines[1:5]} == {
        "ablation-digits": ("3", "0"),
        "comparison-digits": ("3", "0"),
        "frozen": ("1", "0"),
        "tuning-digits": ("2", "0"),
    }
    assert command("report", store, "--figures", "0").status == 0
    assert "10 stale" in re.sub(r"<[^>]*>", "", (store / "report" / "report.html").read_text())
