"""`scale-ray report` of a store with searches: nothing that is in it is lost without a word."""

from pathlib import Path

import pytest
from report_stores import config_of, record_of
from searches import Driver, search

from scale_ray.cli.report import report
from scale_ray.report import ReportError
from scale_ray.store import Store


@pytest.fixture
def store(tiny_root: Path, tmp_path: Path) -> Store:
    found = Store(tmp_path / "store", create=True)
    Driver(search(tiny_root), found).work()
    return found


def test_searches_alone_have_their_own_page_and_refuse_what_cannot_change_it(store: Store, tmp_path: Path) -> None:
    report(store.location, out=tmp_path / "report")
    assert "How to read this page" not in (tmp_path / "report" / "report.html").read_text()
    with pytest.raises(ReportError, match="holds searches alone, and --choose, --parquet cannot change their pages"):
        report(store.location, out=tmp_path / "report", choose="im", parquet=True)


def test_a_search_hides_no_other_record(store: Store, tmp_path: Path) -> None:
    store.write_record(record_of(config_of("mnist", "mnistm", "ce", "lenet", 0), 50.0))
    report(store.location, out=tmp_path / "report", allow="code,data", figures=0)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "mnist&gt;mnistm" in page
    assert (tmp_path / "report" / "tuning-try.html").is_file()
