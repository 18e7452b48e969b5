"""Which Ray a study joins or starts, and what it says where none answers. Ray itself would ask for minutes."""

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import ray
from rich.console import Console

from scale_ray.config import ConfigError, Resources
from scale_ray.sweep import cluster
from scale_ray.sweep.cluster import Footprint, Slots, start_ray


@pytest.fixture
def nowhere() -> str:
    """An address at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which something listens and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def web() -> Iterator[str]:
    """An address at which a web server listens, such as Ray's dashboard."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def refusal(address: str | None) -> str:
    with pytest.raises(ConfigError) as refused:
        start_ray(Resources(address=address), Console(quiet=True))
    (line,) = str(refused.value).splitlines()
    assert "--local" in line
    return line


def test_an_address_where_nothing_listens_is_one_line(nowhere: str) -> None:
    assert f"no Ray cluster at address '{nowhere}'" in refusal(nowhere)
    assert "refused" in refusal(nowhere)


def test_the_address_of_the_environment_is_asked_too(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nowhere)
    assert f"no Ray cluster at address '{nowhere}'" in refusal(None)


@pytest.mark.parametrize("what", ["silent", "web"])
def test_another_service_at_the_address_is_one_line(
    what: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 0.5)
    assert "something else listens there" in refusal(request.getfixturevalue(what))


def test_a_proxy_for_the_web_is_not_asked(monkeypatch: pytest.MonkeyPatch, nowhere: str) -> None:
    for name in ("http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://{nowhere}")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert cluster._silence(f"127.0.0.1:{port}") == ""
    finally:
        server.stop(None)


@pytest.mark.parametrize(
    "address",
    [
        *("head", "head:", ":6379", "head:abc", "127.0.0.1:99999", "no-such-host.invalid:1"),
        *("head..cluster:6379", f"{'h' * 70}.cluster:6379", ".:6379"),
    ],
)
def test_what_is_no_address_is_one_line(address: str) -> None:
    assert f"no Ray cluster at address '{address}'" in refusal(address)


def test_auto_needs_a_cluster_that_was_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_bootstrap_address", lambda folder: None)
    assert "this machine belongs to no Ray cluster" in refusal("auto")


def test_a_left_over_cluster_that_is_gone_is_passed_over(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ray start` leaves its address in a file, which stays when the machine is switched off."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "find_bootstrap_address", lambda folder: nowhere)
    try:
        assert start_ray(Resources(), Console()) is False
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    assert f"{nowhere}, is gone: starting Ray on this machine" in capsys.readouterr().out.replace("\n", " ")


def nodes(monkeypatch: pytest.MonkeyPatch, *resources: dict[str, float]) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": each} for each in resources])
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": sum(each.get("CPU", 0) for each in resources)})


@pytest.mark.parametrize(
    ("bundle", "workers", "lack"),
    [
        ({"CPU": 1.0}, 1, None),
        ({"CPU": 1.0}, 16, None),
        ({"CPU": 1.0}, 64, "the nodes can hold 16 workers of 1 CPU, a trial has 64"),
        ({"CPU": 5.0}, 4, "the nodes can hold 2 workers of 5 CPU, a trial has 4"),
        ({"CPU": 9.0}, 1, "no node can hold a worker of 9 CPU; the most that one has is 8 CPU"),
        (
            {"CPU": 1.0, "GPU": 1.0},
            1,
            "no node can hold a worker of 1 CPU, 1 GPU; the most that one has is 8 CPU, 0 GPU",
        ),
    ],
)
def test_what_keeps_a_study_waiting_is_said(
    bundle: dict[str, float], workers: int, lack: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers of a trial count, not only the first."""
    nodes(monkeypatch, {"CPU": 8}, {"CPU": 8})
    assert Slots(Footprint(bundle, workers, through_train=workers > 1)).lack() == lack


def test_how_many_trainings_may_wait_for_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Footprint({"CPU": 1.0}, 1, False), Footprint({"CPU": 1.0}, 2, True)
    nodes(monkeypatch)
    assert Slots(one, cluster=True).waiting() == 32  # nodes that an autoscaler may start
    assert Slots(one, cluster=True, alone=lambda: False).waiting() == 1  # what waits here, another driver cannot take
    assert Slots(two, cluster=True).waiting() == 1  # each that waits is a process
    nodes(monkeypatch, *(50 * [{"CPU": 2}]))
    assert Slots(one, cluster=True).waiting() == 100
    assert Slots(one).waiting() == 100


@pytest.mark.parametrize("cpus", [0, 4])
def test_drivers_of_ray_train_keep_away_from_a_head_that_trains_nothing(
    cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = {"Alive": True, "NodeID": "abc", "Resources": {"node:__internal_head__": 1.0, "CPU": float(cpus)}}
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "NodeID": "def", "Resources": {"CPU": 4.0}}, head])
    assert cluster.away_from_the_head() == ({} if cpus else {"ray.io/node-id": "!abc"})


def test_starting_ray_here_forgets_the_address_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setattr(ray, "init", lambda **options: None)
    assert start_ray(Resources(address="local"), Console(quiet=True)) is False
    assert "RAY_ADDRESS" not in os.environ
