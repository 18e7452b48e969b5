"""A service on a real Ray: studies submitted, paused, killed, changed and looked at in a real browser."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from browsers import chromium_at, needs_chromium
from selenium.webdriver.common.by import By
from services import (
    FOREVER,
    STEPS,
    Command,
    accessible,
    drivers,
    ends_as_undisturbed,
    entries,
    press,
    said,
    sign_in,
    state,
    submission,
    text_of,
    trains,
    until,
)
from studies import descendants

from scale_ray.store import Store


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Iterator[Command]:
    found = Command(tmp_path_factory.mktemp("service"), tiny_root)
    found.start()
    yield found
    (folder,) = Path(os.environ["RAY_TMPDIR"]).glob("sr_*")
    found.end()
    assert not folder.exists()  # Ray's files are gone with it


def test_a_study_whose_driver_is_killed_ends_with_the_undisturbed_records(
    service: Command, tiny_root: Path, tmp_path: Path
) -> None:
    client, asked = service.client, submission("killed")
    assert client.plan(asked)["steps"] == 2 * STEPS
    client.submit(asked)
    until(lambda: trains(client, "killed"), "nothing trains")
    (driver,) = drivers(service.store)
    driver.send_signal(signal.SIGKILL)
    ends_as_undisturbed(service, asked, tiny_root, tmp_path / "undisturbed")
    assert client.study("killed")["attempt"] == 2
    assert "2 done, 0 failed, 0 to do" in client.log("killed")
    signed = {"Authorization": f"Bearer {service.token}"}
    assert "All 2 cells are done." in requests.get(f"{service.url}/studies/killed/report.html", headers=signed).text


@pytest.mark.slow
def test_a_killed_service_that_is_started_again_goes_on(service: Command, tiny_root: Path, tmp_path: Path) -> None:
    """Its Ray dies with it, so the study is resumed on a new cluster."""
    client, asked = service.client, submission("outlives", seed=[5, 6])
    client.submit(asked)
    until(lambda: trains(client, "outlives"), "nothing trains")
    service.process.kill()
    service.process.wait()
    service.start()
    ends_as_undisturbed(service, asked, tiny_root, tmp_path / "undisturbed")


@needs_chromium
def test_in_a_browser_a_study_is_submitted_fills_is_changed_and_ends(service: Command, tmp_path: Path) -> None:
    with chromium_at(tmp_path) as browser:
        browser.set_window_size(400, 900)
        browser.get(service.url)
        assert browser.current_url.endswith("/login")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        browser.set_window_size(1440, 1200)
        sign_in(browser, service)
        accessible(browser)
        text = json.dumps(submission("seen", FOREVER, losses=["ce+ssl+reg"]))
        browser.execute_script("document.getElementById('document').value = arguments[0]", text)
        browser.find_element(By.ID, "plan").click()
        until(lambda: said(browser).startswith("seen: 1 cell, 0 done, 1 to do"), "no plan")
        browser.find_element(By.CSS_SELECTOR, "#submit form button:not([type])").click()
        until(lambda: browser.current_url.endswith("/studies/seen"), "it is not shown")

        until(lambda: "1 running" in entries(browser)[0], "its place does not fill")
        assert "missing" not in entries(browser)[0]
        accessible(browser)
        press(browser, "pause")
        until(lambda: state(browser) == "paused", "it is not paused")
        assert Store(service.store).checkpoint_keys()  # by order: no other was due
        press(browser, "resume")
        until(lambda: state(browser) == "running", "it does not go on")
        browser.find_element(By.NAME, "seeds").send_keys("1")
        browser.find_element(By.CSS_SELECTOR, "#seeds button").click()
        until(lambda: "of 2 cells" in text_of(browser, "counts"), "no seed was added")
        until(lambda: "2 running" in entries(browser)[0], "the new seed does not run")
        browser.set_window_size(400, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        accessible(browser)
        press(browser, "cancel")
        browser.switch_to.alert.accept()
        until(lambda: state(browser) == "cancelled", "it is not cancelled")
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@needs_chromium
@pytest.mark.slow
def test_in_a_browser_a_study_that_is_done_has_its_report(service: Command, tmp_path: Path) -> None:
    service.client.submit(submission("reported", 20))
    until(lambda: service.client.study("reported")["state"] == "done", "it does not end")
    with chromium_at(tmp_path) as browser:
        browser.get(service.url)
        sign_in(browser, service)
        browser.get(f"{service.url}/studies/reported")
        until(lambda: state(browser) == "done", "it is not done")
        browser.find_element(By.CSS_SELECTOR, "button.entry").click()
        browser.find_element(By.CSS_SELECTOR, ".drill button.trial").click()
        until(lambda: browser.find_elements(By.CSS_SELECTOR, ".drill svg.curve path.line"), "its curve is not drawn")
        browser.get(f"{service.url}/studies/reported/report.html")
        assert "All 2 cells are done." in browser.find_element(By.ID, "answer").text
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@needs_chromium
@pytest.mark.slow
def test_in_a_browser_a_cell_whose_training_is_killed_again_and_again_fails_and_is_tried_again(
    service: Command, tmp_path: Path
) -> None:
    with chromium_at(tmp_path) as browser:
        browser.get(f"{service.url}/login")
        sign_in(browser, service)
        service.client.submit(submission("mortal", FOREVER, losses=["ce"]))
        browser.get(f"{service.url}/studies/mortal")
        until(lambda: trains(service.client, "mortal"), "nothing trains")

        def fails() -> bool:
            for pid, name in descendants(service.process.pid):
                if name.startswith("ray::ImplicitFunc"):  # the process of a training
                    os.kill(pid, signal.SIGKILL)
            return state(browser) == "failed"

        until(fails, "its cell does not fail")
        assert "1 of 1 cell failed" in text_of(browser, "problem")
        until(lambda: "1 failed" in entries(browser)[0], "its place does not say that it has failed")
        browser.find_element(By.CSS_SELECTOR, "button.entry").click()
        until(lambda: "TrialLost" in browser.find_element(By.TAG_NAME, "body").text, "no cause")
        accessible(browser)
        press(browser, "retry")
        until(lambda: "1 running" in entries(browser)[0], "it is not tried again")
        until(lambda: state(browser) == "running", "its study does not run again")
        press(browser, "cancel")
        browser.switch_to.alert.accept()
        until(lambda: state(browser) == "cancelled", "it is not cancelled")
