"""What a command does to the store's plans: a dry run does nothing, and cells that would leave a plan are told."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Outcome, ablate, command, refused
from s3_server import S3Server

from scale_ray import Study, TrialConfig, api, combinations, pairs
from scale_ray.budget import read_budget
from scale_ray.cell import Cell
from scale_ray.cli.console import console
from scale_ray.cli.plans import print_budget
from scale_ray.config import ConfigError, Execution, Resources
from scale_ray.costs import cost_key
from scale_ray.records import Record
from scale_ray.store import Store, StudyPlan, record_files
from scale_ray.store.leases import Driver
from scale_ray.sweep.plan import Plan, leaving, plan_study
from scale_ray.sweep.run import run_study

GRID = ("--losses", "ce", "--seeds", "1")


def dry(images: Path, store: Path | str, *more: str) -> Outcome:
    outcome = ablate(images, store, *GRID, "--dry-run", *more)  # type: ignore[arg-type]
    assert outcome.status == 0, outcome.err
    return outcome


def plan_of(images: Path, store: Path, *texts: str, seeds: Sequence[int] = (0,)) -> Plan:
    axes = {"seed": seeds, "pair": pairs(*texts), "losses": combinations("ce"), "model.backbone": ["lenet"]}
    base = TrialConfig().replace({"data.benchmark": "image_folder", "model.weights": "none", "model.backbone": "lenet"})
    return plan_study(Study("ablation-image_folder", base, axes), Store(store, create=True), images)


def answer(store: Path, cell: Cell, like: Record) -> None:
    """A done record of the cell."""
    Store(store).write_record(like.model_copy(update={"id": cell.id, "config": cell.config, "inputs": cell.inputs}))


def test_a_dry_run_leaves_the_disk_as_it_was(images: Path, tmp_path: Path) -> None:
    dry(images, tmp_path / "deep" / "store", "--pairs", "Art:Real World")
    assert command("tune", "--dry-run", "--store", tmp_path / "deep" / "store").status == 0
    assert list(tmp_path.iterdir()) == []
    study = Study("s", TrialConfig().replace({"data.benchmark": "digits", "model.backbone": "lenet"}), {"seed": [0]})
    digits = study.base.replace({"data.source": "mnist", "data.target": "mnistm", "model.weights": "none"})
    assert len(api.plan(Study("s", digits, {"seed": [0]}), tmp_path / "store").todo) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plan_reads_each_record_once(
    images: Path, tmp_path: Path, trained: tuple[Outcome, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its own cells, and those of others, which say what a step costs."""
    for cell in plan_of(images, tmp_path, "Art:Real World", "Real World:Art").study.cells:
        answer(tmp_path, cell, next(Store(trained[1]).records()))
    parse, read = record_files._parse, list[str]()
    monkeypatch.setattr(record_files, "_parse", lambda location, *of: read.append(location) or parse(location, *of))
    plan = plan_of(images, tmp_path, "Art:Real World", seeds=(0, 1))
    assert len(plan.answered) == len(plan.todo) == 1
    assert len(read) == len(set(read)) == 2
    assert plan.costs


def test_a_dry_run_changes_no_store(images: Path, tmp_path: Path) -> None:
    Store(tmp_path, create=True).write_plan(plan_of(images, tmp_path, "Art:Real World").study)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    dry(images, tmp_path, "--pairs", "Real World:Art")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_dry_run_sends_no_write_to_a_bucket(images: Path, s3: S3Server) -> None:
    url = s3.new_url()
    dry(images, url, "--pairs", "Art:Real World")
    assert not Store(url, missing_ok=True).files.location_exists()


def test_cells_without_a_result_that_would_leave_a_plan_are_told(
    images: Path, tmp_path: Path, trained: tuple[Outcome, Path]
) -> None:
    planned = plan_of(images, tmp_path, "Art:Real World").study
    Store(tmp_path).write_plan(planned)
    warning = (
        "warning: the earlier plan of study 'ablation-image_folder' has 1 cell without a result that this one lacks: "
        "give another --name to keep both plans"
    )
    assert dry(images, tmp_path, "--pairs", "Real World:Art").out.splitlines()[-1] == warning
    assert "warning" not in dry(images, tmp_path, "--pairs", "Real World:Art", "--name", "other").out
    wanted = {cell.id for cell in plan_of(images, tmp_path, "Art:Real World", "Real World:Art").study.cells}
    assert leaving(Store(tmp_path), planned.name, wanted) == frozenset()  # the plan grows
    answer(tmp_path, planned.cells[0], next(Store(trained[1]).records()))
    assert "warning" not in dry(images, tmp_path, "--pairs", "Real World:Art").out


