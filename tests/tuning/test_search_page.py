"""The page of a search, and how a search is read from its journal: without a driver, while one may be at work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from searches import CONTINUOUS, Driver, search

from scale_ray.store import Store
from scale_ray.tuning.decision import decide
from scale_ray.tuning.drawings import search_figures
from scale_ray.tuning.page import search_page
from scale_ray.tuning.view import read_search, stored_searches, view_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def test_a_search_is_read_from_its_journal_as_its_driver_has_it(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root), store).work()
    assert list(stored_searches(store)) == ["try"]
    view = read_search(store, "try")
    of_driver = view_of(driver.optuna_study, store).settings
    assert [(each.number, each.values, each.state, each.validators, each.default) for each in view.settings] == [
        (each.number, each.values, each.state, each.validators, each.default) for each in of_driver
    ]
    assert (view.validator, len(view.repeats), list(view.space)) == (
        "im",
        2,
        ["losses.threshold", "losses.temperature"],
    )
    assert decide(view.settings, "im") == decide(of_driver, "im") or view.settings != of_driver


def test_the_default_setting_is_the_first_and_is_always_tried(tiny_root: Path, store: Store) -> None:
    space = ["losses.threshold=float:0.3:0.9", CONTINUOUS[1]]
    driver = Driver(search(tiny_root, space, settings=3), store).work()
    assert driver.values()[0] == (0.4, 0.1)  # of the base config
    assert driver.optuna_study.trials[0].params == {"losses.threshold": 0.4, "losses.temperature": 0.1}
    found = view_of(driver.optuna_study, store).settings
    assert [each.default for each in found] == [True, False, False]


def test_a_default_outside_of_the_space_is_tried_too_and_samplers_do_not_see_it(tiny_root: Path, store: Store) -> None:
    for sampler in ("tpe", "cmaes", "random"):  # the base config has the threshold 0.4
        wanted = search(tiny_root, ["losses.threshold=float:0.5:0.7", CONTINUOUS[1]], settings=5, sampler=sampler)
        driver = Driver(wanted.__class__(**{**vars(wanted), "name": sampler}), store).work()
        found = view_of(driver.optuna_study, store).settings
        assert [each.state for each in found] == ["done"] * 5
        assert found[0].values == {"losses.threshold": 0.4, "losses.temperature": 0.1}
        assert [each.default for each in found] == [True, False, False, False, False]
        assert all(0.5 <= each.values["losses.threshold"] <= 0.7 for each in found[1:])


def test_the_page_says_what_was_chosen_and_why_and_shows_all_settings(tiny_root: Path, store: Store) -> None:
    Driver(search(tiny_root, settings=10), store).work()
    view = read_search(store, "try")
    page = search_page(view, store)
    decision = decide(view.settings, "im")
    assert decision is not None
    lead = re.search(r'<p class="lead">(.*?)</p>', page)
    assert lead is not None
    assert lead[1].startswith("Chosen by im: setting ")
    assert page.count("<tr><td>") == 2 + 10  # im and the oracle, and the settings
    assert "done (default)" in page
    headings = [heading for heading, _, _ in search_figures(view, decision)]
    assert headings == ["Score over two fields", "Importance of the fields", "Parallel coordinates"]
    assert page.count("<figure>") == 3
    assert page.count("<source media") == 3  # a narrow form of each
    assert "default-src 'none'" in page


def test_a_search_that_has_just_begun_has_a_page(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root), store)
    driver.settings.next()
    page = search_page(read_search(store, "try"), store)
    assert "No setting is done, so none is chosen." in page


def test_half_a_line_that_a_driver_is_writing_is_left_alone(tiny_root: Path, store: Store) -> None:
    Driver(search(tiny_root, settings=2), store).work()
    assert store.folder is not None
    journal = store.folder / "tuning/try/journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 6, "work')
    before = journal.read_bytes()
    assert len(read_search(store, "try").settings) == 2
    assert journal.read_bytes() == before


def test_a_report_of_a_search_needs_neither_torch_nor_ray(tiny_root: Path, store: Store) -> None:
    Driver(search(tiny_root, settings=4), store).work()
    code = (
        "import sys; from scale_ray.cli.searches import search_names, write_search_pages; from pathlib import Path\n"
        "from scale_ray.store import Store\n"
        f"store = Store({store.location!r})\n"
        f"write_search_pages(store, search_names(store), Path({store.location!r}) / 'report', first='report.html')\n"
        "assert not {'torch', 'ray'} & set(sys.modules), 'imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert store.folder is not None
    assert (store.folder / "report/report.html").is_file()
