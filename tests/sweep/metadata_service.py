"""The clouds' metadata services of a spot machine, on loopback."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest


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


@contextmanager
def metadata_service() -> Iterator[type[Metadata]]:
    """The services; the environment of this process and its children points to them."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Metadata.taken_away, Metadata.asked = False, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        yield Metadata
    server.shutdown()
    server.server_close()
    thread.join()
