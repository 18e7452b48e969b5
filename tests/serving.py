"""A service on loopback, with its real server, in a thread of the tests."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests
import uvicorn

from scale_ray.client import Client
from scale_ray.service.access import create_token
from scale_ray.service.app import app_of
from scale_ray.service.service import Service
from scale_ray.service.settings import settings_of

STUDY = {"study": {"name": "try", "steps": 10, "axes": {"seed": [0, 1], "pair": ["mnist:mnistm"], "losses": ["ce"]}}}


def study(name: str, **more: object) -> dict[str, object]:
    return {**STUDY, "study": {**STUDY["study"], "name": name}, **more}


class Served:
    """A service, and clients of it."""

    def __init__(self, service: Service, port: int):
        self.service, self.url = service, f"http://127.0.0.1:{port}"

    def token(self, owner: str = "ann", scope: str = "submit") -> str:
        return create_token(self.service.database, owner, scope)

    def client(self, owner: str = "ann", scope: str = "submit") -> Client:
        return Client(self.url, self.token(owner, scope))

    def get(self, path: str, token: str | None = None, **more: object) -> requests.Response:
        return self.ask("GET", path, token, **more)

    def ask(self, method: str, path: str, token: str | None = None, **more: object) -> requests.Response:
        headers: Mapping[str, str] = more.pop("headers", {})  # type: ignore[assignment]
        own = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.request(method, self.url + path, headers={**own, **headers}, timeout=600, **more)  # type: ignore[arg-type]


@contextmanager
def served(folder: Path, *, jobs: object = None, seconds: float = 0.2, **values: object) -> Iterator[Served]:
    """A service whose files are in the folder. By default no cluster answers."""
    given = {"stores": {"default": str(folder / "store")}, "ray": "http://127.0.0.1:9", **values}
    settings = settings_of({"database": f"sqlite:///{folder}/service.db", **given}, "test")
    service = Service(settings, jobs, seconds=seconds)  # type: ignore[arg-type]
    config = uvicorn.Config(app_of(service), host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield Served(service, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
