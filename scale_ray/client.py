"""A client of the service: what a program does over HTTP, in a few methods."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from scale_ray.errors import UserError

_SERVER = "http://127.0.0.1:8700"
_SECONDS = 600  # for an answer: planning many images takes minutes
_OVER = ("done", "failed", "cancelled", "paused")


class ServiceError(UserError):
    """The service does not answer, or refuses; the message is its own.

    Attributes:
        status: HTTP status; None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Client:
    """A service at an URL.

    Args:
        server: URL of the service; by default what SCALE_RAY_SERVER holds, or http://127.0.0.1:8700.
        token: from `scale-ray token create`; by default what SCALE_RAY_TOKEN holds, or the file that it names as @FILE.

    Raises:
        ServiceError: from every method, where the service does not answer or refuses.

    Examples:
        >>> client = Client("http://127.0.0.1:8700", token="sr_…")  # doctest: +SKIP
        >>> client.submit({"study": {"name": "try", "axes": {"seed": [0, 1, 2]}}})  # doctest: +SKIP
    """

    def __init__(self, server: str | None = None, token: str | None = None):
        self.server = (server or os.environ.get("SCALE_RAY_SERVER") or _SERVER).rstrip("/")
        if not self.server.startswith(("http://", "https://")):
            raise ServiceError(f"{self.server}: no URL of a service: write http://{self.server}")
        token = token if token is not None else os.environ.get("SCALE_RAY_TOKEN", "")
        if token.startswith("@"):
            try:
                token = Path(token[1:]).expanduser().read_text().strip()
            except OSError as error:
                raise ServiceError(f"SCALE_RAY_TOKEN={token}: cannot be read ({error.strerror})") from None
        self._session = requests.Session()
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def plan(self, submission: Mapping[str, Any]) -> dict[str, Any]:
        """What a submission comes to: cells, steps, estimated seconds. Nothing is submitted."""
        return self._ask("POST", "/api/studies?dry_run=1", submission)["plan"]

    def submit(self, submission: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a study; the same one again changes nothing. Returns its plan, the study, and whether it is `new`."""
        return self._ask("POST", "/api/studies", submission)

    def studies(self) -> list[dict[str, Any]]:
        """All studies, the newest first."""
        return self._ask("GET", "/api/studies")

    def study(self, name: str) -> dict[str, Any]:
        """One study: its state, and how far it is."""
        return self._ask("GET", _path(name))

    def cells(self, name: str) -> dict[str, dict[str, Any]]:
        """The state of each of its cells, by id."""
        return self._ask("GET", f"{_path(name)}/cells")

    def pause(self, name: str) -> dict[str, Any]:
        """End its job once every training has saved its state."""
        return self._ask("POST", f"{_path(name)}/pause")

    def resume(self, name: str) -> dict[str, Any]:
        """Go on with a study that was paused, cancelled or has failed."""
        return self._ask("POST", f"{_path(name)}/resume")

    def cancel(self, name: str) -> dict[str, Any]:
        """End it; what is done stays in the store."""
        return self._ask("POST", f"{_path(name)}/cancel")

    def retry(self, name: str) -> dict[str, Any]:
        """Train its failed cells again."""
        return self._ask("POST", f"{_path(name)}/retry")

    def extend(self, name: str, axes: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Add values to its axes: `client.extend("try", {"seed": [3, 4]})`."""
        return self._ask("POST", f"{_path(name)}/extend", {"axes": axes})

    def reweigh(self, name: str, *, priority: int | None = None, share: float | None = None) -> dict[str, Any]:
        """Change its priority or its share of places."""
        weights = {"priority": priority, "share": share}
        given = {key: value for key, value in weights.items() if value is not None}
        return self._ask("PATCH", _path(name), given)

    def log(self, name: str) -> str:
        """What its job has printed."""
        return self._send("GET", f"{_path(name)}/log").text

    def follow(self, name: str, *, every: float = 2.0) -> Iterator[dict[str, Any]]:
        """The study again and again, until it is over or paused."""
        while True:
            found = self.study(name)
            yield found
            if found["state"] in _OVER:
                return
            time.sleep(every)

    def page(self, name: str) -> str:
        """The URL of its page."""
        return f"{self.server}/studies/{quote(name, safe='')}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return self._send(method, path, body).json()

    def _send(self, method: str, path: str, body: Any = None) -> requests.Response:
        try:
            response = self._session.request(method, self.server + path, json=body, timeout=_SECONDS)
        except requests.RequestException as error:
            why = type(error).__name__
            raise ServiceError(f"{self.server}: no answer ({why}): is `scale-ray serve` running there?") from None
        if not response.ok:
            raise ServiceError(f"{self.server}: {_problem(response)}", response.status_code)
        return response


def _path(name: str) -> str:
    return f"/api/studies/{quote(name, safe='')}"


def _problem(response: requests.Response) -> str:
    """What an answer says is wrong, in lines."""
    try:
        found = response.json()
    except json.JSONDecodeError:
        return f"HTTP {response.status_code}"
    if "error" in found:
        return str(found["error"])
    return str(found.get("detail", found))
