import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from report_stores import cell_of, config_of, digests, record_of

from scale_ray import report
from scale_ray.config import RECIPE_VERSION
from scale_ray.records import VALIDATOR_NAMES
from scale_ray.report import ReportError, grids, load, load_curves
from scale_ray.report.read.curves import Curves
from scale_ray.report.read.load import varying_fields
from scale_ray.store import Store, StoreError, StudyPlan

MAKE = Callable[..., Store]
SCALE = config_of("mnist", "mnistm", "ce+ssl", "lenet", 0)


def test_every_planned_cell_and_every_record_is_one_row(study_store: Store) -> None:
    cells = load(study_store.location)
    assert cells["status"].value_counts().to_dict() == {"done": 45, "missing": 5, "failed": 1, "stale": 1}
    assert cells["cell"].is_unique
    assert set(cells.loc[~cells["superseded"], "study"]) == {"ablation"}
    assert cells.loc[cells["superseded"], ["study", "status"]].fillna("none").to_numpy().tolist() == [["none", "stale"]]


def test_columns_of_a_finished_cell(make_store: MAKE) -> None:
    (row,) = load(make_store([(SCALE, 88.25)]).location).to_dict("records")
    expected = {
        "benchmark": "digits",
        "pair": "mnist>mnistm",
        "method": "scale",
        "losses": "ce+ssl",
        "backbone": "lenet",
        "seed": 0,
        "status": "done",
        "target_accuracy": 88.25,
        "teacher_accuracy": 87.25,
        "source_val_accuracy": 99.0,
        "steps": 600,
        "wall_seconds": 36.0,
        "source_images": 4998,
        "target_images": 5000,
        "skipped_images": 2,
        "git_commit": "0123abc",
        "source_digest": "sha-mnist",
    }
    assert {name: row[name] for name in expected} == expected
    assert pd.isna(row["study"])
    assert pd.isna(row["error"])


def test_a_failed_cell_has_the_first_line_of_its_error_and_no_accuracy(make_store: MAKE) -> None:
    (row,) = load(make_store([(SCALE, None)]).location).to_dict("records")
    assert row["status"] == "failed"
    assert row["error"] == "RuntimeError: <b>loss</b> is nan"
    assert row["traceback"].endswith("at step 7")
    assert pd.isna(row["target_accuracy"])
    assert pd.isna(row["steps"])


def test_one_cell_of_two_studies_is_one_row(make_store: MAKE) -> None:
    store = make_store([(SCALE, 88.0)], planned=[SCALE], name="b")
    store.write_plan(StudyPlan(name="a", created="x", cells=[cell_of(SCALE)]))
    assert load(store.location)["study"].tolist() == ["a, b"]


def test_an_old_record_beside_its_new_cell_is_superseded_and_one_without_is_not(make_store: MAKE) -> None:
    other = config_of("fonts", "mnistm", "ce+ssl", "lenet", 0)
    store = make_store([], planned=[SCALE])
    for config in (SCALE, other):
        # An old recipe gave another id; so does, here, an invented input.
        old = record_of(config, 50.0, recipe=RECIPE_VERSION - 1, inputs=digests(config) | {"old": "x"})
        store.write_record(old)
    cells = load(store.location)
    found = {(row["pair"], row["status"], row["superseded"]) for row in cells.to_dict("records")}
    assert found == {
        ("mnist>mnistm", "missing", False),
        ("mnist>mnistm", "stale", True),
        ("fonts>mnistm", "stale", False),
    }


def test_only_fields_that_differ_become_columns(make_store: MAKE) -> None:
    strict = SCALE.replace({"losses.threshold": 0.9, "views.crop_scale": (0.2, 1.0)})
    cells = load(make_store([(SCALE, 80.0), (strict, 85.0)]).location)
    assert varying_fields(cells) == ["views.crop_scale", "losses.threshold"]
    assert dict(zip(cells["losses.threshold"], cells["target_accuracy"], strict=True)) == {0.8: 80.0, 0.9: 85.0}
    assert set(cells["views.crop_scale"]) == {"[0.5, 1.0]", "[0.2, 1.0]"}


def test_curves_hold_the_points_of_done_cells_only(study_store: Store) -> None:
    cells, curves = load(study_store.location), load_curves(study_store.location)
    assert set(curves["cell"]) == set(cells.loc[cells["status"] == "done", "cell"])
    assert curves.groupby("cell")["step"].apply(list).tolist() == [[0, 200, 400, 600]] * 45


