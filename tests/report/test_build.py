import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from report_stores import config_of, record_of

from scale_ray.report import ReportError, load, write_report
from scale_ray.report.build import Asked, ReportPaths
from scale_ray.report.figures.curves import accuracy_curves
from scale_ray.report.figures.heat_map import heat_map
from scale_ray.report.figures.style import render
from scale_ray.report.read.load import load_curves
from scale_ray.report.tables.forms import grids
from scale_ray.store import Store, StoreError

MAKE = Callable[..., Store]


@pytest.fixture(scope="module")
def whole(shared_study: Store, tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    """The report of the study with everything in it."""
    return write_report(shared_study.location, tmp_path_factory.mktemp("whole"))


def test_a_report_is_whole_and_the_same_each_time(whole: ReportPaths, shared_study: Store, tmp_path: Path) -> None:
    first, second = whole, write_report(shared_study.location, tmp_path)
    folder = first.page.parent
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    told = {
        path.relative_to(folder)
        for path in (first.page, first.records, first.holes, *first.tables, *first.effects, *first.figures)
    }
    assert names == told
    assert {path.name for path in first.tables} == {
        f"{form}.{kind}" for form in ("losses_by_backbone", "pairs_by_method") for kind in ("md", "csv", "tex", "html")
    }
    assert first.figures[0].name == "losses_by_backbone-digits.png"
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert second.page.exists()


def test_records_csv_is_the_frame_without_tracebacks(shared_study: Store, tmp_path: Path) -> None:
    paths = write_report(shared_study.location, tmp_path / "out", Asked(most_drawn=0))
    assert len(paths.records.read_text().splitlines()) == 53  # a head, 51 cells and an old record, one line each
    frame = pd.read_csv(paths.records)
    assert frame["target_accuracy"].notna().sum() == 46  # the done ones and the stale one
    assert frame.loc[frame["status"] == "failed", "error"].tolist() == ["RuntimeError: <b>loss</b> is nan"]
    assert "traceback" not in frame.columns


class _Page(HTMLParser):
    """Collects what a browser would fetch, and the text that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        links = [value or "" for name, value in attrs if name in ("src", "href")]
        self.fetched += [link for link in links if not link.startswith("#")]
        if tag not in ("meta", "img", "source", "wbr", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_what_a_killed_report_left_goes_and_what_other_programs_keep_stays(shared_study: Store, tmp_path: Path) -> None:
    few = Asked(most_drawn=1)
    figures = [path.name for path in write_report(shared_study.location, tmp_path, few).figures]
    left = [".records.csv.0123abcd", ".report.html.0123abcd", f"figures/.{figures[0]}.0123abcd"]
    kept = [".env.template", ".gitignore.20250101"]
    for name in (*left, *kept):
        (tmp_path / name).write_bytes(b"half")
    write_report(shared_study.location, tmp_path, few)
    assert sorted(path.name for path in tmp_path.rglob(".*")) == kept


def test_two_reports_into_one_folder_write_it_whole(
    shared_study: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, taken = os.fsync, set()

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        for path in tmp_path.rglob(".*"):
            if path.name.rpartition(".")[0] not in taken:
                taken.add(path.name.rpartition(".")[0])
                path.unlink()  # as a report that ends meanwhile removes it

    monkeypatch.setattr(os, "fsync", fsync)
    paths = write_report(shared_study.location, tmp_path, Asked(parquet=True, most_drawn=1))
    written = [paths.page, paths.records, paths.holes, *paths.tables, *paths.effects, *paths.figures, *paths.parquet]
    assert taken == {f".{path.name}" for path in written}
    assert all(path.is_file() for path in written)


def test_the_page_holds_everything_and_fetches_nothing(whole: ReportPaths) -> None:
    text = whole.page.read_text(encoding="utf-8")
    page = _Page(text)
    assert not page.open
    assert len(page.fetched) == 4  # methods on pairs, and curves, of two backbones
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.fetched)
    words = re.sub(r"\s+", " ", page.words)
    for expected in [
        "45 done", "1 failed", "5 missing", "1 stale", "of 51 cells", "no teacher",
        "RuntimeError: <b>loss</b> is nan at step 7", "0123abc", "sha-mnist", "2.14.1", "laptop",
        "scale (ce+ssl+dist+reg)", "2026-03-01T00:02:00+00:00", "0.47 h",
    ]:  # fmt: skip
        assert expected in words, expected


def test_a_study_with_nothing_done_has_a_report(make_store: MAKE, tmp_path: Path) -> None:
    planned = [config_of("mnist", "mnistm", "ce+ssl", "lenet", seed) for seed in range(2)]
    store = make_store([], planned=planned)
    paths = write_report(store.location, tmp_path / "out")
    assert "| ce+ssl | missing |" in (tmp_path / "out" / "losses_by_backbone.md").read_text()
    assert "0 done" in _Page(paths.page.read_text(encoding="utf-8")).words


def test_an_empty_store_and_an_impossible_folder_are_refused(make_store: MAKE, tmp_path: Path) -> None:
    store = make_store([])
    with pytest.raises(ReportError, match="run a study into it first"):
        write_report(store.location, tmp_path / "out")
    make_store([(config_of("mnist", "mnistm", "ce", "lenet", 0), 40.0)])
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="choose another folder"):
        write_report(store.location, tmp_path / "file")


def test_curves_draw_the_mean_over_seeds(shared_study: Store) -> None:
    cells, curves = load(shared_study.location), load_curves(shared_study.location)
    figure = accuracy_curves(cells, curves, "lenet", "digits")
    fonts, mnist = figure.axes
    assert (fonts.get_title(), mnist.get_title()) == ("fonts>mnistm (2 seeds)", "mnist>mnistm (3 seeds)")
    ends = {round(float(line.get_ydata()[-1]), 6) for line in mnist.lines if len(line.get_ydata())}
    # Seeds add 0, 0.5 and 1 to 48 + gain; the teacher is one point behind and source_only has none.
    assert ends == {48.5, 88.5, 87.5, 92.5, 91.5, 94.0, 93.0}
    # On fonts one line lacks seed 2, so no line counts it: ce is 48 - 6 plus the mean of 0 and 1.
    assert min(line.get_ydata()[-1] for line in fonts.lines if len(line.get_ydata())) == 42.5


def test_a_figure_does_not_depend_on_the_users_settings(shared_study: Store) -> None:
    grid = grids(load(shared_study.location))[0]
    plain = render(heat_map(grid), "svg")
    settings: dict[Any, Any] = {"font.size": 20, "svg.fonttype": "none", "savefig.dpi": 10}
    with mpl.rc_context(settings):
        assert render(heat_map(grid), "svg") == plain
    assert b"<dc:date>" not in plain


def test_what_else_can_be_asked_for(shared_study: Store, tmp_path: Path) -> None:
    asked = Asked(rows="seed", columns="losses", facet="backbone", parquet=True, oracle=True, most_drawn=0)
    paths = write_report(shared_study.location, tmp_path / "out", asked)
    assert {path.name for path in paths.tables if path.name.startswith("seed")} == {
        f"seed_by_losses.{kind}" for kind in ("md", "csv", "tex", "html")
    }
    cells, curves = map(pd.read_parquet, paths.parquet)
    assert len(cells) == 52
    assert len(curves) == 45 * 4
    pd.testing.assert_frame_equal(cells, load(shared_study.location, oracle=True))
    assert "oracle_accuracy" in pd.read_csv(paths.records).columns
    assert paths.missing == len(paths.holes.read_text().splitlines()) - 1 == 6


def test_half_a_table_is_refused(shared_study: Store, tmp_path: Path) -> None:
    for half in (Asked(rows="seed"), Asked(columns="seed"), Asked(facet="pair")):
        with pytest.raises(ReportError, match="name the two"):
            write_report(shared_study.location, tmp_path / "out", half)


def test_a_mixed_store_has_no_report_until_it_is_allowed(make_store: MAKE, tmp_path: Path) -> None:
    store = make_store([(config_of("mnist", "mnistm", "ce", "lenet", 0), 40.0)])
    store.write_record(record_of(config_of("mnist", "mnistm", "ce", "lenet", 1), 42.0, git_commit="fedcba"))
    with pytest.raises(ReportError, match="--allow code"):
        write_report(store.location, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    paths = write_report(store.location, tmp_path / "out", Asked(allow=["code"], most_drawn=0))
    for table in paths.tables:
        assert ("Accepted (--allow code)" in table.read_text()) == (table.suffix != ".csv")


def test_figures_are_limited_by_kind_and_tables_are_not(
    whole: ReportPaths, shared_study: Store, tmp_path: Path
) -> None:
    few = write_report(shared_study.location, tmp_path / "few", Asked(most_drawn=1))
    kinds = {path.name.partition("-")[0] for path in whole.figures}
    assert kinds == {"losses_by_backbone", "pairs_by_method", "pairs", "curves"}
    assert len(few.figures) == len(kinds) * 3 < len(whole.figures)
    assert [path.read_bytes() for path in few.tables] == [path.read_bytes() for path in whole.tables]
    assert not write_report(shared_study.location, tmp_path / "none", Asked(most_drawn=0)).figures


def test_a_trials_confusion_matrix_on_request(make_store: MAKE, tmp_path: Path) -> None:
    config = config_of("mnist", "mnistm", "ce", "lenet", 0)
    record = record_of(config, 75.0)
    assert record.result is not None
    counted = record.result.model_copy(update={"classes": ["a", "b"], "confusion": [[9, 1], [4, 6]]})
    store = make_store([(config_of("mnist", "mnistm", "ce", "lenet", 1), 40.0)])
    store.write_record(record.model_copy(update={"result": counted}))
    paths = write_report(store.location, tmp_path / "out", Asked(confusion=[record.id[:12]]))
    assert f"confusion-{record.id[:12]}.pdf" in {path.name for path in paths.figures}
    assert "Confusion matrices" in paths.page.read_text("utf-8")
    for trial in ("", "zzzz", record.id[:3], "0000"):
        with pytest.raises(StoreError, match=r"give (four or )?more digits of"):
            write_report(store.location, tmp_path / "no", Asked(confusion=[trial]))
    (other,) = set(store.record_ids()) - {record.id}
    with pytest.raises(ReportError, match="has no confusion matrix"):
        write_report(store.location, tmp_path / "no", Asked(confusion=[other]))
    assert not (tmp_path / "no").exists()


def test_the_baseline_is_chosen_by_its_label(shared_study: Store, tmp_path: Path) -> None:
    write_report(shared_study.location, tmp_path / "out", Asked(baseline="ce+ssl", most_drawn=1))
    assert set(pd.read_csv(tmp_path / "out" / "differences.csv")["baseline"]) == {"ce+ssl"}
    with pytest.raises(ReportError, match="baseline 'dann': nothing is done of it: choose from ce, ce\\+ssl"):
        write_report(shared_study.location, tmp_path / "out", Asked(baseline="dann"))


def test_the_options_of_a_report_are_given_back_as_they_were_typed() -> None:
    assert Asked().options() == []
    asked = Asked(
        study="a b", allow=("code", "data"), oracle=True, most_drawn=0, confusion=["12", "34"], root=Path("x")
    )
    assert asked.options() == [
        *("--study", "a b", "--allow", "code,data", "--oracle", "--confusion", "12", "--confusion", "34"),
        *("--root", "x", "--figures", "0"),
    ]
