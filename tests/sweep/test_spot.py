"""The watcher of spot notices against metadata services that answer as the clouds document."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from studies import LIMIT

from scale_ray.sweep import spot


class Metadata(BaseHTTPRequestHandler):
    """Both clouds' services. AWS wants a token of this session, Google a header."""

    taken_away = False
    asked: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
        self._answer(200, "token")

    def do_GET(self) -> None:
        Metadata.asked.append(self.path)
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != "token":
                self._answer(401, "")
            elif Metadata.taken_away:
                moment = datetime.now(UTC) + timedelta(seconds=110)
                self._answer(200, json.dumps({"action": "terminate", "time": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}))
            else:
                self._answer(404, "")
        else:
            assert self.path == "/computeMetadata/v1/instance/preempted"
            assert self.headers["Metadata-Flavor"] == "Google"
            self._answer(200, "TRUE" if Metadata.taken_away else "FALSE")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Metadata]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    Metadata.taken_away, Metadata.asked = False, []
    yield Metadata
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("cloud", spot.CLOUDS)
def test_a_notice_is_heard(cloud: str, metadata: type[Metadata]) -> None:
    assert spot.CLOUDS[cloud]() is None
    metadata.taken_away = True
    seconds = spot.CLOUDS[cloud]()
    assert seconds is not None
    assert 0 <= seconds <= 110


@pytest.mark.parametrize("cloud", spot.CLOUDS)
def test_a_service_that_does_not_answer_is_asked_again(
    cloud: str, metadata: type[Metadata], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    assert spot._seconds_left(spot.CLOUDS[cloud]) is None


def test_the_command_drains_the_node(metadata: type[Metadata]) -> None:
    """Ray answers that no such cluster is there: the notice has led to `ray drain-node`."""
    metadata.taken_away = True
    line = [sys.executable, "-m", "scale_ray.sweep.spot", "aws", "--address", "127.0.0.1:1", "--node-id", "f" * 56]
    environment = os.environ | {"RAY_gcs_rpc_server_connect_timeout_s": "1"}
    ended = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment)
    assert "this machine will be taken away in" in ended.stdout
    assert "drain-node" in ended.stderr
    assert ended.returncode != 0
