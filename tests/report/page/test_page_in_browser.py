"""The page in a real Chromium, with no network: skipped where there is none (`apt-get install chromium-driver`)."""

import json
import re
from collections.abc import Iterator

import pandas as pd
import pytest
from browsers import chromium_at, needs_chromium
from page_stores import Contents, wide_store
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from scale_ray.report.effects.tables import effects_tables
from scale_ray.report.page.page import page
from scale_ray.report.tables.forms import grids

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return Contents.of(wide_store(tmp_path_factory.mktemp("wide")))


@pytest.fixture(scope="module")
def address(contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "report.html"
    effects = effects_tables(contents.cells)
    file.write_text(page(contents.cells, grids(contents.cells), {}, curves=contents.curves, effects=effects), "utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium_at(tmp_path_factory.mktemp("profile")) as driver:
        driver.get_log("performance")  # what Chromium itself loaded for its first tab
        yield driver


@pytest.fixture
def browser(chromium: webdriver.Chrome, address: str) -> Iterator[webdriver.Chrome]:
    """The page, freshly opened; after the test: nothing on the console, and nothing fetched but the file itself."""
    chromium.get(address)
    yield chromium
    assert chromium.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    fetched = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert address in fetched
    assert [url for url in fetched if url.partition("#")[0] != address and not url.startswith("data:")] == []


def entry(browser: webdriver.Chrome, name: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f'.entry[data-name="{name}"]')


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def test_an_entry_opens_its_trials_and_closes(browser: webdriver.Chrome, contents: Contents) -> None:
    cells = contents.cells[contents.cells["losses"] == "ce+ssl+dist"]
    entry(browser, "ce+ssl+dist / resnet50").click()
    rows = [
        [cell.text for cell in row.find_elements(By.TAG_NAME, "td")][:4]
        for row in browser.find_elements(By.CSS_SELECTOR, ".drill tbody tr")
    ]
    accuracies = ["" if pd.isna(value) else f"{value:.2f}" for value in cells["target_accuracy"]]
    expected = list(map(list, zip(cells["pair"], map(str, cells["seed"]), cells["status"], accuracies, strict=True)))
    assert rows == expected
    entry(browser, "ce / resnet50").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, ".drill")) == 1
    browser.find_element(By.CSS_SELECTOR, ".drill .close").click()
    assert not browser.find_elements(By.CSS_SELECTOR, ".drill")
    assert not browser.find_elements(By.CSS_SELECTOR, ".entry[aria-expanded=true]")


def test_a_trial_shows_its_curve_its_config_and_its_origin(browser: webdriver.Chrome, contents: Contents) -> None:
    entry(browser, "ce+dist / resnet50").click()
    done = browser.find_element(By.CSS_SELECTOR, ".drill tr.done")
    done.find_element(By.CSS_SELECTOR, ".trial").send_keys(Keys.ENTER)
    path = browser.find_element(By.CSS_SELECTOR, ".detail svg.curve .target_accuracy").get_attribute("d") or ""
    row = contents.cells[(contents.cells["losses"] == "ce+dist") & (contents.cells["status"] == "done")].iloc[0]
    assert len(re.findall("[ML]", path)) == (contents.curves["cell"] == row["cell"]).sum() == 21
    detail = browser.find_element(By.CSS_SELECTOR, ".detail").text
    versions, usual = "python 3.11.2, torch 2.14.1", "losses = ce+dist, one of 8 values"
    for expected in (row["cell"], "0123abc", versions, "sha-mnist", usual):
        assert expected in detail, expected
    done.find_element(By.CSS_SELECTOR, ".trial").click()
    assert not browser.find_elements(By.CSS_SELECTOR, ".detail")


def test_a_failed_trial_leads_to_its_cause(browser: webdriver.Chrome, contents: Contents) -> None:
    losses = contents.cells.loc[contents.cells["status"] == "failed", "losses"].iloc[0]
    entry(browser, f"{losses} / resnet50").click()
    browser.find_element(By.CSS_SELECTOR, ".drill tr.failed .trial").click()
    link = browser.find_element(By.CSS_SELECTOR, ".detail a")
    target = (link.get_attribute("href") or "").partition("#")[2]
    link.click()
    assert browser.current_url.endswith(f"#{target}")
    assert browser.find_element(By.ID, target).get_attribute("data-cause") in texts(browser, f"#{target} .error")


def test_a_heading_sorts_by_mouse_and_keyboard_with_empty_cells_last(browser: webdriver.Chrome) -> None:
    browser.execute_script("document.querySelector('#records details').open = true")
    headings = browser.find_elements(By.CSS_SELECTOR, "#records .sort")
    number = [heading.text for heading in headings].index("target_accuracy")
    column = f"#records tbody td:nth-child({number + 1})"
    headings[number].click()
    shown = texts(browser, column)
    measured = [text for text in shown if text]
    assert shown == sorted(measured, key=float) + [""] * (len(shown) - len(measured))
    assert 0 < len(measured) < len(shown)
    heading = headings[number]
    heading.send_keys(Keys.ENTER)
    assert texts(browser, column)[: len(measured)] == measured[::-1]
    assert heading.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"


def test_a_grid_sorts_by_its_means(browser: webdriver.Chrome, contents: Contents) -> None:
    (grid,) = (
        grid for grid in grids(contents.cells) if (grid.form, grid.metric) == ("losses_by_backbone", "target_accuracy")
    )
    browser.find_elements(By.CSS_SELECTOR, "table.grid .sort")[1].click()
    rows = browser.find_element(By.CSS_SELECTOR, "table.grid").find_elements(By.CSS_SELECTOR, "tbody th")
    assert [row.text for row in rows] == sorted(grid.rows, key=lambda row: grid.entries[row, "resnet50"].mean or 0)


def test_a_groups_label_stays_above_its_rows(browser: webdriver.Chrome) -> None:
    table = browser.find_element(By.XPATH, "//table[.//tr[@class='group']]")
    before = [row.text for row in table.find_elements(By.CSS_SELECTOR, "tbody th")]
    table.find_elements(By.CSS_SELECTOR, ".sort")[0].click()
    after = [row.text for row in table.find_elements(By.CSS_SELECTOR, "tbody th")]
    assert before[0] == after[0] == "resnet50, random weights"
    assert before[1] == "source_only"
    assert after[1:] == sorted(before[1:])


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_usable_on_a_narrow_screen_and_in_the_dark(browser: webdriver.Chrome, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": 500, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    entry(browser, "ce+dist / resnet50").click()
    browser.find_element(By.CSS_SELECTOR, ".drill .trial").click()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 500
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
