"""Tokens, the proxy's header, origins and limits."""

import pytest

from scale_ray.config import ConfigError
from scale_ray.service.access import (
    Access,
    NotAllowed,
    TooMany,
    Unauthorised,
    Who,
    check_host,
    check_origin,
    create_token,
    revoke_token,
    tokens,
)
from scale_ray.service.database import Database
from scale_ray.service.settings import settings_of


@pytest.fixture
def database() -> Database:
    return Database("sqlite://")


def access(database: Database, clock: object = None, **values: object) -> Access:
    settings = settings_of({"stores": {"default": "store"}, **values}, "test")
    return Access(settings, database, **({"clock": clock} if clock else {}))  # type: ignore[arg-type]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_says_who_and_what_and_is_kept_as_a_digest(database: Database) -> None:
    token = create_token(database, "ann", "submit", "laptop")
    (row,) = tokens(database)
    assert token not in str(vars(row))
    for headers, cookies in ((bearer(token), {}), ({}, {"scale_ray_token": token})):
        who = access(database).who("10.0.0.1", headers, cookies)
        assert who == Who("ann", "submit")
    assert who.may("read")
    assert who.may("submit")
    assert not who.may("admin")


@pytest.mark.parametrize("headers", [{}, bearer("sr_wrong"), bearer(""), {"authorization": "Basic YTpi"}])
def test_without_a_valid_token_nobody_is_known(database: Database, headers: dict[str, str]) -> None:
    create_token(database, "ann", "admin")
    with pytest.raises(Unauthorised):
        access(database).who("127.0.0.1", headers, {})


def test_a_revoked_token_is_invalid_at_once(database: Database) -> None:
    found = access(database)
    token = create_token(database, "ann", "admin")
    with pytest.raises(ConfigError, match="no tokens start so"):
        revoke_token(database, "zz")
    with pytest.raises(ConfigError, match="no tokens start so"):
        revoke_token(database, "")
    revoke_token(database, tokens(database)[0].digest[:8])
    with pytest.raises(Unauthorised, match="revoked"):
        found.who("127.0.0.1", bearer(token), {})


def test_a_proxys_header_counts_from_its_address_alone(database: Database) -> None:
    proxy = {"address": "10.0.0.9", "header": "X-Forwarded-User", "admins": ["root@lab"]}
    found = access(database, proxy=proxy)
    assert found.who("10.0.0.9", {"x-forwarded-user": "ann@lab"}, {}) == Who("ann@lab", "submit")
    assert found.who("10.0.0.9", {"x-forwarded-user": "root@lab"}, {}) == Who("root@lab", "admin")
    for client in ("10.0.0.8", "", "unknown"):
        with pytest.raises(Unauthorised):
            found.who(client, {"x-forwarded-user": "root@lab"}, {})


def test_requests_of_a_client_are_limited_within_a_minute(database: Database) -> None:
    moment = [0.0]
    found = access(database, lambda: moment[0], limits={"requests_a_minute": 3})
    for _ in range(3):
        found.count("ann")
    with pytest.raises(TooMany):
        found.count("ann")
    found.count("ben")
    moment[0] = 61.0
    found.count("ann")


def test_clients_that_are_silent_take_no_room(database: Database) -> None:
    moment = [0.0]
    found = access(database, lambda: moment[0])
    for number in range(1000):
        found.count(str(number))
    moment[0] = 70.0
    found.count("ann")
    assert list(found._asked) == ["ann"]


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),  # a program
        ({"sec-fetch-site": "same-origin", "origin": "null"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "http://here:1", "host": "here:1"}, True),
        ({"origin": "http://evil", "host": "here:1"}, False),
        ({"origin": "null", "host": "here:1"}, False),
    ],
)
def test_a_change_that_another_site_asks_for_is_refused(headers: dict[str, str], passes: bool) -> None:
    check_origin("GET", headers)
    if passes:
        check_origin("POST", headers)
    else:
        with pytest.raises(NotAllowed):
            check_origin("POST", headers)


def test_on_loopback_another_name_of_this_machine_is_refused() -> None:
    settings = settings_of({"stores": {"default": "store"}}, "test")
    for host in ("127.0.0.1:8700", "localhost:8700", "[::1]:8700", "localhost"):
        check_host(settings, host)
    for host in ("evil.example:8700", "", "127.0.0.1.evil.example"):
        with pytest.raises(NotAllowed):
            check_host(settings, host)
    outside = settings_of({"stores": {"default": "store"}, "host": "0.0.0.0"}, "test")
    check_host(outside, "studies.example.org")


def test_who_listens_to_other_machines_needs_tokens() -> None:
    with pytest.raises(ConfigError, match="every request needs a token"):
        settings_of({"stores": {"default": "store"}, "host": "0.0.0.0", "tokens": False}, "file.toml")
    settings_of({"stores": {"default": "store"}, "tokens": False}, "file.toml")
