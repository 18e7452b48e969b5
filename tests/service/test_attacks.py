"""The attack list: what is tried against the API, and the answer. Its server is the real one; no cluster answers."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Served, served, study


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("service"), limits={"body_bytes": 20_000, "cells": 50}) as found:
        yield found


@pytest.mark.parametrize("path", ["/api/studies", "/api/studies/try", "/metrics", "/studies/try/report.html"])
def test_without_a_token_nothing_is_told(service: Served, path: str) -> None:
    for token in (None, "sr_guess", ""):
        answer = service.get(path, token)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_pages_send_who_is_not_known_to_sign_in(service: Served) -> None:
    for path in ("/", "/studies/try"):
        answer = service.get(path, allow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")


def test_a_scope_that_is_too_small_is_refused(service: Served) -> None:
    reader = service.token("eve", "read")
    for method, path, body in (
        ("POST", "/api/studies", study("eves")),
        ("POST", "/api/studies/try/cancel", None),
        ("PATCH", "/api/studies/try", {"priority": 1}),
    ):
        answer = service.ask(method, path, reader, json=body)
        assert answer.status_code == 403
        assert "scope submit" in answer.json()["error"]


def test_a_change_that_another_site_asks_for_is_refused_even_with_the_cookie(service: Served) -> None:
    cookies = {"scale_ray_token": service.token("ann", "admin")}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        answer = service.ask("POST", "/api/studies/try/cancel", cookies=cookies, headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"error": "a change that another site asks for is refused"})
    own = {"Sec-Fetch-Site": "same-origin"}
    answer = service.ask("POST", "/api/studies/nobody/cancel", cookies=cookies, headers=own)
    assert answer.status_code == 404


def test_another_name_of_this_machine_is_refused(service: Served) -> None:
    answer = service.get("/healthz", headers={"Host": "evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "a%00b", "<script>", "%ff"])
def test_a_path_for_a_name_leads_nowhere(service: Served, name: str) -> None:
    token = service.token()
    for path in (f"/api/studies/{name}", f"/studies/{name}", f"/api/studies/{name}/log", f"/static/{name}"):
        answer = service.get(path, token)
        assert answer.status_code in (404, 405)
        assert "root:" not in answer.text


def test_a_body_that_is_too_large_is_refused_before_it_is_read(service: Served) -> None:
    answer = service.ask("POST", "/api/studies", service.token(), data=b"x" * 20_001)
    assert answer.status_code == 413
    chunks = (b"x" * 5000 for _ in range(10))
    assert service.ask("POST", "/api/studies", service.token(), data=chunks).status_code == 413


def test_a_client_that_sends_its_body_slowly_is_let_go(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scale_ray.service.guard._BODY_SECONDS", 0.5)
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=600) as slow:
        slow.sendall(b"POST /api/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert service.get("/healthz").status_code == 200


def test_every_answer_forbids_foreign_content(service: Served) -> None:
    for path in ("/login", "/healthz", "/static/page.js", "/nowhere"):
        headers = service.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_who_looks_gets_a_page_where_there_is_none(service: Served) -> None:
    token = service.token()
    page = service.get("/studies/nobody", token, headers={"Accept": "text/html,*/*"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "no study &#39;nobody&#39; here" in page.text


def test_script_in_a_name_is_text_on_every_page(tmp_path: Path) -> None:
    """No study can have such a name; an owner can, by a proxy."""
    proxy = {"address": "127.0.0.1", "header": "X-User"}
    with served(tmp_path, proxy=proxy) as service:
        evil = {"X-User": "<script>alert(1)</script>"}
        assert service.ask("POST", "/api/studies", json=study("evil"), headers=evil).status_code == 200
        for path in ("/", "/studies/evil"):
            page = service.get(path, headers=evil)
            assert page.status_code == 200
            assert "<script>alert" not in page.text
            assert "&lt;script&gt;alert(1)" in page.text


def test_one_client_cannot_ask_without_end(tmp_path: Path) -> None:
    with served(tmp_path, limits={"requests_a_minute": 5}) as service:
        token, other = service.token("ann"), service.token("ben")
        codes = [service.get("/api/studies", token).status_code for _ in range(7)]
        assert codes == [200] * 5 + [429] * 2
        assert service.get("/api/studies", other).status_code == 200


def test_sign_in_gives_a_cookie_that_scripts_and_other_sites_do_not_see(service: Served) -> None:
    wrong = service.ask("POST", "/login", data={"token": "sr_no"})
    assert (wrong.status_code, "not valid" in wrong.text) == (401, True)
    right = service.ask("POST", "/login", data={"token": service.token("ann")}, allow_redirects=False)
    cookie = right.headers["set-cookie"].lower()
    assert right.status_code == 303
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
