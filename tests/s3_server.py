"""moto's S3 on loopback, with a bucket, and a switch that makes it fail for a while."""

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

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class S3Server:
    """An S3 server in this process; `s3_server` makes the bucket."""

    bucket = "bucket"
    _places = itertools.count()  # of all servers: what moto keeps, it keeps for the whole process

    def __init__(self, port: int = 0) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line a request
        self._moto: Application = DomainDispatcherApplication(create_backend_app)
        self._writing = threading.Lock()
        self._failing = threading.Event()
        self.requests = 0  # how many arrived, failed ones too
        self.lose_answers = 0  # of so many PUTs from now on, the answer is lost after the deed
        self.terse = False  # as servers that do not name the condition which failed
        self.unconditional = False  # as old servers that do not know conditional PUTs
        self._server = make_server("127.0.0.1", port, self._answer, threaded=True, request_handler=MotoRequestHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.port}"

    def new_url(self) -> str:
        """A place in the bucket that nothing else uses."""
        return f"s3://{self.bucket}/place-{next(self._places)}"

    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
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
        """Answer 503 to everything."""
        self._failing.set()
        try:
            yield
        finally:
            self._failing.clear()

    def fail_for(self, seconds: float) -> None:
        """Answer 503 to everything for a while, from now on."""
        self._failing.set()
        threading.Timer(seconds, self._failing.clear).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.requests += 1
        if self._failing.is_set():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _unavailable(start_response)
        if environ["REQUEST_METHOD"] != "PUT":
            return self._moto(environ, start_response)
        if self.unconditional:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        # S3 decides a conditional PUT atomically; moto looks first and writes then.
        with self._writing:
            if self.lose_answers:
                self.lose_answers -= 1
                b"".join(self._moto(environ, lambda *_, **__: None))
                return _unavailable(start_response)
            answer = b"".join(self._moto(environ, start_response))
            return [answer.replace(b"<Condition>If-None-Match</Condition>", b" " * 38) if self.terse else answer]


def _unavailable(start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "application/xml"), ("Connection", "close")])
    return [b"<Error><Code>ServiceUnavailable</Code><Message>Please reduce your request rate.</Message></Error>"]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with an empty bucket, and the environment in which this process and its children reach it."""
    server = S3Server()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment().items():
                patch.setenv(name, value)
            s3fs.S3FileSystem(skip_instance_cache=True).makedirs(server.bucket, exist_ok=True)
            yield server
    finally:
        server.stop()
