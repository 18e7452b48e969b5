"""What handlers of requests depend on: the service, and whom the request comes from."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from scale_ray.service.access import Access, NotAllowed, Unauthorised, Who
from scale_ray.service.service import Service
from scale_ray.service.settings import Scope


def who_asks(request: Request) -> Who:
    """Whom the request comes from, counted against the limit of requests."""
    access: Access = request.app.state.access
    client = client_of(request)
    try:
        who = access.who(client, request.headers, request.cookies)
    except Unauthorised:
        access.count(client)
        raise
    access.count(who.name)
    return who


def is_known(request: Request) -> bool:
    """Whether it is still known whom the request comes from. It is not counted."""
    access: Access = request.app.state.access
    try:
        access.who(client_of(request), request.headers, request.cookies)
    except Unauthorised:
        return False
    return True


def client_of(request: Request) -> str:
    """The IP address that the request comes from; empty where the server does not know it."""
    return request.client.host if request.client else ""


def _needs(scope: Scope) -> Callable[..., Who]:
    def check(who: Annotated[Who, Depends(who_asks)]) -> Who:
        if not who.may(scope):
            raise NotAllowed(f"this needs a token of scope {scope}; yours has {who.scope}")
        return who

    return check


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


Reader = Annotated[Who, Depends(_needs("read"))]
Submitter = Annotated[Who, Depends(_needs("submit"))]
Running = Annotated[Service, Depends(service_of)]
