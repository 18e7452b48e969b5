"""What Prometheus reads."""

from collections import Counter

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from scale_ray.service.database import STATES
from scale_ray.service.service import Service


def metrics(service: Service) -> str:
    """The service's figures in the text format of Prometheus, from the table and the last looks: it asks no store."""
    registry, rows = CollectorRegistry(), service.database.studies()
    of_state = Counter(row.state for row in rows)
    studies = Gauge("scale_ray_studies", "Studies by state", ["state"], registry=registry)
    for state in STATES:
        studies.labels(state).set(of_state[state])
    cells = Gauge("scale_ray_cells", "Cells of studies that are not over, by state", ["state"], registry=registry)
    counts: Counter[str] = Counter({"waiting": 0, "running": 0, "done": 0, "failed": 0, "stale": 0})
    for row in rows:
        if row.state not in ("done", "cancelled") and row.store in service.watches:
            counts.update(state.status for state in service.watches[row.store].cells(row.name).values())
    for status, number in counts.items():
        cells.labels(status).set(number)
    places = Gauge("scale_ray_places", "Trainings that studies may run at once, by owner", ["owner"], registry=registry)
    for row in rows:
        places.labels(row.owner).inc(row.places)
    requests = Gauge("scale_ray_store_requests", "Listings and readings of a store", ["store"], registry=registry)
    for name, watch in service.watches.items():
        requests.labels(name).set(watch.requests)
    cluster = service.reconciler.cluster
    answers = Gauge("scale_ray_cluster_up", "Whether the cluster's head answers", registry=registry)
    answers.set(not service.reconciler.problem)
    total = Gauge("scale_ray_cluster_total", "CPUs and GPUs of the living nodes", ["resource"], registry=registry)
    used = Gauge("scale_ray_cluster_used", "Those in use", ["resource"], registry=registry)
    for name in ("CPU", "GPU"):
        total.labels(name).set(0 if cluster is None else cluster.total.get(name, 0))
        used.labels(name).set(0 if cluster is None else cluster.used.get(name, 0))
    for name, about, value in (
        ("rounds", "Rounds of the reconciler", service.rounds),
        ("faults", "Rounds that failed", service.faults),
        ("listeners", "Pages that listen to events", service.listeners),
    ):
        Gauge(f"scale_ray_{name}", about, registry=registry).set(value)
    return generate_latest(registry).decode()
