"""A service on a real Ray: studies submitted, paused, killed, changed and looked at in a real browser."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
from axe_core_python.selenium import Axe
from browsers import chromium_at, needs_chromium
from selenium import webdriver
from selenium.webdriver.common.by import By
from studies import LIMIT
from tiny_trial import TINY

from scale_ray.client import Client
from scale_ray.config import Execution
from scale_ray.service.access import create_token
from scale_ray.service.database import Database
from scale_ray.service.submission import Submission
from scale_ray.store import Store
from scale_ray.training.trial import run_trial

STEPS = 300  # some seconds a cell: long enough to be stopped in the middle
FOREVER = 1_000_000


def submission(name: str, steps: int = STEPS, **axes: list[object]) -> dict[str, object]:
    base = {**TINY, "optim.steps": steps, "evaluate_every": 50}
    return {
        "study": {"name": name, "base": base, "axes": {"seed": [0], "losses": ["ce", "ce+ssl"], **axes}},
        "root": "tiny",
        "run": {"checkpoint_every": 100_000},  # nothing is saved but by order
    }


class Command:
    """`scale-ray serve --own-ray` in a process of its own, which may be killed and started again."""

    def __init__(self, folder: Path, root: Path):
        self.store, self._settings, self._log = folder / "store", folder / "service.toml", folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        database = f"sqlite:///{folder}/service.db"
        lines = [f'database = "{database}"', f"port = {self.port}", "[stores]", f'default = "{self.store}"']
        # The test asks more often than a person.
        lines += ["[roots]", f'tiny = "{root}"', "[limits]", "requests_a_minute = 100000"]
        self._settings.write_text("\n".join(lines))
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = create_token(Database(database), "ann", "submit")
        self.client = Client(self.url, self.token)

    def start(self) -> None:
        line = [sys.executable, "-m", "scale_ray.cli", "serve", str(self._settings), "--own-ray"]
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(line, stdout=out, stderr=out)
        until(self._answers, "the service does not start")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        try:
            return bool(requests.get(f"{self.url}/healthz", timeout=60).json()["rounds"])
        except requests.RequestException:
            return False

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(LIMIT)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Iterator[Command]:
    found = Command(tmp_path_factory.mktemp("service"), tiny_root)
    found.start()
    yield found
    found.end()


def until(true: Callable[[], object], what: str) -> None:
    """Wait until something is true; give up only where it hangs."""
    latest = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < latest, what
        time.sleep(0.1)


def drivers(store: Path) -> list[psutil.Process]:
    """The processes that run a study of the store."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "scale_ray.service.driver" in (line := process.info["cmdline"] or [])
        and str(store) in line
        and line[0] != "/bin/sh"
    ]


def trains(client: Client, name: str) -> bool:
    """Whether a cell of the study has come to a point of its curve, and none has ended."""
    return ": step " in client.log(name)


def ends_as_undisturbed(service: Command, asked: dict[str, object], root: Path, folder: Path) -> None:
    """Wait for the end of a study, and compare its records with those of trainings that nothing disturbed."""
    name, store = asked["study"]["name"], Store(service.store)  # type: ignore[index]
    until(lambda: service.client.study(name)["state"] == "done", "it does not end")
    undisturbed = Store(folder, create=True)
    for config in Submission.parse(asked).study.study().cells():
        record = run_trial(config, Execution(root=root, device="cpu"), undisturbed)
        there = store.read_record(record.id)
        assert there is not None
        assert there.result == record.result


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
        browser.find_element(By.NAME, "token").send_keys(service.token)
        browser.find_element(By.CSS_SELECTOR, "form button").click()
        accessible(browser)
        text = json.dumps(submission("seen", FOREVER, losses=["ce+ssl+reg"]))
        browser.execute_script("document.getElementById('document').value = arguments[0]", text)
        browser.find_element(By.ID, "plan").click()
        until(lambda: said(browser).startswith("seen: 1 cells, 0 done, 1 to do"), "no plan")
        browser.find_element(By.CSS_SELECTOR, "#submit form button:not([type])").click()
        until(lambda: browser.current_url.endswith("/studies/seen"), "it is not shown")

        until(lambda: "1 running" in entries(browser)[0], "its place does not fill")
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

        browser.get(f"{service.url}/studies/killed")
        until(lambda: state(browser) == "done", "it is not done")
        browser.get(f"{service.url}/studies/killed/report.html")
        assert "All 2 cells are done." in browser.find_element(By.ID, "answer").text
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def accessible(browser: webdriver.Chrome) -> None:
    """axe-core finds nothing serious on the page."""
    found = Axe().run(browser)["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in serious] == []


def text_of(browser: webdriver.Chrome, name: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0])?.textContent ?? ''", name))


def said(browser: webdriver.Chrome) -> str:
    return text_of(browser, "said")


def state(browser: webdriver.Chrome) -> str:
    return text_of(browser, "state")


def entries(browser: webdriver.Chrome) -> list[str]:
    """The texts of the grids' places."""
    found = browser.execute_script(
        "return [...document.querySelectorAll('button.entry')].map((each) => each.innerText)"
    )
    return list(found) or [""]


def press(browser: webdriver.Chrome, action: str) -> None:
    button = browser.find_element(By.CSS_SELECTOR, f"[data-action={action}]")
    until(button.is_displayed, f"no button {action}")
    button.click()