def test_a_study_says_what_leaves_before_it_replaces_the_plan(
    images: Path, tmp_path: Path, trained: tuple[Outcome, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path, create=True).write_plan(plan_of(images, tmp_path, "Art:Real World").study)
    (cell,) = plan_of(images, tmp_path, "Real World:Art").study.cells
    answer(tmp_path, cell, next(Store(trained[1]).records()))
    run_study(plan_of(images, tmp_path, "Real World:Art"), Store(tmp_path), Execution(), Resources(), console)
    assert "has 1 cell without a result that this one lacks" in capsys.readouterr().out
    (plan,) = Store(tmp_path).plans()
    assert [each.id for each in plan.cells] == [cell.id]


def test_a_plan_that_another_driver_may_work_on_is_not_replaced(images: Path, tmp_path: Path) -> None:
    before = plan_of(images, tmp_path, "Art:Real World").study
    Store(tmp_path, create=True).write_plan(before)
    with Driver(Store(tmp_path).files, beat=0.1):
        plan = plan_of(images, tmp_path, "Real World:Art")
        with pytest.raises(ConfigError, match=r"another driver works on this store.* give another --name"):
            run_study(plan, Store(tmp_path), Execution(), Resources(), console)
    (kept,) = Store(tmp_path).plans()
    assert kept.cells == before.cells


def test_a_broken_earlier_plan_is_named(images: Path, tmp_path: Path) -> None:
    Store(tmp_path, create=True)
    (tmp_path / "studies" / "ablation-image_folder.json").write_text('{"name": "x", "created": "", "cells": [{}]}')
    outcome = ablate(images, tmp_path, *GRID, "--pairs", "Art:Real World", "--dry-run")
    refused(outcome, tmp_path / "studies" / "ablation-image_folder.json", "not a study plan")


def test_only_the_named_plans_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    for name in ("a", "b"):
        store.write_plan(StudyPlan(name=name, created="", cells=[]))
    assert [plan.name for plan in store.plan_files(["b", "none"])] == ["b"]


def test_a_study_until_decided_says_how_many_cells_it_may_have(images: Path, tmp_path: Path) -> None:
    more = ("--losses", "ce,ce+ssl", "--seeds", "3", "--until", "1.5", "--pairs", "Art:Real World", "--dry-run")
    outcome = ablate(images, tmp_path / "store", *more)
    assert outcome.status == 0, outcome.err
    assert "6 cells, 0 done, 6 to do" in outcome.out
    assert outcome.out.splitlines()[-1] == "then more seeds for what is not decided: 40 cells at most"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (("--most-seeds", "5"), "--most-seeds bounds what --until may add: give --until POINTS too"),
        (("--until", "0"), "--until 0: write points of accuracy above 0"),
        (("--until", "1", "--limit", "2"), "--until, --limit: a study that is cut decides nothing"),
        (("--until", "1", "--axis", "losses.threshold=0.7,0.8"), "an axis also sets losses.threshold: leave that axis"),
        (("--until", "1", "--losses", "ce"), "until compares approaches with 'ce', and the study has ce: name two"),
        (("--until", "1", "--seeds", "30"), "until: 30 seeds are planned, and a comparison may get 20: plan fewer"),
    ],
)
def test_what_cannot_be_decided_is_refused(images: Path, tmp_path: Path, more: tuple[str, ...], error: str) -> None:
    outcome = ablate(images, tmp_path / "store", "--losses", "ce,ce+ssl", "--pairs", "Art:Real World", *more)
    refused(outcome, error)
    assert not (tmp_path / "store" / "records").exists()


HOURS = 450  # of one trial slot

CLUSTER_FILE = """
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, labels: {scale-ray/usd-per-hour: "0.1"}}
  one: {resources: {CPU: 8, GPU: 1}, labels: {scale-ray/usd-per-hour: "0.9"}}
  four: {resources: {CPU: 4, GPU: 4}, labels: {scale-ray/usd-per-hour: "2.0"}}
  free: {resources: {CPU: 64}}
"""


@pytest.mark.parametrize(
    ("budget", "resources", "told"),
    [
        ("40h", {}, "budget 40 h 00 min: the plan takes about 450 h 00 min of one trial slot"),
        ("20gpu-hours", {}, "budget 20.00 GPU-hours: the plan takes about 450.00 GPU-hours with 1 GPU a training"),
        (
            "20gpu-hours",
            {"gpus": 0.5, "workers": 3},
            "budget 20.00 GPU-hours: the plan takes about 675.00 GPU-hours with 1.5 GPU a training",
        ),
        # The node of four GPUs holds four trainings of one CPU, and one of four CPUs: then the other node is cheaper.
        (
            "30usd",
            {},
            "budget 30.00 USD: the plan takes about 225.00 USD at 0.50 USD an hour of a trial slot, without the head",
        ),
        (
            "30usd",
            {"cpus": 4},
            "budget 30.00 USD: the plan takes about 405.00 USD at 0.90 USD an hour of a trial slot, without the head",
        ),
    ],
)
def test_a_plan_says_what_it_takes_of_a_budget(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    budget: str,
    resources: dict[str, float],
    told: str,
) -> None:
    (tmp_path / "ray_bootstrap_config.yaml").write_text(CLUSTER_FILE)
    monkeypatch.setenv("HOME", str(tmp_path))
    plan = plan_of(images, tmp_path / "store", "Art:Real World")
    cost = 3600 * HOURS / plan.steps_to_do
    measured = replace(plan, costs={cost_key(cell.config): cost for cell in plan.todo})
    print_budget(measured, read_budget(budget), Resources.parse(resources), "auto")
    print_budget(plan, read_budget(budget), Resources.parse(resources), "auto")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith(f"{told} budget ")
    assert printed.endswith(": what the plan takes is known once some steps are measured")


def test_without_a_cluster_file_there_is_no_price(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    printed = " ".join(dry(images, tmp_path / "store", "--pairs", "Art:Real World", "--budget", "30usd").out.split())
    assert "budget 30.00 USD: no price is known here; on the head of a cluster" in printed