def test_an_empty_store_is_an_empty_frame_with_columns(make_store: MAKE) -> None:
    cells = load(make_store([]).location)
    assert cells.empty
    assert "target_accuracy" in cells.columns


def test_an_unreadable_record_is_an_error_with_its_path(study_store: Store) -> None:
    path = Path(study_store.record_location("broken"))
    path.write_text("{")
    with pytest.raises(StoreError, match=str(path)):
        load(study_store.location)


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("import scale_ray.report.build", ["torch", "ray", "matplotlib.pyplot"]),
        ("from scale_ray.report import load", ["torch", "ray", "scipy", "statsmodels", "matplotlib", "jinja2", "rich"]),
        ("import scale_ray.report", ["pandas"]),
    ],
)
def test_what_is_imported_only_when_it_is_used(statement: str, modules: list[str]) -> None:
    code = f"{statement}; import sys; print(sorted(set({modules}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there_and_no_others() -> None:
    assert set(report.__all__) <= set(dir(report))
    assert all(getattr(report, name).__name__ == name for name in report.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        report.lode  # noqa: B018


def test_a_record_of_older_data_gives_way_to_the_planned_cell(make_store: MAKE) -> None:
    """Repaired images give a cell a new id: the old record is listed, and no grid counts it."""
    store = make_store([(SCALE, 80.0)], planned=[SCALE])
    old = record_of(SCALE, 70.0, inputs=digests(SCALE) | {"source": "sha-other"})
    store.write_record(old)
    cells = load(store.location)
    assert cells.set_index("cell")["superseded"].to_dict() == {cell_of(SCALE).id: False, old.id: True}
    assert {entry.mean for grid in grids(cells) for entry in grid.entries.values()} >= {80.0}
    assert all(entry.mean != 75.0 for grid in grids(cells) for entry in grid.entries.values())


def test_cost_confusion_and_kept_labels_are_columns(make_store: MAKE) -> None:
    store = make_store([])
    record = record_of(
        SCALE, 80.0, charged_seconds=1800.0, workers=4, runner="ray train", backend="gloo", shared_steps=50
    )
    assert record.result is not None
    last = record.result.curve[-1].model_copy(update={"kept_fraction": 0.25, "kept_accuracy": 75.0})
    # Class a: 9 of 10 right; class b: 1 of 2; class c has no image in the target.
    figures = {"confusion": [[9, 1, 0], [1, 1, 0], [0, 0, 0]], "classes": ["a", "b", "c"]}
    result = record.result.model_copy(update=figures | {"curve": [*record.result.curve[:-1], last]})
    store.write_record(record.model_copy(update={"result": result}))
    (row,) = load(store.location).to_dict("records")
    assert row["class_mean_accuracy"] == pytest.approx(70.0)  # (90 + 50) / 2
    assert (row["kept_fraction"], row["kept_accuracy"]) == (0.25, 75.0)
    assert row["worker_hours"] == 2.0  # half an hour on four
    assert (row["charged_seconds"], row["shared_steps"], row["workers"]) == (1800.0, 50, 4)
    assert (row["runner"], row["backend"]) == ("ray train", "gloo")


def test_validator_scores_are_columns_and_missing_in_older_records(make_store: MAKE) -> None:
    old, record = record_of(SCALE.replace({"seed": 1}), 80.0), record_of(SCALE, 80.0)
    assert record.result is not None
    scored = record.result.model_copy(update={"validators": {"im": 1.5, "snd": 4.0}})
    store = make_store([])
    for each in (old, record.model_copy(update={"result": scored})):
        store.write_record(each)
    cells = load(store.location).set_index("seed")
    assert (cells.loc[0, "validator_im"], cells.loc[0, "validator_snd"]) == (1.5, 4.0)
    assert math.isnan(cells.loc[0, "validator_dev"])
    assert cells.loc[1, [f"validator_{name}" for name in VALIDATOR_NAMES]].isna().all()


def test_curves_have_a_column_for_each_loss_term(make_store: MAKE) -> None:
    other = record_of(SCALE.replace({"seed": 1}), 80.0)
    assert other.result is not None
    points = [point.model_copy(update={"losses": {"ssl": 0.5}}) for point in other.result.curve]
    store = make_store([(SCALE, 80.0)])
    store.write_record(other.model_copy(update={"result": other.result.model_copy(update={"curve": points})}))
    curves = load_curves(store.location)
    assert len(curves) == 8
    of_other = curves["cell"] == other.id
    assert curves.loc[of_other, "loss.ssl"].tolist() == [0.5] * 4
    assert curves.loc[of_other, "loss.ce"].isna().all()
    assert curves.loc[~of_other, "loss.ce"].tolist() == [1.0] * 4
    assert curves.loc[~of_other, "loss.ssl"].isna().all()


def test_the_best_epoch_is_a_column_only_where_it_is_asked_for(make_store: MAKE) -> None:
    record = record_of(SCALE, 80.0)
    assert record.result is not None
    peak = record.result.curve[1].model_copy(update={"target_accuracy": 91.0})
    curve = [record.result.curve[0], peak, *record.result.curve[2:]]
    store = make_store([])
    store.write_record(record.model_copy(update={"result": record.result.model_copy(update={"curve": curve})}))
    assert "oracle_accuracy" not in load(store.location).columns
    (row,) = load(store.location, oracle=True).to_dict("records")
    assert (row["oracle_accuracy"], row["target_accuracy"]) == (91.0, 80.0)


def test_one_study_alone(make_store: MAKE) -> None:
    other = SCALE.replace({"seed": 1})
    store = make_store([(SCALE, 80.0), (other, 81.0)], planned=[SCALE], name="first")
    store.write_plan(StudyPlan(name="second", created="x", cells=[cell_of(other)]))
    assert load(store.location, study="second")["seed"].tolist() == [1]
    assert set(load_curves(store.location, study="second")["cell"]) == {cell_of(other).id}
    with pytest.raises(ReportError, match="no study 'secnd' here: did you mean 'second'"):
        load(store.location, study="secnd")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("losses", {"temprature": 1}, "unknown key 'temprature'"), ("seed", -1, "seed"), ("seed", "one", "seed")],
)
def test_a_config_that_cannot_be_is_an_error_with_the_records_path(
    make_store: MAKE, field: str, value: object, words: str
) -> None:
    store = make_store([(SCALE, 80.0), (SCALE.replace({"seed": 1}), 80.0)])
    path = Path(store.record_location(cell_of(SCALE.replace({"seed": 1})).id))
    values = json.loads(path.read_text())
    values["config"][field] = value
    path.write_text(json.dumps(values))
    with pytest.raises(StoreError, match=f"{path}: not a readable record.*{words}"):
        load(store.location)


