"""The API over HTTP: what it answers, and what it refuses and how. Its server is the real one; no cluster answers."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from report_stores import record_of
from serving import Served, served, study
from simulated import SimulatedJobs

from scale_ray.client import Client, ServiceError
from scale_ray.service.access import revoke_token, tokens
from scale_ray.store import Store


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("service"), limits={"body_bytes": 20_000, "cells": 50}) as found:
        yield found


def test_a_dry_run_answers_with_the_plan_and_keeps_nothing(service: Served) -> None:
    plan = service.client().plan(study("dry"))
    assert (plan["cells"], plan["done"], plan["to_do"], plan["steps"]) == (2, 0, 2, 20)
    assert plan["text"].startswith("dry: 2 cells, 0 done, 2 to do, 20 steps")
    assert service.client().studies() == [] or all(each["name"] != "dry" for each in service.client().studies())
    assert not any(plan.name == "dry" for plan in Store(service.service.settings.stores["default"]).plans())


def test_a_submission_is_planned_and_kept_and_the_same_again_changes_nothing(service: Served) -> None:
    client = service.client("ann")
    first = client.submit(study("once"))["study"]
    again = client.submit(study("once", priority=3))["study"]
    assert first == again
    assert (first["owner"], first["state"], first["cells"]) == ("ann", "waiting", 2)
    assert client.study("once")["document"]["study"]["axes"]["seed"] == [0, 1]
    plans = {plan.name: plan for plan in Store(service.service.settings.stores["default"]).plans()}
    assert len(plans["once"].cells) == 2
    cells = client.cells("once")
    assert cells == {} or set(cells) == {cell.id for cell in plans["once"].cells}


def test_another_study_of_that_name_is_refused(service: Served) -> None:
    service.client("ann").submit(study("taken"))
    with pytest.raises(ServiceError, match="another one of that name, by ann") as refused:
        service.client("ben").submit(study("taken"))
    assert refused.value.status == 409


def test_only_the_owner_and_an_admin_may_change_a_study(service: Served) -> None:
    service.client("ann").submit(study("anns"))
    with pytest.raises(ServiceError, match="belongs to ann") as refused:
        service.client("ben").pause("anns")
    assert refused.value.status == 403
    assert service.client("root", "admin").reweigh("anns", priority=7)["priority"] == 7
    assert service.client("ben", "read").study("anns")["priority"] == 7


def test_a_study_grows_by_values_of_its_axes(service: Served) -> None:
    client = service.client("ann")
    client.submit(study("grows"))
    grown = client.extend("grows", {"seed": [1, 2, 3]})
    assert grown["plan"]["cells"] == 4
    assert grown["study"]["document"]["study"]["axes"]["seed"] == [0, 1, 2, 3]
    with pytest.raises(ServiceError, match="all of these values already") as refused:
        client.extend("grows", {"seed": [2]})
    assert refused.value.status == 409
    with pytest.raises(ServiceError, match="seed"):
        client.extend("grows", {"seed": ["many"]})


def test_of_two_submissions_of_one_name_at_a_time_one_is_taken(service: Served) -> None:
    clients = [service.client("ann"), service.client("ben")]

    def submit(client: Client, seed: int) -> str:
        with suppress(ServiceError):
            client.submit({"study": {"name": "race", "axes": {"seed": [seed]}}})
            return str(client.study("race")["owner"])
        return ""

    with ThreadPoolExecutor(2) as pool:
        owners = list(pool.map(submit, clients, [0, 1]))
    (owner,) = filter(None, owners)
    errand = json.loads(Store(service.service.settings.stores["default"]).files.read("errands/race.json") or b"")
    assert errand["study"]["axes"]["seed"] == [["ann", "ben"].index(owner)]


def test_a_plan_that_somebody_else_has_in_the_store_is_not_replaced(service: Served) -> None:
    store = Store(service.service.settings.stores["default"])
    service.client().submit(study("first"))
    (plan,) = [each for each in store.plans() if each.name == "first"]
    store.write_plan(plan.model_copy(update={"name": "theirs"}))
    with pytest.raises(ServiceError, match="earlier plan of that name"):
        service.client().submit({"study": {"name": "theirs", "axes": {"seed": [7]}}})
    assert [each.cells for each in store.plans() if each.name == "theirs"] == [plan.cells]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"study": {"name": "x", "axes": {"seed": list(range(900)), "losses.threshold": [0.5] * 900}}},
            "810,000 cells",
        ),
        ({"study": {"name": "x", "axes": {"seed": [0]}}, "store": "file:///etc"}, "knows none of that name"),
        ({"study": {"name": "x", "axes": {"seed": [0]}}, "root": "/etc"}, "knows none of that name"),
        ({"study": {"name": "x", "axes": {"model.weights": ["/etc/passwd"]}}}, "no file of a submitter's choosing"),
        ({"study": {"name": "x", "base": {"nothing": 1}, "axes": {"seed": [0]}}}, "unknown field 'nothing'"),
        ({"study": {"name": "x", "axes": {"seed": list(range(51))}}}, "51 cells, this service takes 50"),
        ({"study": {"name": "../../x", "axes": {"seed": [0]}}}, "name"),
    ],
)
def test_what_cannot_run_is_refused_with_a_reason(service: Served, body: object, words: str) -> None:
    answer = service.ask("POST", "/api/studies", service.token(), json=body)
    assert answer.status_code == 422
    assert words in answer.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"study": {"name": "x", "step": 1, "axes": {"seed": [0]}}},
            "unknown field 'study.step': did you mean 'steps'?",
        ),
        (
            {"study": {"name": "x", "axes": {"seed": [0]}}, "run": {"gpu": 1}},
            "unknown field 'run.gpu': did you mean 'gpus'?",
        ),
        ({"name": "x", "axes": {"seed": [0]}}, "study: is missing\nunknown field 'name': known: study, store"),
        ({"study": {"name": "my first", "axes": {"seed": [0]}}}, "'my first' cannot be used: write letters, digits"),
        ([1], "the body is no JSON object"),
    ],
)
def test_a_body_of_another_form_is_told_in_words(service: Served, body: object, words: str) -> None:
    answer = service.ask("POST", "/api/studies", service.token(), json=body)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_who_asks_is_told(service: Served) -> None:
    assert service.get("/api/me", service.token("eve", "read")).json() == {"name": "eve", "scope": "read"}


def test_a_path_that_there_is_not_is_an_error_like_any_other(service: Served) -> None:
    assert service.get("/nothing").json() == {"error": "no such page: / has the studies, /docs the API"}
    assert service.ask("DELETE", "/api/studies").json() == {"error": "Method Not Allowed"}


# What people and machines look at


def test_health_and_metrics_say_that_the_cluster_does_not_answer(service: Served) -> None:
    while not service.service.reconciler.problem:
        time.sleep(0.05)
    assert service.get("/healthz").json() | {"rounds": 0} == {
        "database": True,
        "cluster": False,
        "rounds": 0,
        "version": "0.1.0",
    }
    text = service.get("/metrics", service.token("prometheus", "read")).text
    assert "scale_ray_cluster_up 0.0" in text
    assert 'scale_ray_studies{state="waiting"}' in text


def test_requests_are_counted_by_route_and_not_by_what_somebody_asks_for(service: Served) -> None:
    reader = service.token("prometheus", "read")
    for name in ("a", "b"):
        service.get(f"/api/studies/no_such_{name}", reader)
        service.get(f"/no_such_{name}", reader)
    text = service.get("/metrics", reader).text
    count = "scale_ray_request_seconds_count"
    assert f'{count}{{method="GET",route="/api/studies/{{name}}",status="404"}}' in text
    assert f'{count}{{method="any",route="none",status="404"}}' in text
    assert "no_such" not in text


def test_the_api_is_described(service: Served) -> None:
    paths = requests.get(f"{service.url}/openapi.json", timeout=600).json()["paths"]
    assert {"/api/studies", "/api/studies/{name}", "/api/studies/{name}/extend"} <= set(paths)
    described = paths["/api/studies"]["post"]
    assert described["security"] == [{"HTTPBearer": []}]
    assert {"401", "403", "409", "422"} <= set(described["responses"])
    page = service.get("/docs").text
    assert "POST /api/studies" in page
    assert "StudyDocument" in page


def test_events_tell_a_change_once_and_say_that_they_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scale_ray.service.app._HEARTBEAT_SECONDS", 0.2)
    with served(tmp_path, jobs=SimulatedJobs(), seconds=5.0) as service:
        client = service.client()
        client.submit(study("seen"))
        events = service.get("/api/studies/seen/events", service.token("eve", "read"), stream=True)
        lines = events.iter_lines(decode_unicode=True)
        first = next(line for line in lines if line.startswith("data:"))
        assert json.loads(first[5:])["study"]["name"] == "seen"
        assert next(line for line in lines if line.startswith(":")) == ": still here"
        client.reweigh("seen", priority=4)
        told = next(json.loads(line[5:]) for line in lines if line.startswith("data:"))
        assert told["study"]["priority"] == 4 or told["study"]["state"] == "starting"
        events.close()


def test_a_revoked_token_ends_what_its_pages_are_told(tmp_path: Path) -> None:
    with served(tmp_path, jobs=SimulatedJobs()) as service:
        service.client().submit(study("seen"))
        token = service.token("eve", "read")
        lines = service.get("/api/studies/seen/events", token, stream=True).iter_lines(decode_unicode=True)
        assert any(line.startswith("data:") for line in lines)
        (row,) = [each for each in tokens(service.service.database) if each.owner == "eve"]
        revoke_token(service.service.database, row.digest)
        for _ in lines:  # ends when the service closes the connection
            pass


def test_requests_to_the_store_do_not_grow_with_those_who_look(tmp_path: Path) -> None:
    with served(tmp_path, jobs=SimulatedJobs(), seconds=3600.0) as service:
        client, reader = service.client(), service.token("eve", "read")
        client.submit(study("watched"))
        watch = service.service.watches["default"]
        service.get("/studies/watched", reader)  # its plan was new
        before = watch.requests
        for _ in range(20):
            assert service.get("/studies/watched", reader).status_code == 200
            assert len(client.cells("watched")) == 2
        assert watch.requests == before


def test_the_curve_of_a_cell_is_asked_for_by_itself(service: Served) -> None:
    service.client().submit(study("curves"))
    store, reader = Store(service.service.settings.stores["default"]), service.token("eve", "read")
    (plan,) = [each for each in store.plans() if each.name == "curves"]
    done, waiting = plan.cells
    store.write_record(record_of(done.config, 60.0, inputs=done.inputs))
    assert service.get("/studies/curves", reader).status_code == 200
    found, nothing, unknown = (
        service.get(f"/api/studies/curves/cells/{cell}/curve", reader) for cell in (done.id, waiting.id, "f" * 64)
    )
    assert found.json()["steps"] == [0, 200, 400, 600]
    assert found.json()["target_accuracy"] == [0.0, 20.0, 40.0, 60.0]
    assert nothing.json() == {}
    assert unknown.status_code == 404
    assert unknown.json()["error"].startswith("no cell 'ffff")


def test_a_client_says_what_is_wrong_in_one_line(service: Served) -> None:
    with pytest.raises(ServiceError, match=r"no answer .*is `scale-ray serve` running"):
        Client("http://127.0.0.1:9", "sr_x").studies()
    with pytest.raises(ServiceError, match="not valid, or was revoked"):
        Client(service.url, "sr_x").studies()
    with pytest.raises(ServiceError, match="no study 'nobody'"):
        service.client().study("nobody")
