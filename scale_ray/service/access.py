"""Who may do what: tokens, a proxy's header, and what keeps one client from harming the others."""

import hashlib
import ipaddress
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from sqlalchemy import select

from scale_ray.config import ConfigError
from scale_ray.errors import UserError
from scale_ray.service.database import Database, TokenRow, now
from scale_ray.service.settings import LOOPBACK, SCOPES, Proxy, Scope, ServiceSettings

COOKIE = "scale_ray_token"
_START = "sr_"
_WINDOW = 60.0  # seconds


class Unauthorised(UserError):
    """The request says not who it comes from, or with a token that is not valid."""


class NotAllowed(UserError):
    """Who the request comes from may not do this."""


class TooMany(UserError):
    """The client asks too often."""


@dataclass(frozen=True)
class Who:
    """Whom a request comes from."""

    name: str
    scope: Scope

    def may(self, scope: Scope) -> bool:
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


def create_token(database: Database, owner: str, scope: str, note: str = "") -> str:
    """Make a token. The database keeps its digest alone, so it is shown this once.

    Raises:
        ConfigError: there is no such scope, or the owner has no name.
    """
    if scope not in SCOPES:
        raise ConfigError(f"scope {scope!r}: choose from {', '.join(SCOPES)}")
    if not owner.strip() or not owner.isprintable():
        raise ConfigError(f"owner {owner!r}: give a name")
    token = _START + secrets.token_urlsafe(32)
    with database.session() as session:
        session.add(TokenRow(digest=_digest(token), owner=owner.strip(), scope=scope, note=note, created=now()))
    return token


def tokens(database: Database) -> list[TokenRow]:
    """All tokens, by owner."""
    with database.session() as session:
        return list(session.scalars(select(TokenRow).order_by(TokenRow.owner, TokenRow.created)))


def revoke_token(database: Database, start: str) -> TokenRow:
    """Remove the token whose digest starts so, as `scale-ray token list` shows it.

    Raises:
        ConfigError: no digest, or several, start so.
    """
    found = [row for row in tokens(database) if start and row.digest.startswith(start)]
    if len(found) != 1:
        raise ConfigError(f"{start!r}: {len(found) or 'no'} tokens start so: give the first characters of one")
    with database.session() as session:
        session.delete(session.get_one(TokenRow, found[0].digest))
    return found[0]


class Access:
    """Tells whom a request comes from, and refuses what it may not do.

    Args:
        settings: of the service.
        database: has the tokens.
        clock: seconds that never go back.
    """

    def __init__(self, settings: ServiceSettings, database: Database, clock: Callable[[], float] = time.monotonic):
        self._settings, self._database, self._clock = settings, database, clock
        # Client -> moments of its requests, of clients that have asked within the last minutes.
        self._asked: dict[str, deque[float]] = defaultdict(deque)
        self._tidied, self._lock = clock(), threading.Lock()

    def who(self, client: str, headers: Mapping[str, str], cookies: Mapping[str, str]) -> Who:
        """Whom the request comes from.

        Args:
            client: IP address that it comes from.
            headers: of the request, by lower-case name.
            cookies: of the request.

        Raises:
            Unauthorised: it does not say so, or its token is not valid.
        """
        bearer = headers.get("authorization", "")
        token = bearer[7:].strip() if bearer[:7].lower() == "bearer " else cookies.get(COOKIE, "")
        if token:
            return self._of_token(token)
        proxy = self._settings.proxy
        if proxy is not None and _same_address(client, proxy.address) and (user := headers.get(proxy.header.lower())):
            return _of_proxy(proxy, user)
        if not self._settings.tokens:
            return Who("local", "admin")
        raise Unauthorised("this service needs a token: send `Authorization: Bearer TOKEN`, or sign in at /login")

    def _of_token(self, token: str) -> Who:
        with self._database.session() as session:
            row = session.get(TokenRow, _digest(token))
        if row is None:
            raise Unauthorised("the token is not valid, or was revoked: ask for another one")
        return Who(row.owner, cast(Scope, row.scope))

    def count(self, client: str) -> None:
        """Count a request.

        Raises:
            TooMany: the client has asked too often within a minute.
        """
        moment, most = self._clock(), self._settings.limits.requests_a_minute
        with self._lock:  # requests are handled in several threads
            if moment - self._tidied > _WINDOW:
                self._tidied = moment
                recent = {each: found for each, found in self._asked.items() if moment - found[-1] <= _WINDOW}
                self._asked = defaultdict(deque, recent)
            moments = self._asked[client]
            while moments and moment - moments[0] > _WINDOW:
                moments.popleft()
            if len(moments) >= most:
                raise TooMany(f"more than {most} requests in a minute: wait a little")
            moments.append(moment)


def check_origin(method: str, headers: Mapping[str, str]) -> None:
    """Refuse a change that another site makes a browser ask for (CSRF).

    A browser says in `Sec-Fetch-Site` or `Origin` where a request comes from. A program that sends neither has no
    cookie that a site could misuse.

    Raises:
        NotAllowed: it comes from another site.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        return
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    own = origin is None or origin.partition("://")[2] == headers.get("host")
    if not (own if site is None else site in ("same-origin", "none")):
        raise NotAllowed("a change that another site asks for is refused")


def check_host(settings: ServiceSettings, host: str) -> None:
    """Refuse a name of this machine that somebody else's DNS gives it, where it listens for itself alone.

    Raises:
        NotAllowed: a page of another site may have been led here (DNS rebinding).
    """
    name = host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
    if settings.host in LOOPBACK and name not in LOOPBACK:
        raise NotAllowed(f"this service listens on {settings.host}: open it under that name")


def _of_proxy(proxy: Proxy, user: str) -> Who:
    return Who(user, "admin" if user in proxy.admins else proxy.scope)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False
