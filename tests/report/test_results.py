"""What a study has in its store, as an object: numbers by hand, and what a notebook shows of it."""

import math
from pathlib import Path

import pandas as pd
import pytest
from report_stores import CREATED, cell_of, config_of, record_of

import scale_ray
from scale_ray.report import Results
from scale_ray.store import Store, StudyPlan
from scale_ray.store.store import StoreError


def stored(folder: Path, accuracies: dict[str, list[float | None]], more: int = 0) -> Store:
    """A study of one pair: losses -> accuracy by seed, None where it failed; `more` seeds of each are missing."""
    store = Store(folder, create=True)
    planned = []
    for losses, values in accuracies.items():
        for seed in range(len(values) + more):
            config = config_of("mnist", "mnistm", losses, "lenet", seed)
            planned.append(cell_of(config))
            if seed < len(values):
                store.write_record(record_of(config, values[seed]))
    store.write_plan(StudyPlan(name="small", created=CREATED, cells=planned))
    return store


def results(store: Store, **more: object) -> Results:
    return scale_ray.results(store.location, "small", **more)  # type: ignore[arg-type]


def test_three_seeds_have_a_mean_a_spread_and_an_interval(tmp_path: Path) -> None:
    found = results(stored(tmp_path / "store", {"ce": [50.0, 51.0, 52.0], "ce+ssl": [60.0, 62.0, 64.0]}))
    by_backbone = found.tables[0]
    assert by_backbone.metric == "target_accuracy"
    ssl = by_backbone.frame.set_index(["row", "column"]).loc[("ce+ssl", "lenet")]
    assert (ssl["mean"], ssl["std"], ssl["n"], ssl["done"], ssl["planned"]) == (62.0, 2.0, 3, 3, 3)
    # t(0.975, 2) = 4.3027; s = 2 / sqrt(3); logit(0.62) -+ 4.3027 * 0.011547 / (0.62 * 0.38)
    half, odds = 4.302653 * 0.02 / math.sqrt(3) / (0.62 * 0.38), math.log(0.62 / 0.38)
    low, high = (100 / (1 + math.exp(-(odds + sign * half))) for sign in (-1, 1))
    assert (ssl["low"], ssl["high"]) == pytest.approx((low, high), abs=1e-4)
    page = by_backbone._repr_html_()
    assert f"<td>62.0 ± 2.0<br><small>[{low:.1f}, {high:.1f}]</small></td>" in page
    assert "Below each mean: its 95 % interval, for the same pairs" in page
    assert "| ce+ssl | 62.0 ± 2.0 |" in str(by_backbone)


def test_two_seeds_are_shown_as_they_are(tmp_path: Path) -> None:
    found = results(stored(tmp_path / "store", {"ce": [50.0, 51.0], "ce+ssl": [60.0, 64.0]}))
    page = found._repr_html_()
    assert "<br><small>seeds 60.0, 64.0</small>" in page
    assert "Below each mean: the value of each seed. They are too few for an interval." in page
    answer = page.index("ce+ssl has the highest accuracy by target labels")
    assert answer < page.index("<table"), "the answer comes first"


def test_a_notebook_shows_the_students_accuracy_alone(tmp_path: Path) -> None:
    found = results(stored(tmp_path / "store", {"ce": [50.0], "ce+ssl": [60.0]}))
    page = found._repr_html_()
    assert page.count("<table") == 2  # combination by backbone, method by pair
    assert "teacher" not in page
    assert {table.metric for table in found.tables} == {"target_accuracy", "teacher_accuracy", "source_val_accuracy"}


def test_cells_are_counted_and_their_causes_named(tmp_path: Path) -> None:
    found = results(stored(tmp_path / "store", {"ce": [50.0, 52.0], "ce+ssl": [60.0, None]}, more=1))
    assert (found.done, found.failed, found.to_do) == (3, 1, 3)
    assert str(found) == f"small in {tmp_path / 'store'}: 6 cells, 3 done, 3 to do (1 failed)"
    assert "RuntimeError: &lt;b&gt;loss&lt;/b&gt; is nan" in found._repr_html_()
    assert sorted(found.cells["status"]) == ["done"] * 3 + ["failed"] + ["missing"] * 2
    assert "oracle_accuracy" not in found.cells


def test_the_report_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    found = results(stored(tmp_path / "store", {"ce": [50.0], "ce+ssl": [60.0]}))
    assert found.report() == tmp_path / "store" / "report" / "report.html"
    assert found.report(tmp_path / "other").is_file()
    told = pd.read_csv(tmp_path / "other" / "losses_by_backbone.csv").query("metric == 'target_accuracy'")
    assert told["mean"].tolist() == found.tables[0].frame["mean"].tolist() == [50.0, 60.0]


def test_mixed_records_are_said_and_not_shown_unless_they_are_allowed(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", {"ce": [50.0, 51.0]})
    store.write_record(record_of(config_of("mnist", "mnistm", "ce", "lenet", 1), 51.0, git_commit="89abcdef"))
    page = results(store)._repr_html_()
    assert "records of several versions of the code" in page
    assert "<table" not in page
    assert "50.5 ± 0.7" in results(store, allow=["code"])._repr_html_()


def test_a_study_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        scale_ray.results(tmp_path / "none")
    store = stored(tmp_path / "store", {"ce": [50.0]})
    with pytest.raises(scale_ray.UserError, match="smal"):
        scale_ray.results(store.location, "smal")
