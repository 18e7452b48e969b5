"""What handlers of requests depend on: the service, and whom the request comes from."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from scale_ray.service.access import Access, NotAllowed, Scope, Unauthorised, Who
from scale_ray.service.service import Service


def who_asks(request: Request) -> Who:
    """Whom the request comes from, counted against the limit of requests."""
    access: Access = request.app.state.access
    client = request.client.host if request.client else ""
    try:
        who = access.who(client, request.headers, request.cookies)
    except Unauthorised:
        access.count(client)
        raise
    access.count(who.name)
    return who


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