def test_a_plan_whose_config_cannot_be_is_an_error_with_the_plans_path(make_store: MAKE) -> None:
    store = make_store([(SCALE, 80.0)], planned=[SCALE], name="s")
    path = Path(store.location) / "studies" / "s.json"
    values = json.loads(path.read_text())
    values["configs"][0]["losses"] = {"temprature": 1}
    path.write_text(json.dumps(values))
    with pytest.raises(StoreError, match=rf"^{path}: not a study plan \(config: losses.*'temprature'.*: move it away"):
        load(store.location)


def test_a_curve_that_could_not_be_read_is_read_when_it_can(make_store: MAKE) -> None:
    store = make_store([(SCALE, 80.0), (SCALE.replace({"seed": 1}), 80.0)])
    cells = sorted(store.record_ids())
    path = Path(store.record_location(cells[1]))
    content, curves = path.read_bytes(), Curves(store)
    path.write_bytes(b"{")
    with pytest.raises(StoreError, match=f"^{path}: not a readable record"):
        curves.of(cells)
    path.write_bytes(content)
    assert set(curves.of(cells)["cell"]) == set(cells)


def test_how_many_workers_trained_does_not_tell_cells_apart_where_it_changes_no_number(make_store: MAKE) -> None:
    frozen = SCALE.replace({"model.batch_norm": "frozen"})
    split = frozen.replace({"seed": 1, "parallel.workers": 2})
    cells = load(make_store([(frozen, 80.0), (split, 82.0)]).location)
    assert varying_fields(cells) == []
    assert {grid.facet for grid in grids(cells)} == {""}


@pytest.mark.parametrize("function", [load, load_curves])
def test_every_column_is_documented_and_the_manual_says_the_same(
    study_store: Store, function: Callable[..., pd.DataFrame]
) -> None:
    told = [line.strip() for line in (function.__doc__ or "").splitlines() if line.strip().startswith("|")][2:]
    names = [name for line in told for name in line.split("|")[1].strip().split(", ")]
    frame = load(study_store.location, oracle=True) if function is load else load_curves(study_store.location)
    written = {name for name in names if not name.startswith(("any other", "loss.", "…"))}
    assert written == {name for name in frame.columns if not name.startswith("loss.") and name != "old_digest"}
    manual = Path(__file__).parents[3].joinpath("docs", "report.md").read_text(encoding="utf-8").replace("`", "")
    for line in told:
        assert line.replace("`", "") in manual
