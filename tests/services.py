"""The service as a command on a real Ray, for tests: started, killed, asked, looked at."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import requests
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.common.by import By
from studies import LIMIT
from tiny_trial import TINY

from scale_ray.client import Client
from scale_ray.config import Execution
from scale_ray.service.access import create_token
from scale_ray.service.database import Database
from scale_ray.service.local_ray import free_port
from scale_ray.service.submission import Submission
from scale_ray.store import Store
from scale_ray.training.trial import run_trial

STEPS = 150  # long enough to be stopped in the middle
FOREVER = 1_000_000


def submission(name: str, steps: int = STEPS, **axes: list[object]) -> dict[str, Any]:
    base = {**TINY, "optim.steps": steps, "evaluate_every": 50}
    return {
        "study": {"name": name, "base": base, "axes": {"seed": [0], "losses": ["ce", "ce+ssl"], **axes}},
        "root": "tiny",
        "run": {"checkpoint_every": 100_000},  # nothing is saved but by order
    }


class Command:
    """`scale-ray serve` in a process of its own, which may be killed and started again.

    Without the address of a cluster, it has a Ray of its own. `more` are further lines of its settings.
    """

    def __init__(self, folder: Path, root: Path, ray: str = "", more: Sequence[str] = ()):
        self.store, self._settings, self._log = folder / "store", folder / "service.toml", folder / "log"
        self._own = [] if ray else ["--own-ray"]
        self._misleading = folder / "here"  # where it is started: nothing there is imported, whatever its name
        self._misleading.mkdir()
        for name in ("click", "json", "torch"):
            (self._misleading / f"{name}.py").write_text("raise ImportError")
        self.port = free_port()
        database = f"sqlite:///{folder}/service.db"
        lines = [f'database = "{database}"', f"port = {self.port}", f'python = "{sys.executable}"']
        lines += [*([f'ray = "{ray}"'] if ray else []), *more]
        lines += ["[stores]", f'default = "{self.store}"', "[roots]", f'tiny = "{root}"']
        # The test asks more often than a person.
        lines += ["[limits]", "requests_a_minute = 100000"]
        self._settings.write_text("\n".join(lines))
        self.url = f"http://127.0.0.1:{self.port}"
        self._database = Database(database)
        self.token = create_token(self._database, "ann", "submit")
        self.client = Client(self.url, self.token)

    def client_of(self, owner: str) -> Client:
        return Client(self.url, create_token(self._database, owner, "submit"))

    def start(self) -> None:
        line = [sys.executable, "-P", "-m", "scale_ray.cli", "serve", str(self._settings), *self._own]
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(line, stdout=out, stderr=out, cwd=self._misleading)
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


def ends_as_undisturbed(service: Command, asked: dict[str, Any], root: Path, folder: Path) -> None:
    """Wait for the end of a study, and compare its records with those of trainings that nothing disturbed."""
    name, store = asked["study"]["name"], Store(service.store)
    until(lambda: service.client.study(name)["state"] == "done", "it does not end")
    undisturbed = Store(folder, create=True)
    for config in Submission.parse(asked).study.study().cells():
        record = run_trial(config, Execution(root=root, device="cpu"), undisturbed)
        there = store.read_record(record.id)
        assert there is not None
        assert there.result == record.result


def accessible(browser: webdriver.Chrome) -> None:
    """axe-core finds nothing serious on the page."""
    found = Axe().run(browser)["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in serious] == []


def sign_in(browser: webdriver.Chrome, service: Command) -> None:
    browser.find_element(By.NAME, "token").send_keys(service.token)
    browser.find_element(By.CSS_SELECTOR, "form button").click()


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
