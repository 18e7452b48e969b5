"""The page of a search, and how a search is read from its journal: without a driver, while one may be at work."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from searches import CONTINUOUS, Driver, search

from scale_ray.store import Store, StoredPredictions
from scale_ray.tuning.decision import decide
from scale_ray.tuning.drawings import search_figures
from scale_ray.tuning.page import search_page
from scale_ray.tuning.view import read_search, view_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def write_predictions(driver: Driver, store: Store) -> None:
    """Of every record: four images, all taken for the first of two classes."""
    counted = {"classes": ["a", "b"], "confusion": [[4, 0], [0, 0]]}
    for record in list(store.records()):
        store.write_record(record.model_copy(update={"result": record.result.model_copy(update=counted)}))
        predicted = StoredPredictions.of(np.eye(2)[[0, 0, 0, 0]], ["a", "b"], record.inputs["target"])
        store.write_predictions(record.id, predicted)


def test_a_search_is_read_from_its_journal_as_its_driver_has_it(tiny_root: Path, store: Store) -> None:
    """With the scores of set validators, and without the steps of warm-ups that an earlier setting has trained."""
    wanted = search(tiny_root, ("losses.temperature=0.1|0.2|0.5",), repeats=1, settings=3, sampler="grid")
    driver = Driver(wanted, store).work()
    write_predictions(driver, store)
    view = read_search(store, "try")
    assert view == view_of(driver.optuna_study, store)
    assert [each.steps for each in view.settings] == [12, 9, 9]
    assert [each.validators["ensv"] for each in view.settings] == [100, 100, 100]
    assert ">ensv<" in search_page(view, store)
    assert (view.validator, view.repeats, list(view.space)) == (
        "im", ["plain>inverted seed 0"], ["losses.temperature"],
    )  # fmt: skip
    assert view.base == wanted.base


def remove_record(driver: Driver, setting: int, repeat: int) -> None:
    trial = driver.optuna_study.get_trials()[setting]
    driver.store.files.delete(f"records/{list(trial.user_attrs['cells'].values())[repeat]}.json")


def test_no_other_setting_is_taken_for_a_default_without_records(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root, repeats=3, settings=4), store).work()
    for repeat in range(3):
        remove_record(driver, 0, repeat)
    view = read_search(store, "try")
    assert [each.default for each in view.settings] == [True, False, False, False]
    decision = decide(view.settings, "im")
    assert (decision.chosen.number, decision.highest.number != 0) == (0, True)
    assert "the default setting is incomplete" in decision.why


def test_the_default_is_known_while_its_first_cell_trains(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root, repeats=1, settings=3), store)
    first = driver.settings.next()
    driver.work()
    assert not store.answers(first.id)
    view = read_search(store, "try")
    assert [(each.state, each.default) for each in view.settings] == [("open", True), ("done", False), ("done", False)]
    assert decide(view.settings, "im").chosen.number == 0


@pytest.mark.parametrize("gone", [[(0, 1)], [(0, 1), (2, 0)]], ids=["of the default", "of two, for different repeats"])
def test_a_setting_is_done_only_with_a_record_of_every_repeat(
    gone: list[tuple[int, int]], tiny_root: Path, store: Store
) -> None:
    driver = Driver(search(tiny_root, repeats=3, settings=4), store).work()
    for setting, repeat in gone:
        remove_record(driver, setting, repeat)
    settings = read_search(store, "try").settings
    for setting, repeat in gone:
        assert (settings[setting].state, settings[setting].repeats) == ("incomplete", 2)
        assert settings[setting].reason == (
            f"no current record of plain>inverted seed {repeat}: the search under another --name trains it again"
        )
        assert list(settings[setting].by_repeat["im"]) == [
            f"plain>inverted seed {each}" for each in range(3) if each != repeat
        ]
    decision = decide(settings, "im")
    assert decision.chosen.number == 0
    assert decision.highest.number not in {setting for setting, _ in gone}
    assert "incomplete" in search_page(read_search(store, "try"), store)


def test_of_a_search_that_an_earlier_version_began_no_setting_is_marked(
    tiny_root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its driver goes on and says what the default is."""
    with monkeypatch.context() as earlier:
        earlier.setattr(optuna.Study, "set_user_attr", _all_but_the_base_config(optuna.Study.set_user_attr))
        driver = Driver(search(tiny_root, settings=2), store).work()
    view = read_search(store, "try")
    assert (view.base, [each.default for each in view.settings]) == (None, [False, False])
    assert "which setting is the default is not known" in search_page(view, store)
    Driver(driver.search, store)
    assert [each.default for each in read_search(store, "try").settings] == [True, False]


def _all_but_the_base_config(write: Callable[[optuna.Study, str, Any], None]) -> Callable[..., None]:
    def kept(study: optuna.Study, key: str, value: Any) -> None:
        if key != "base_config":
            write(study, key, value)

    return kept


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


def test_a_report_of_a_search_needs_nothing_that_the_light_distribution_leaves_out(
    tiny_root: Path, store: Store
) -> None:
    Driver(search(tiny_root, settings=4), store).work()
    code = (
        "import sys; from scale_ray.cli.searches import search_names, write_search_pages; from pathlib import Path\n"
        "from scale_ray.store import Store\n"
        f"store = Store({store.location!r})\n"
        f"write_search_pages(store, search_names(store), Path({store.location!r}) / 'report', first='report.html')\n"
        "from scale_ray.extras import LEFT_OUT\n"
        "assert not LEFT_OUT & set(sys.modules), LEFT_OUT & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert store.folder is not None
    assert (store.folder / "report/report.html").is_file()
