"""A local S3 server by moto, with a bucket and switches that make it fail."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

# Of a test that takes long on S3: there it is one of the slow tests.
SLOW_ON_S3 = pytest.mark.parametrize("location", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class S3Server:
    """An S3 server in this process; `s3_server` creates the bucket."""

    bucket = "bucket"
    _prefixes = itertools.count()  # shared by all servers, because moto's content belongs to the whole process

    def __init__(self, port: int = 0) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no log line per request
        self._moto: Application = DomainDispatcherApplication(create_backend_app)
        self._failing = threading.Event()
        self.asked: list[tuple[str, str, str]] = []  # method, path and query of every request, failed ones included
        self._server = make_server("127.0.0.1", port, self._answer, threaded=True, request_handler=MotoRequestHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.port}"

    @property
    def requests(self) -> int:
        """How many were received."""
        return len(self.asked)

    def new_url(self) -> str:
        """A prefix of the bucket that nothing else uses."""
        return f"s3://{self.bucket}/prefix-{next(self._prefixes)}"

    def environment(self) -> dict[str, str]:
        """Environment variables that a process needs to reach the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Answer every request with 503."""
        self._failing.set()
        try:
            yield
        finally:
            self._failing.clear()

    def fail_for(self, seconds: float) -> None:
        """Answer every request with 503 for this long, from now on."""
        self._failing.set()
        threading.Timer(seconds, self._failing.clear).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]))
        if self._failing.is_set():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _unavailable(start_response)
        return self._moto(environ, start_response)


def _unavailable(start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "application/xml"), ("Connection", "close")])
    return [b"<Error><Code>ServiceUnavailable</Code><Message>Please reduce your request rate.</Message></Error>"]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with an empty bucket; the environment of this process and its children points to it."""
    server = S3Server()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment().items():
                patch.setenv(name, value)
            s3fs.S3FileSystem.clear_instance_cache()  # of a server before this one
            s3fs.S3FileSystem(skip_instance_cache=True).makedirs(server.bucket, exist_ok=True)
            yield server
    finally:
        server.stop()


@contextmanager
def without_credentials() -> Iterator[None]:
    """Take away what this process needs to be let in; the server's address stays."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            patch.setenv(name, "/dev/null")
        s3fs.S3FileSystem.clear_instance_cache()
        yield
    s3fs.S3FileSystem.clear_instance_cache()
