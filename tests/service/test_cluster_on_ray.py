"""A service beside a cluster that is not its own: the head is lost, and owners share its places."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from services import FOREVER, LIMIT, Command, ends_as_undisturbed, submission, trains, until

from scale_ray.service.local_ray import free_port

pytestmark = pytest.mark.slow


class Head:
    """A Ray's head on this machine that may be lost and come back at its address."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        folder = Path(tempfile.mkdtemp(dir=os.environ["RAY_TMPDIR"]))
        line = [sys.executable, "-m", "scale_ray.service.local_ray", str(self._port), str(folder)]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=log, stderr=log)
        until(self._answers, "Ray does not start")

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            return bool(requests.get(f"{self.url}/api/version", timeout=60).status_code)  # it may ask for Ray's token
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """SIGKILL for every process of it, trainings and drivers included."""
        head = psutil.Process(self._process.pid)
        for process in [head, *head.children(recursive=True)]:
            process.kill()
        self.end()

    def end(self) -> None:
        """Close its standard input, at whose end it ends, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(LIMIT)


@pytest.fixture
def head() -> Iterator[Head]:
    found = Head()
    found.start()
    yield found
    found.end()


def test_a_study_outlives_the_cluster(head: Head, tmp_path: Path, tiny_root: Path) -> None:
    service, asked = Command(tmp_path, tiny_root, head.url), submission("outlives", seed=[0, 1])
    service.start()
    service.client.submit(asked)
    until(lambda: trains(service.client, "outlives"), "nothing trains")
    head.kill()
    until(lambda: not requests.get(f"{service.url}/healthz", timeout=60).json()["cluster"], "its loss is not seen")
    head.start()
    ends_as_undisturbed(service, asked, tiny_root, tmp_path / "undisturbed")
    assert service.client.study("outlives")["attempt"] == 2
    service.end()


def test_owners_do_not_wait_for_each_other_and_a_higher_priority_comes_first(
    head: Head, tmp_path: Path, tiny_root: Path
) -> None:
    more = ["places = 2", "[quota]", "places = 1"]
    service = Command(tmp_path, tiny_root, head.url, more)
    service.start()
    ann, ben = service.client, service.client_of("ben")

    def running(name: str) -> int:
        return sum(cell["status"] == "running" for cell in ann.cells(name).values())

    ann.submit(submission("anns", FOREVER, seed=[0, 1]))
    until(lambda: running("anns") == 1, "the first study does not run")
    assert ann.study("anns")["places"] == 1  # a place is free, but not for her
    ben.submit(submission("bens", FOREVER, seed=[2]))
    until(lambda: running("bens") == 1, "the second owner waits for the first")
    assert (running("anns"), running("bens")) == (1, 1)

    ann.submit({**submission("urgent", FOREVER, seed=[3]), "priority": 5})
    until(lambda: running("urgent") == 1, "the higher priority does not come first")
    until(lambda: ann.study("anns")["state"] != "ending", "the first study does not give way")
    assert (running("anns"), running("bens")) == (0, 1)
    waits = ann.study("anns")
    assert (waits["state"], waits["problem"]) == ("waiting", "other studies use the places, or a quota is used up")
    assert ben.study("bens")["attempt"] == 1

    ann.cancel("urgent")
    until(lambda: running("anns") == 1, "the first study does not go on")
    ann.cancel("anns")
    ben.cancel("bens")
    until(lambda: {each["state"] for each in ann.studies()} == {"cancelled"}, "they are not cancelled")
    service.end()
