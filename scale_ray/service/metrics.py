"""What Prometheus reads."""

import collections
import time
from collections.abc import Sequence
from statistics import median
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scale_ray.service.database import OVER, STATES, StudyRow
from scale_ray.service.service import Service
from scale_ray.service.watch import CellStatus


class Requests:
    """Requests by method, route and status, and the seconds to the head of their answer."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ["method", "route", "status"]
        about = "Seconds from a request to the head of its answer"
        self._seconds = Histogram("scale_ray_request_seconds", about, labels, registry=self._registry)

    def text(self) -> str:
        return generate_latest(self._registry).decode()

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answer. Paths that no route has count as one: whoever asks must not make up labels."""
        route = getattr(scope.get("route"), "path", "none")
        self._seconds.labels(scope["method"] if route != "none" else "any", route, status).observe(seconds)


class Counted:
    """Counts every request to an application."""

    def __init__(self, app: ASGIApp, requests: Requests):
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._requests.add(scope, message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, answer if scope["type"] == "http" else send)


def metrics(service: Service) -> str:
    """The service's figures in the text format of Prometheus, from the table and the last looks: it asks no store."""
    registry, rows = CollectorRegistry(), service.database.studies()
    of_state = collections.Counter(row.state for row in rows)
    studies = Gauge("scale_ray_studies", "Studies by state; `waiting` is the queue", ["state"], registry=registry)
    for state in STATES:
        studies.labels(state).set(of_state[state])
    _of_cells(service, rows, registry)
    places = Gauge("scale_ray_places", "Trainings that studies may run at once, by owner", ["owner"], registry=registry)
    for row in rows:
        places.labels(row.owner).inc(row.places)
    requests = Counter("scale_ray_store_requests", "Listings and readings of a store", ["store"], registry=registry)
    for name, watch in service.watches.items():
        requests.labels(name).inc(watch.requests)
    _of_cluster(service, registry)
    Counter("scale_ray_rounds", "Rounds of the reconciler", registry=registry).inc(service.rounds)
    Counter("scale_ray_faults", "Rounds that failed", registry=registry).inc(service.faults)
    Gauge("scale_ray_listeners", "Pages that listen to events", registry=registry).set(service.listeners)
    return generate_latest(registry).decode()


def _of_cells(service: Service, rows: Sequence[StudyRow], registry: CollectorRegistry) -> None:
    """The cells of studies that are not over, and how fast those train that do."""
    cells = Gauge("scale_ray_cells", "Cells of studies that are not over, by state", ["state"], registry=registry)
    about = "Median over the trainings of a study that have a pace"
    pace = Gauge("scale_ray_seconds_per_step", about, ["study"], registry=registry)
    counts: collections.Counter[str] = collections.Counter(dict.fromkeys(get_args(CellStatus), 0))
    for row in rows:
        if row.state in OVER or row.store not in service.watches:
            continue
        watch = service.watches[row.store]
        counts.update(state.status for state in watch.cells(row.name).values())
        trainings = [training for doing in watch.doing(row.name) for training in doing.trainings]
        paces = [training.seconds_per_step for training in trainings if training.seconds_per_step is not None]
        if paces:
            pace.labels(row.name).set(median(paces))
    for status, number in counts.items():
        cells.labels(status).set(number)


def _of_cluster(service: Service, registry: CollectorRegistry) -> None:
    cluster = service.reconciler.cluster
    answers = Gauge("scale_ray_cluster_up", "Whether the cluster's head answers", registry=registry)
    answers.set(not service.reconciler.problem)
    total = Gauge("scale_ray_cluster_total", "CPUs and GPUs of the living nodes", ["resource"], registry=registry)
    used = Gauge("scale_ray_cluster_used", "Those in use", ["resource"], registry=registry)
    for name in ("CPU", "GPU"):
        total.labels(name).set(0 if cluster is None else cluster.total.get(name, 0))
        used.labels(name).set(0 if cluster is None else cluster.used.get(name, 0))
